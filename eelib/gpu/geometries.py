"""The thesis's two models as shapes, with random weights.

How long a decoder takes, and what energy, depends on which layers run and not on what its weights say. The configurations
are those of the published checkpoints (facebook/opt-2.7b, meta-llama/Llama-3.2-3B), written out, since no hub is needed.
The tiny ones keep the depths, and with them exit points and replayed exits.
"""

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from eelib.errors import InputError
from eelib.models.loading import load_model

OPT_2_7B = {
    "hidden_size": 2560,
    "word_embed_proj_dim": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "ffn_dim": 10240,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "do_layer_norm_before": True,
    "activation_function": "relu",
}
LLAMA_3_2_3B = {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_TINY_OPT = {
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "num_attention_heads": 4,
    "ffn_dim": 128,
    "vocab_size": 256,
}
_TINY_LLAMA = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 256,
}
GEOMETRIES: dict[str, PretrainedConfig] = {
    "opt-2.7b": OPTConfig(**OPT_2_7B),
    "llama-3.2-3b": LlamaConfig(**LLAMA_3_2_3B),
    "opt-2.7b-tiny": OPTConfig(**OPT_2_7B | _TINY_OPT),
    "llama-3.2-3b-tiny": LlamaConfig(**LLAMA_3_2_3B | _TINY_LLAMA),
}


def build(name: str, dtype: torch.dtype, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """A model of a geometry with random weights, or a real checkpoint (a folder, or organisation/name on the hub).

    Weights are drawn on the device in the model's dtype: transformers' own initialisation, N(0, 0.02). The model never
    stops at an end token. Another name gives InputError.
    """
    if name in GEOMETRIES:
        torch.manual_seed(seed)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(GEOMETRIES[name], dtype=dtype).eval()
    elif "/" in name:
        model = load_model(name, dtype).to(device)
    else:
        raise InputError(
            f"The geometry is {name!r}: allowed are {', '.join(GEOMETRIES)}, a checkpoint's folder with a slash in its "
            "path, or an id organisation/name on the hub."
        )
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def decoding_bytes(model: PreTrainedModel, layers: float, context: float) -> float:
    """Bytes that one new token must read: weights of the layers that run, the head, and their keys and values.

    Args:
        layers: how many run; a mean over tokens may be fractional.
        context: positions whose keys and values are read.
    """
    config = model.config
    decoder = model.model.decoder if config.model_type == "opt" else model.model
    block = sum(parameter.nbytes for parameter in decoder.layers[0].parameters())
    attention = decoder.layers[0].self_attn
    keys = attention.k_proj.out_features * model.lm_head.weight.element_size()
    return layers * (block + 2 * keys * context) + model.lm_head.weight.nbytes
