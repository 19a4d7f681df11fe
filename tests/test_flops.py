"""The analytical costs against torch's own count on tiny models built from the same configs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, MambaConfig, OPTConfig

from eelib.errors import InputError
from eelib.evaluation import flops

# Grouped-query attention, and heads that together are wider than the hidden size.
LLAMA = LlamaConfig(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
OPT = OPTConfig(
    vocab_size=50,
    hidden_size=24,
    word_embed_proj_dim=24,
    ffn_dim=40,
    num_hidden_layers=4,
    num_attention_heads=3,
    max_position_embeddings=64,
)
CONFIGS = pytest.mark.parametrize("config", [LLAMA, OPT], ids=["llama", "opt"])


class Tiny:
    """A random model whose parts' FLOPs torch counts. Eager attention: torch counts no fused attention on the CPU."""

    def __init__(self, config):
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        base = self.model.model
        self.decoder = base.decoder if config.model_type == "opt" else base

    def run(self, tokens: int, cache: DynamicCache | None = None) -> dict[str, int]:
        """FLOPs of one pass over `tokens` new positions with the head at the last one, by module."""
        counter = FlopCounterMode(display=False, depth=None)
        with torch.no_grad(), counter:
            ids = torch.zeros((1, tokens), dtype=torch.long)
            self.model(ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
        return {module: sum(counts.values()) for module, counts in counter.get_flop_counts().items()}

    def layers_and_head(self, tokens: int, exit_layer: int, cache: DynamicCache | None = None) -> int:
        """FLOPs of the first `exit_layer` layers and of the head, run for real with the others taken out."""
        layers = self.decoder.layers
        self.decoder.layers = layers[:exit_layer]
        counts = self.run(tokens, cache)
        self.decoder.layers = layers
        names = [f"layers.{index}" for index in range(exit_layer)] + ["lm_head"]
        found = {name: sum(v for k, v in counts.items() if k.endswith(f".{name}")) for name in names}
        assert all(found.values()), f"torch did not name every part: {sorted(counts)}"
        return sum(found.values())

    def key_value_projections(self, layer: int) -> int:
        attention = self.decoder.layers[layer].self_attn
        hidden_state = torch.zeros((1, 1, self.model.config.hidden_size))
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            attention.k_proj(hidden_state), attention.v_proj(hidden_state)
        return counter.get_total_flops()


@CONFIGS
@pytest.mark.parametrize(("tokens", "cached"), [(7, 0), (1, 7), (3, 5)])
def test_layer_and_head_equal_the_count_of_torch(config, tokens, cached):
    tiny, cache = Tiny(config), DynamicCache()
    if cached:
        tiny.run(cached, cache)
    counts = tiny.run(tokens, cache)
    layers = [count for module, count in counts.items() if module.rsplit(".", 1)[0].endswith("layers")]
    assert layers == [flops.layer_flops(config, tokens, cached + tokens)] * config.num_hidden_layers
    assert [c for module, c in counts.items() if module.endswith("lm_head")] == [flops.head_flops(config)]


@CONFIGS
def test_uncached_generation_equals_prefixes_run_for_real(config):
    tiny, exits = Tiny(config), [4, 2, 1, 3]
    counted = sum(tiny.layers_and_head(5 + token, layer) for token, layer in enumerate(exits))
    assert flops.generation_flops(config, 5, exits, "none") == counted


@CONFIGS
def test_propagating_generation_equals_steps_run_for_real(config):
    tiny, exits = Tiny(config), [2, 4, 1, 3]
    # All of the prompt but its last token runs at full depth, and nothing is decoded from it.
    counted = tiny.layers_and_head(4, 4) - flops.head_flops(config)
    for token, exit_layer in enumerate(exits):
        cache = DynamicCache()
        tiny.run(5 + token - 1, cache)  # a cache as long as every layer's is after propagation
        counted += tiny.layers_and_head(1, exit_layer, cache)
        counted += sum(tiny.key_value_projections(layer) for layer in range(exit_layer, 4))
    assert flops.generation_flops(config, 5, exits, "propagate") == counted


def test_what_waits_costs_where_a_later_token_takes_it():
    """Exits 1 2 1 3 of four layers: the second token takes the first from 1 to 2; the fourth takes all three to 3."""
    exits, steps = [1, 2, 1, 3], [(5, 1), (6, 2), (7, 1), (8, 3)]
    prefill = 4 * flops.layer_flops(LLAMA, 4, 4)
    alone = prefill + sum(layers * flops.layer_flops(LLAMA, 1, prefix) for prefix, layers in steps)
    alone += 4 * flops.head_flops(LLAMA)
    for cache in ("copy", "monotone"):
        assert flops.generation_flops(LLAMA, 5, exits, cache) == alone
    recomputed = flops.layer_flops(LLAMA, 1, 6) + (1 + 1 + 2) * flops.layer_flops(LLAMA, 1, 8)
    assert flops.generation_flops(LLAMA, 5, exits, "recompute") == alone + recomputed
    projected = 2 * 2 * 24 * 16  # keys and values of one position in one layer
    assert flops.generation_flops(LLAMA, 5, exits, "propagate-later") == alone + 5 * projected
    assert flops.generation_flops(LLAMA, 5, exits, "propagate") == alone + (3 + 2 + 3 + 1) * projected


def test_layer_by_hand():
    # d = 24, 4 query heads and 2 key heads of 8, MLP 40; 2 new positions in a context of 5.
    matrices = 2 * 24 * 32 + 2 * 24 * 16 + 3 * 24 * 40
    attention = 2 * (2 * 2 * 5 * 32)
    assert flops.layer_flops(LLAMA, 2, 5) == 2 * 2 * matrices + attention
    assert flops.head_flops(LLAMA, 3) == 2 * 3 * 24 * 50


@CONFIGS
@given(data=st.data())
def test_an_earlier_exit_never_costs_more_and_a_cache_never_more_than_none(config, data):
    exits = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    token = data.draw(st.integers(0, len(exits) - 1))
    deeper = [*exits]
    deeper[token] = min(4, exits[token] + 1)
    prompt_length = data.draw(st.integers(1, 30))
    # A token that waited attends over the whole prefix when it is recomputed, a little more than at its own time.
    for cache in set(flops.CACHES) - {"recompute"}:
        costs = [flops.generation_flops(config, prompt_length, layers, cache) for layers in (exits, deeper)]
        assert costs[0] <= costs[1]
    full = [4] * len(exits)
    costs = [flops.generation_flops(config, prompt_length, full, cache) for cache in ("propagate", "none")]
    assert costs[0] <= costs[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flops.layer_flops(LLAMA, 0, 4), "0 new positions"),
        (lambda: flops.layer_flops(LLAMA, 5, 4), "5 new positions in a context of 4"),
        (lambda: flops.head_flops(MambaConfig()), "model_type is 'mamba', expected one of llama, "),
        (
            lambda: flops.head_flops(OPTConfig(hidden_size=24, word_embed_proj_dim=12)),
            "word_embed_proj_dim is 12",
        ),
        (
            lambda: flops.generation_flops(LLAMA, 5, [5], "none"),
            "exit layer of token 0 is 5, expected 1 to 4",
        ),
        (lambda: flops.generation_flops(LLAMA, 5, [1, 0], "none"), "exit layer of token 1 is 0"),
        (lambda: flops.generation_flops(LLAMA, 0, [4], "none"), "prompt_length is 0"),
        (lambda: flops.generation_flops(LLAMA, 5, [], "none"), "exit_layers is empty"),
        (
            lambda: flops.generation_flops(LLAMA, 5, [4], "full"),
            "cache is 'full', expected one of none, propagate, propagate-later, recompute, copy, monotone",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
