"""The decoder: full depth equals Hugging Face, skipped layers do not run, one prompt equals a batch, caches stay whole."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from eelib.data.lexing import tokenize_source
from eelib.decoding.batch import BatchDecoder
from eelib.decoding.cache import CacheMode, KeyValueCache, causal_mask
from eelib.decoding.criteria import (
    Agent,
    Confidence,
    Entropy,
    ExitState,
    FixedLayer,
    FullDepth,
    Saturation,
    Scripted,
)
from eelib.decoding.generate import SingleDecoder, generate
from eelib.decoding.policy import ExitPolicy, load_policy, threshold_margin
from eelib.errors import InputError
from eelib.models.loading import load_model, load_tokenizer
from eelib.models.parts import take_apart

NEW = 6
ROUNDING = {"rtol": 1e-3, "atol": 1e-3}  # large random weights magnify the order of sums
_SMALL = tiny_model("llama-pico")


def random_policy(width: int, seed: int = 3) -> ExitPolicy:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(16, width), (16, 16), (2, 16)]
    weights = [torch.randn(shape, generator=generator) / shape[1] ** 0.5 for shape in shapes]
    return ExitPolicy(weights, [torch.randn(shape[0], generator=generator) / 4 for shape in shapes], "model")


def criteria(parts):
    return [
        FullDepth(),
        *[FixedLayer(layer) for layer in parts.exit_points],
        Agent(random_policy(parts.width), 0.5),
        Agent(random_policy(parts.width), 0.6, temperature=2.0),
        Confidence(0.3),
        Entropy(0.6),
        Saturation(0.9),
    ]


@pytest.mark.parametrize("mode", list(CacheMode))
def test_full_depth_gives_the_tokens_of_hugging_face(parts, prompts, mode):
    for prompt in prompts:
        expected = parts.model.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=2
        )[0, len(prompt) :]
        result = generate(parts, prompt, NEW, FullDepth(), mode)
        assert result.tokens == expected.tolist()
        assert result.exit_layers == [parts.total_layers] * NEW


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m", "opt-pico"])
def test_a_hundred_real_prompts_give_the_tokens_of_hugging_face(name):
    """Files of the standard library, with the shipped models, cached and not."""
    parts, tokenizer = take_apart(load_model(name)), load_tokenizer(name)
    files = sorted(Path(json.__file__).parent.parent.glob("*.py"))
    texts = [" ".join(tokenize_source(file.read_text(encoding="utf-8"), "python")) for file in files[:160]]
    prompts = [tokenizer(text).input_ids[:100] for text in texts if len(text) > 1_000][:100]
    assert len(prompts) == 100
    differing = 0
    for prompt in prompts:
        expected = parts.model.generate(
            torch.tensor([prompt]), max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=2
        )[0, len(prompt) :].tolist()
        for mode in (CacheMode.NONE, CacheMode.PROPAGATE):
            differing += generate(parts, prompt, 15, FullDepth(), mode).tokens != expected
    assert differing == 0


def test_hidden_states_are_those_of_hugging_face_before_the_final_norm(parts, prompts):
    ids = torch.tensor([prompts[0]])
    with torch.no_grad():
        theirs = parts.model(ids, output_hidden_states=True)
        ours = parts.hidden_states(ids)
    for layer in range(1, parts.total_layers):
        torch.testing.assert_close(ours[layer - 1], theirs.hidden_states[layer])
    # The last entry of hidden_states is normed already; decoding ours norms exactly once.
    torch.testing.assert_close(parts.logits(ours[-1]), theirs.logits)


def layer_calls(parts, run) -> list[int]:
    """How often each layer's forward ran during `run()`."""
    calls = [0] * parts.total_layers
    hooks = [
        layer.register_forward_hook(lambda *_, i=i: calls.__setitem__(i, calls[i] + 1))
        for i, layer in enumerate(parts.fused.layers)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize("mode", list(CacheMode))
def test_skipped_layers_do_not_run(parts, prompts, mode):
    layer = parts.exit_points[1]
    calls = layer_calls(parts, lambda: generate(parts, prompts[0], NEW, FixedLayer(layer), mode))
    prefills = 0 if mode is CacheMode.NONE else 1
    assert calls == [NEW + prefills] * layer + [prefills] * (parts.total_layers - layer)


def test_a_batch_may_end_the_model_after_any_layer(parts, prompts):
    """As a loop over whole prefixes says that reads layer `depth`; deeper layers have run in the prefill alone."""
    decoder = BatchDecoder(parts, prompts, NEW)
    for depth in (1, 5, 6, 12):
        calls = layer_calls(parts, lambda depth=depth: decoder.decode(FullDepth(), depth=depth))
        assert calls == [NEW] * depth + [0] * (parts.total_layers - depth)
        for prompt, found in zip(prompts, decoder.decode(FullDepth(), depth=depth), strict=True):
            ids = list(prompt)
            with torch.inference_mode():
                for _ in range(NEW):
                    states = parts.hidden_states(torch.tensor([ids]), depth)
                    ids.append(parts.logits(states[-1][0, -1]).argmax().item())
            assert found.tokens == ids[len(prompt) :]
            assert found.exit_layers == [depth] * NEW
    for layer in parts.exit_points:
        assert decoder.decode(FullDepth(), depth=layer) == decoder.decode(FixedLayer(layer))


def test_what_waits_runs_once_for_all_when_a_later_token_goes_deeper(parts, prompts):
    """Exits 4 4 6 12 4: the fourth token takes the three before it along, through the layers that each of them lacks."""
    script = Scripted([[4, 4, 6, 12, 4]])
    calls = {
        mode: layer_calls(parts, lambda mode=mode: generate(parts, prompts[0], 5, script, mode))
        for mode in (CacheMode.RECOMPUTE, CacheMode.PROPAGATE_LATER, CacheMode.PROPAGATE)
    }
    once = [1 + 5] * 4 + [1 + 2] * 2 + [1 + 1] * 6  # the prefill, and the steps that reached the layer
    assert all(count == once for count in calls.values())


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_batch_equals_one_prompt_at_a_time(parts, prompts, mode):
    decoder = BatchDecoder(parts, prompts, NEW)
    left_at = set()
    for criterion in criteria(parts):
        one_by_one = [generate(parts, prompt, NEW, criterion, mode) for prompt in prompts]
        assert decoder.decode(criterion, mode) == one_by_one
        left_at.update(layer for result in one_by_one for layer in result.exit_layers)
    assert left_at == {*parts.exit_points, parts.total_layers}  # the comparison met every exit


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_completion_stops_with_the_end_token(parts, prompts, mode):
    prompts, lengths = prompts[:3], set()
    decoder = BatchDecoder(parts, prompts, NEW)
    end = decoder.decode(FixedLayer(6), mode)[0].tokens[2]
    for criterion in (FixedLayer(6), Agent(random_policy(parts.width), 0.5)):
        whole, ended = decoder.decode(criterion, mode), decoder.decode(criterion, mode, end=end)
        assert ended == [generate(parts, prompt, NEW, criterion, mode, end) for prompt in prompts]
        for full, result in zip(whole, ended, strict=True):
            length = full.tokens.index(end) + 1 if end in full.tokens else NEW
            assert (result.tokens, result.exit_layers) == (full.tokens[:length], full.exit_layers[:length])
            lengths.add(length)
    assert min(lengths) < NEW == max(lengths)  # some ended early, and some did not


def test_layers_do_not_run_after_the_end_token(parts, prompts):
    end = generate(parts, prompts[0], NEW, FixedLayer(6)).tokens[1]
    calls = layer_calls(parts, lambda: generate(parts, prompts[0], NEW, FixedLayer(6), end=end))
    assert calls[0] <= 2 < NEW


def test_a_scripted_trace_replays_an_agent(parts, prompts):
    agent = BatchDecoder(parts, prompts, NEW).decode(Agent(random_policy(parts.width), 0.5))
    script = Scripted([result.exit_layers for result in agent])
    assert BatchDecoder(parts, prompts, NEW).decode(script) == agent


def test_recomputing_gives_the_uncached_tokens(parts, prompts):
    assert [mode for mode in CacheMode if mode.exact] == [CacheMode.NONE, CacheMode.RECOMPUTE]
    for criterion in criteria(parts):
        for prompt in prompts[:4]:
            exact = generate(parts, prompt, NEW, criterion)
            assert generate(parts, prompt, NEW, criterion, CacheMode.RECOMPUTE) == exact


def test_propagation_at_once_and_later_are_the_same(parts, prompts):
    for criterion in criteria(parts):
        for prompt in prompts:
            now, later = (
                generate(parts, prompt, NEW, criterion, mode)
                for mode in (CacheMode.PROPAGATE, CacheMode.PROPAGATE_LATER)
            )
            assert now == later


def caches_after(parts, prompt: list[int], layers: list[int], mode: CacheMode) -> SingleDecoder:
    """A decoder whose tokens after `prompt` left at `layers`."""
    decoder = SingleDecoder(parts, prompt, len(layers), mode)
    for _ in layers:
        decoder.step(Scripted([layers]))
    return decoder


def test_recomputed_caches_are_those_of_the_full_depth(parts, prompts):
    """Whatever left early: once a token goes all the way, every layer holds what full depth caches for the same tokens."""
    decoder = caches_after(parts, prompts[0], [4, 10, 6, 4, 12], CacheMode.RECOMPUTE)
    length = len(prompts[0]) + 4
    full = SingleDecoder(parts, decoder.sequence[: length + 1], 1, CacheMode.PROPAGATE).cache
    assert decoder.cache.lengths == [length] * parts.total_layers
    torch.testing.assert_close(decoder.cache.keys[:, :, :, :length], full.keys[:, :, :, :length], **ROUNDING)
    torch.testing.assert_close(
        decoder.cache.values[:, :, :, :length], full.values[:, :, :, :length], **ROUNDING
    )


@pytest.mark.parametrize("mode", [CacheMode.PROPAGATE, CacheMode.PROPAGATE_LATER])
def test_propagated_keys_are_the_layers_own_projections_of_the_exit_state(parts, prompts, mode):
    prompt, layer = prompts[0], parts.exit_points[0]
    decoder = caches_after(parts, prompt, [layer, parts.total_layers], mode)
    states = parts.hidden_states(torch.tensor([prompt]))[layer - 1][:, -1:]
    rotation = parts.fused.rotation(torch.tensor([[len(prompt) - 1]]))
    # A layer that is given the exit state as its input caches the same keys and values itself.
    for skipped in range(layer + 1, parts.total_layers + 1):
        reference = KeyValueCache(parts, 1, 1)
        with torch.inference_mode():
            parts.fused.layers[skipped - 1](states, rotation, reference)
        for held, own in ((decoder.cache.keys, reference.keys), (decoder.cache.values, reference.values)):
            place = held[skipped - 1, :, :, len(prompt) - 1]
            torch.testing.assert_close(place, own[skipped - 1, :, :, 0], **ROUNDING)


def test_copied_keys_are_those_of_the_exit_layer(parts, prompts):
    place, layer = len(prompts[0]) - 1, parts.exit_points[1]
    cache = caches_after(parts, prompts[0], [layer], CacheMode.COPY).cache
    for buffer in (cache.keys, cache.values):
        newest = buffer[:, :, :, place]
        assert torch.equal(newest[layer:], newest[layer - 1 : layer].expand_as(newest[layer:]))
        assert not torch.equal(newest[layer - 2], newest[layer - 1])


def test_monotone_tokens_never_go_deeper(parts, prompts):
    result = generate(parts, prompts[0], 6, Scripted([[12, 10, 12, 6, 4, 10]]), CacheMode.MONOTONE)
    assert result.exit_layers == [12, 10, 10, 6, 4, 4]
    varied = [
        generate(parts, prompt, NEW, c, CacheMode.MONOTONE) for prompt in prompts for c in criteria(parts)
    ]
    assert all(result.exit_layers == sorted(result.exit_layers, reverse=True) for result in varied)


@given(
    trace=st.lists(st.sampled_from([4, 6, 10, 12]), min_size=1, max_size=7),
    mode=st.sampled_from(list(CacheMode)),
)
@settings(max_examples=40, deadline=None)
def test_layers_hold_what_they_must_after_every_token(trace, mode):
    parts = take_apart(_SMALL)
    decoder = caches_after(parts, [0, 5, 9], trace, mode)  # asserted after every step
    if decoder.cache is not None and not mode.waits and mode is not CacheMode.MONOTONE:
        assert decoder.cache.lengths == [3 + len(trace) - 1] * 12


def test_a_layer_that_holds_too_few_positions_is_noticed(parts):
    cache = KeyValueCache(parts, 1, 8)
    cache.lengths = [5] * 4 + [4] * 2 + [3] * 6
    cache.check_aligned(5, waiting=[6, 4])
    for waiting in ([], [4], [6, 6], [4, 4]):
        with pytest.raises(AssertionError, match="instead of 5"):
            cache.check_aligned(5, waiting)
    cache.check_aligned(5, deepest=4)


def test_causal_mask_by_hand():
    mask = causal_mask(torch.tensor([0, 2]), length=3, queries=2)
    assert mask[:, 0].int().tolist() == [[[1, 1, 0], [1, 1, 1]], [[0, 1, 0], [0, 0, 1]]]


def test_threshold_is_a_comparison_with_a_constant():
    policy = random_policy(8)
    states = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    features = states
    for weight, bias in zip(policy.weights[:-1], policy.biases[:-1], strict=True):
        features = torch.tanh(features @ weight.T + bias)
    logits = features @ policy.weights[-1].T + policy.biases[-1]
    for temperature in (0.5, 1.0, 3.0):
        probability = (logits / temperature).softmax(-1)[:, 1]
        torch.testing.assert_close(policy.probability(states, temperature), probability)
        for threshold in (0.3, 0.6, 0.9):
            by_margin = policy.margin(states) > threshold_margin(threshold, temperature)
            assert torch.equal(by_margin, probability > threshold)
    assert threshold_margin(0.0, 1.0) == -math.inf and threshold_margin(1.0, 1.0) == math.inf


def test_criteria_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(7), 0.0, 0.0, 0.0]])
    state = ExitState(lambda states: logits, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert Confidence(0.69).exits(state).tolist() == [False, True]  # 1/4 and 7/10
    assert Confidence(0.71).exits(state).tolist() == [False, False]
    # Entropies: log 4, all of the maximum; and 0.7 log(10/7) + 0.3 log 10 = 0.9404 nats, 0.678 of it.
    assert Entropy(0.67).exits(state).tolist() == [False, False]
    assert Entropy(0.69).exits(state).tolist() == [False, True]
    assert Saturation(0.0).exits(state) is False  # nothing to compare with
    state.previous = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert Saturation(0.7).exits(state).tolist() == [True, True]  # cosines 1 and 0.7071
    assert Saturation(0.71).exits(state).tolist() == [True, False]


def test_a_policy_is_saved_and_loads_for_its_model_only(tmp_path):
    policy = random_policy(8)
    policy.save(tmp_path)
    loaded = load_policy(tmp_path, "model")
    states = torch.randn(5, 8)
    assert torch.equal(loaded.margin(states), policy.margin(states))
    with pytest.raises(InputError, match="was trained on model"):
        load_policy(tmp_path, "another")


def test_bad_input_is_one_sentence(parts):
    with pytest.raises(InputError, match="prompt is empty"):
        generate(parts, [], 1, FullDepth())
    with pytest.raises(InputError, match="256 positions"):
        generate(parts, [3] * 250, 7, FullDepth())
    with pytest.raises(InputError, match="can stop at"):
        generate(parts, [3], 1, FixedLayer(5))
    with pytest.raises(InputError, match="states of width 8"):
        generate(parts, [3], 1, Agent(random_policy(8), 0.5))
    with pytest.raises(InputError, match="threshold is 1.5"):
        generate(parts, [3], 1, Agent(random_policy(parts.width), 1.5))
    broken = tiny_model("llama-pico", 8)
    with torch.no_grad():
        broken.model.embed_tokens.weight.fill_(math.nan)
    with pytest.raises(InputError, match="NaN"):
        generate(take_apart(broken), [3], 1, FullDepth())
