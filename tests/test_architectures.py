"""Every architecture that can be taken apart, as a tiny random model: states, tokens, exits and loss against Hugging Face's own."""

import pytest
import torch
from conftest import VOCABULARY
from test_decoding import random_policy
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, DynamicCache, LlamaModel

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.cache import CacheMode, KeyValueCache
from eelib.decoding.criteria import Agent, Confidence, FixedLayer, FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.errors import InputError
from eelib.evaluation import flops
from eelib.gpu.graphs import GraphDecoder
from eelib.models.architectures import ARCHITECTURES
from eelib.models.exits import loss_weights
from eelib.models.fused import FusedModel
from eelib.models.parts import take_apart
from eelib.training.loss import aggregated_loss, exit_loss, layer_losses

NEW = 5
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GROUPED = SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 12}
VARIANTS = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED | {"sliding_window": None}),
    "mistral, windowed": ("mistral", GROUPED | {"sliding_window": 40}),
    "qwen2": ("qwen2", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}),
    "qwen3": ("qwen3", GROUPED),
    "gemma": ("gemma", GROUPED),
    "gemma2": ("gemma2", GROUPED | {"query_pre_attn_scalar": 20, "sliding_window": 48}),
    "opt": ("opt", SHAPE | {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "opt, plain": (
        "opt",
        SHAPE
        | {"ffn_dim": 48, "word_embed_proj_dim": 32}
        | {"enable_bias": False, "layer_norm_elementwise_affine": False},
    ),
    "starcoder2": ("starcoder2", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}),
    "gpt2": ("gpt2", SHAPE | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("gpt_neox", SHAPE | {"intermediate_size": 48, "rotary_pct": 0.5}),
    "gpt_neox, one after the other": (
        "gpt_neox",
        SHAPE | {"intermediate_size": 48, "use_parallel_residual": False},
    ),
    "phi": ("phi", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48, "qk_layernorm": True}),
    # Not in the table: tried as Llama's layout.
    "olmo2": ("olmo2", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}),
    "phi3": ("phi3", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}),
    "smollm3": ("smollm3", SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48}),
}
FUSED = {"llama", "mistral", "qwen2", "qwen3", "opt", "starcoder2"}


def build(kind: str, arguments: dict, gain: float = 8):
    """A model whose norms and biases are random too, so that leaving one out shows, and which has opinions."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **arguments))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain if parameter.ndim == 2 else 1).add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request):
    return take_apart(build(*VARIANTS[request.param]))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0))


def test_every_row_is_tested_and_what_is_fused_is_known(variant):
    assert set(ARCHITECTURES) <= {kind for kind, _ in VARIANTS.values()}
    assert isinstance(variant.fused, FusedModel) == (variant.model.config.model_type in FUSED)


@torch.no_grad()
def test_states_and_logits_are_the_models_own(variant, ids):
    theirs, ours = variant.model(ids, output_hidden_states=True), variant.hidden_states(ids)
    assert len(ours) == 12 and variant.exit_points == [4, 6, 10]
    torch.testing.assert_close(variant.embed(ids, torch.arange(30)[None]), theirs.hidden_states[0])
    for layer in range(1, 12):
        torch.testing.assert_close(ours[layer - 1], theirs.hidden_states[layer], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variant.logits(ours[-1]), theirs.logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_layers_that_decode_compute_what_those_that_train_do(variant, ids):
    positions = torch.arange(30)[None]
    hidden, rotation = variant.embed(ids, positions), variant.fused.rotation(positions)
    for layer, expected in zip(variant.fused.layers, variant.hidden_states(ids), strict=True):
        hidden = layer(hidden, rotation)
        torch.testing.assert_close(hidden, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_keys_and_values_of_skipped_layers_are_those_that_hugging_face_caches(variant, ids):
    cache = DynamicCache(config=variant.model.config)
    variant.model(ids, past_key_values=cache)
    positions = torch.arange(30)[None]
    rotation, states = variant.fused.rotation(positions), variant.hidden_states(ids)
    keys, values = variant.fused.keys_values(states[4], rotation, 6, 8)
    torch.testing.assert_close(keys[0], cache.layers[5].keys, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(values[0], cache.layers[5].values, rtol=1e-3, atol=1e-3)
    later, _ = variant.fused.keys_values(states[4], rotation, 8, 8)
    torch.testing.assert_close(keys[2], later[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", [CacheMode.NONE, CacheMode.PROPAGATE])
def test_full_depth_gives_the_tokens_of_hugging_face(variant, prompts, mode):
    prompts = prompts[:2]
    batch = BatchDecoder(variant, prompts, NEW).decode(FullDepth())
    for prompt, batched in zip(prompts, batch, strict=True):
        expected = variant.model.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=2
        )[0, len(prompt) :].tolist()
        assert generate(variant, prompt, NEW, FullDepth(), mode).tokens == expected == batched.tokens


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_batch_equals_one_prompt_at_a_time(variant, prompts, mode):
    prompts = prompts[:2]
    decoder = BatchDecoder(variant, prompts, NEW)
    traces = [[10, 4, 6, 4, 12], [4, 12, 10, 6, 4]]
    for alone in (
        [Agent(random_policy(32), 0.5)] * 2,
        [Confidence(0.5)] * 2,
        [Scripted([t]) for t in traces],
    ):
        together = Scripted(traces) if isinstance(alone[0], Scripted) else alone[0]
        one_by_one = [
            generate(variant, prompt, NEW, criterion, mode)
            for prompt, criterion in zip(prompts, alone, strict=True)
        ]
        assert decoder.decode(together, mode) == one_by_one


def test_the_loss_of_training_is_the_definition_with_its_gradients(variant, ids):
    weights = loss_weights(12)
    expected = aggregated_loss(layer_losses(variant, variant.hidden_states(ids), ids, list(weights)), weights)
    variant.model.zero_grad()
    expected.backward()
    theirs = [parameter.grad.clone() for parameter in variant.model.parameters()]
    variant.model.zero_grad()
    loss, _ = exit_loss(variant, variant.hidden_states(ids), ids, weights)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for ours, their in zip(variant.model.parameters(), theirs, strict=True):
        torch.testing.assert_close(ours.grad, their, rtol=1e-3, atol=1e-6 + 1e-4 * their.abs().max().item())
    variant.model.zero_grad()


@torch.no_grad()
def test_eager_attention_is_causal_too(ids, prompts):
    for kind in ("llama", "phi"):
        plain = take_apart(build(*VARIANTS[kind]))
        eager = take_apart(build(*VARIANTS[kind]))
        eager.model.set_attn_implementation("eager")
        torch.testing.assert_close(
            eager.hidden_states(ids)[-1], plain.hidden_states(ids)[-1], rtol=1e-3, atol=1e-3
        )
        for parts in (plain, eager):
            tokens = [generate(parts, prompts[0], NEW, FixedLayer(6), mode).tokens for mode in CacheMode]
            assert tokens[0] == tokens[3]  # uncached, and recomputed


@torch.no_grad()
def test_bfloat16_decodes_as_well_as_the_models_own_layers(ids, tmp_path):
    """Nine heads of 64 on three, as SmolLM2-135M has them: fused layers are no further from float32 than the model's own."""
    shape = SHAPE | {"hidden_size": 576, "num_hidden_layers": 8, "num_attention_heads": 9}
    exact = build("llama", shape | {"num_key_value_heads": 3, "intermediate_size": 96}, gain=2)
    exact.save_pretrained(tmp_path)
    expected = take_apart(exact).hidden_states(ids)[-1]
    parts = take_apart(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval())
    rotation = parts.fused.rotation(torch.arange(30)[None])
    wanted = take_apart(exact).fused.rotation(torch.arange(30)[None])
    assert torch.equal(rotation.cos, wanted.cos.bfloat16())  # frequencies and angles stay float32
    cache, states = KeyValueCache(parts, 2, 30), []
    for place in range(30):
        hidden = parts.embed(ids[:, place : place + 1], torch.tensor([[place]]))
        for layer in parts.fused.layers:
            hidden = layer(hidden, rotation.narrow(place, 1), cache)
        states.append(hidden)
    fused, own = (
        (found.float() - expected).norm() / expected.norm()
        for found in (torch.cat(states, 1), parts.hidden_states(ids)[-1])
    )
    assert fused < 1.05 * own < 0.2


@torch.no_grad()
@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_flops_are_those_of_torch(kind):
    """Of a layer, of the head, and of a skipped layer's keys and values (eager: torch counts no fused attention on the CPU)."""
    arguments = VARIANTS[kind][1] | ({"word_embed_proj_dim": 32} if kind == "opt" else {})
    parts = take_apart(build(kind, arguments))
    parts.model.set_attn_implementation("eager")
    state, positions = torch.zeros(1, 7, 32), torch.arange(7)[None]

    def counted(run) -> int:
        counter = FlopCounterMode(display=False)
        with counter:
            run()
        return counter.get_total_flops()

    config = parts.model.config
    layer = counted(lambda: parts.run_layer(3, state, parts.positions(positions)))
    assert layer == flops.layer_flops(config, 7, 7)
    assert counted(lambda: parts.head(state)) == flops.head_flops(config, 7)
    rotation = parts.fused.rotation(positions[:, :1])
    skipped = counted(lambda: parts.fused.keys_values(state[:, :1], rotation, 5, 12))
    passes = [flops.generation_flops(config, 1, [4], cache) for cache in ("propagate", "copy")]
    assert skipped == passes[0] - passes[1]


def test_sequences_beyond_a_window_are_refused(ids):
    parts = take_apart(build(*VARIANTS["mistral, windowed"]))
    assert parts.max_positions == 40
    with pytest.raises(InputError, match="40 positions"):
        generate(parts, [3] * 38, 3, FullDepth())
    with pytest.raises(InputError, match="45 tokens: allowed are at most the model's 40 positions"):
        parts.hidden_states(torch.zeros(1, 45, dtype=torch.int64))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("granite", GROUPED | {"embedding_multiplier": 12.0}, "'granite' .* differ by .* from its own"),
        ("cohere", GROUPED, "'cohere' .* differ by"),
        (
            "bloom",
            {"hidden_size": 32, "n_layer": 8, "n_head": 2},
            "'bloom' .* no attribute 'norm'.*: allowed are llama, ",
        ),
        ("opt", SHAPE | {"do_layer_norm_before": False}, "'opt' .* has no final norm"),
        ("llama", GROUPED | {"num_hidden_layers": 6}, "model of 6 layers has no exit point"),
        ("gemma3_text", GROUPED, "'gemma3_text' cannot be taken apart"),
    ],
)
def test_what_cannot_be_taken_apart_is_one_sentence(kind, arguments, message):
    with pytest.raises(InputError, match=message):
        take_apart(build(kind, arguments))


def test_models_of_another_build_are_one_sentence():
    t5 = AutoConfig.for_model(
        "t5", d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=VOCABULARY
    )
    with pytest.raises(InputError, match="'t5' .* is an encoder-decoder"):
        take_apart(AutoModelForSeq2SeqLM.from_config(t5))
    with pytest.raises(InputError, match="'llama' .* has no head"):
        take_apart(LlamaModel(AutoConfig.for_model("llama", **GROUPED)))
    llama = build(*VARIANTS["llama"])
    llama.config._attn_implementation = "flex_attention"
    with pytest.raises(InputError, match="'flex_attention'"):
        take_apart(llama)


def test_captured_decoding_wants_fused_layers():
    with pytest.raises(InputError, match="'phi' has no fused layers"):
        GraphDecoder(take_apart(build(*VARIANTS["phi"])), 16)
