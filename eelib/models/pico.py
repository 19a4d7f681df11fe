"""The small models of the laptop and ci profiles: the thesis's depths at a width a laptop can train.

`llama-pico` has Llama-3.2-3B's 28 layers with grouped-query attention and RoPE, `opt-pico` OPT-2.7B's 32 layers with
learned positions, so that exit points, loss weights and every axis over layers are the thesis's own.
"""

import math

import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

POSITIONS = 256  # the length of the sequences they are trained on

PICO_CONFIGS: dict[str, PretrainedConfig] = {
    "llama-pico": LlamaConfig(
        hidden_size=128,
        num_hidden_layers=28,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=352,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    ),
    "opt-pico": OPTConfig(
        hidden_size=128,
        word_embed_proj_dim=128,
        num_hidden_layers=32,
        num_attention_heads=4,
        ffn_dim=512,
        max_position_embeddings=POSITIONS,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        tie_word_embeddings=True,
    ),
}

_OUTPUT_PROJECTIONS = ("o_proj", "down_proj", "out_proj", "fc2")


def pico_config(
    name: str, vocab_size: int, bos: int, eos: int, pad: int, layers: int | None = None
) -> PretrainedConfig:
    """A copy of a pico configuration with a tokenizer's vocabulary; `layers` shortens it for tests."""
    config = type(PICO_CONFIGS[name]).from_dict(PICO_CONFIGS[name].to_dict())
    config.vocab_size = vocab_size
    config.bos_token_id, config.eos_token_id, config.pad_token_id = bos, eos, pad
    if layers is not None:
        config.num_hidden_layers = layers
    return config


def random_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A float32 model with random weights, stable at any depth.

    Weights are N(0, 0.02); projections that write into the residual stream are scaled down by 1/sqrt(2L) as in GPT-2
    (Radford et al. 2019, Sec. 2.3), without which 28 layers of width 128 train slowly or diverge.
    """
    torch.manual_seed(seed)
    model = {"llama": LlamaForCausalLM, "opt": OPTForCausalLM}[config.model_type](config)
    deviation = 0.02 / math.sqrt(2 * config.num_hidden_layers)
    for name, module in model.named_modules():
        if name.endswith(_OUTPUT_PROJECTIONS):
            nn.init.normal_(module.weight, std=deviation)
    return model.float().eval()
