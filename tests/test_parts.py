"""Models taken apart: OPT and Llama in their variants against Hugging Face's own forward pass. Others: `test_architectures.py`."""

import pytest
import torch
from conftest import VOCABULARY, tiny_model
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from eelib.decoding.cache import KeyValueCache
from eelib.models.parts import take_apart

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 4}
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
VARIANTS = {
    # As OPT-350m has it, but pre-norm: words narrower than the layers, projected in and out.
    "opt with narrow words": OPTConfig(
        **SHAPE, ffn_dim=64, word_embed_proj_dim=16, max_position_embeddings=64, pad_token_id=1
    ),
    # As Llama-3.2 has it: scaled rotary positions, heads whose width is not hidden_size / heads.
    "llama 3.2": LlamaConfig(
        **SHAPE,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=128,
        rope_parameters=ROPE | {"original_max_position_embeddings": 16},
        tie_word_embeddings=True,
    ),
    "untied llama with biases": LlamaConfig(
        **SHAPE, intermediate_size=64, attention_bias=True, mlp_bias=True, tie_word_embeddings=False
    ),
}


def build(config):
    torch.manual_seed(0)
    model = {"opt": OPTForCausalLM, "llama": LlamaForCausalLM}[config.model_type](config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that leaving one out shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request):
    return take_apart(build(VARIANTS[request.param]))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pico", "heads"), [("llama-pico", 2), ("opt-pico", 4)])
def test_what_the_parts_say_of_a_model(pico, heads):
    parts = take_apart(tiny_model(pico))
    assert (parts.total_layers, parts.exit_points) == (12, [4, 6, 10])
    assert (parts.width, parts.max_positions, parts.device.type) == (128, 256, "cpu")
    assert parts.layers[0].self_attn.k_proj.out_features == heads * 32


@torch.no_grad()
def test_variants_compute_what_hugging_face_does(variant, ids):
    theirs = variant.model(ids, output_hidden_states=True)
    ours = variant.hidden_states(ids)
    assert len(ours) == variant.total_layers
    for layer in range(1, variant.total_layers):
        torch.testing.assert_close(ours[layer - 1], theirs.hidden_states[layer])
    torch.testing.assert_close(variant.logits(ours[-1]), theirs.logits)
    assert variant.logits(ours[0]).shape == (2, 40, VOCABULARY)


@torch.no_grad()
def test_logits_of_single_states_are_those_of_the_sequence(variant, ids):
    state = variant.hidden_states(ids)[3]
    torch.testing.assert_close(variant.logits(state[:, 7]), variant.logits(state)[:, 7])


def fused_states(variant, ids, cache=None) -> list[torch.Tensor]:
    """States before the first layer and after each, by the fused layers."""
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    states, rotation = [variant.embed(ids, positions)], variant.fused.rotation(positions)
    for layer in variant.fused.layers:
        states.append(layer(states[-1], rotation, cache))
    return states


@torch.no_grad()
def test_fused_layers_compute_what_the_modules_do(variant, ids):
    for ours, theirs in zip(fused_states(variant, ids)[1:], variant.hidden_states(ids), strict=True):
        torch.testing.assert_close(ours, theirs)
    # One token at a time, by another path through attention, against the cache that the tokens before it filled.
    cache = KeyValueCache(variant, 2, ids.shape[1])
    alone = [fused_states_at(variant, ids, place, cache) for place in range(ids.shape[1])]
    torch.testing.assert_close(torch.cat(alone, 1), variant.hidden_states(ids)[-1])


def fused_states_at(variant, ids, place, cache) -> torch.Tensor:
    positions = torch.full((2, 1), place)
    hidden = variant.embed(ids[:, place : place + 1], positions)
    for layer in variant.fused.layers:
        hidden = layer(hidden, variant.fused.rotation(positions), cache)
    return hidden


@torch.no_grad()
def test_projected_keys_and_values_are_those_that_hugging_face_caches(variant, ids):
    cache = DynamicCache(config=variant.model.config)
    variant.model(ids, past_key_values=cache)
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    rotation = variant.fused.rotation(positions)
    inputs = [variant.embed(ids, positions), *variant.hidden_states(ids)[:-1]]
    for layer, hidden in enumerate(inputs, start=1):
        keys, values = variant.fused.keys_values(hidden, rotation, layer, layer)
        torch.testing.assert_close(keys[0], cache.layers[layer - 1].keys)
        torch.testing.assert_close(values[0], cache.layers[layer - 1].values)
    # All layers in one product are the layers one by one.
    together = variant.fused.keys_values(inputs[2], rotation, 3, 8)
    one_by_one = [variant.fused.keys_values(inputs[2], rotation, layer, layer) for layer in range(3, 9)]
    for number in (0, 1):
        torch.testing.assert_close(together[number], torch.cat([pair[number] for pair in one_by_one]))


def test_joined_weights_take_no_memory_of_their_own(variant):
    attention = variant.layers[3].self_attn
    before = attention.k_proj.weight.clone()
    joined = variant.fused.layers[3].joined
    assert attention.k_proj.weight.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
    assert torch.equal(attention.k_proj.weight, before)


def test_a_model_that_has_decoded_can_be_trained():
    parts = take_apart(tiny_model("opt-pico", 8))
    with torch.inference_mode():
        assert parts.fused.layers[0].joined.is_inference() is False
    parts.hidden_states(torch.tensor([[0, 5, 6]]))[-1].sum().backward()
    assert parts.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_a_boolean_mask_hides_positions(variant, ids):
    positions = torch.arange(4)[None]
    hidden, rotation = variant.embed(ids[:1, :4], positions), variant.fused.rotation(positions)
    layer = variant.fused.layers[0]
    causal = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    plain = layer(hidden, rotation)
    torch.testing.assert_close(layer(hidden, rotation, mask=causal), plain)
    causal[..., 1:, 0] = False
    hidden_first = layer(hidden, rotation, mask=causal)
    torch.testing.assert_close(hidden_first[:, 0], plain[:, 0])
    assert (hidden_first[:, 1:] - plain[:, 1:]).abs().amax(-1).min() > 1e-4
