"""The decoder: full depth equals Hugging Face, skipped layers do not run, one prompt equals a batch, caches stay whole."""

import math

import pytest
import torch
from conftest import VOCABULARY, tiny_model

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.cache import CacheMode, KeyValueCache, causal_mask
from eelib.decoding.criteria import Agent, Confidence, FixedLayer, FullDepth, Scripted
from eelib.decoding.generate import decode_one_token, generate, prefill
from eelib.decoding.policy import ExitPolicy, load_policy, threshold_margin
from eelib.models.parts import take_apart
from eelib.study.errors import InputError

NEW = 6


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


def test_hidden_states_are_those_of_hugging_face_before_the_final_norm(parts, prompts):
    ids = torch.tensor([prompts[0]])
    with torch.no_grad():
        theirs = parts.model(ids, output_hidden_states=True)
        ours = parts.hidden_states(ids)
    for layer in range(1, parts.total_layers):
        torch.testing.assert_close(ours[layer - 1], theirs.hidden_states[layer])
    # The last entry of hidden_states is normed already; decoding ours norms exactly once.
    torch.testing.assert_close(parts.logits(ours[-1]), theirs.logits)


@pytest.mark.parametrize("mode", list(CacheMode))
def test_skipped_layers_do_not_run(parts, prompts, mode):
    layer, calls = parts.exit_points[1], [0] * parts.total_layers
    hooks = [
        module.register_forward_hook(lambda *_, i=i: calls.__setitem__(i, calls[i] + 1))
        for i, module in enumerate(parts.layers)
    ]
    generate(parts, prompts[0], NEW, FixedLayer(layer), mode)
    for hook in hooks:
        hook.remove()
    prefills = 1 if mode is CacheMode.PROPAGATE else 0
    assert calls == [NEW + prefills] * layer + [prefills] * (parts.total_layers - layer)


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_batch_equals_one_prompt_at_a_time(parts, prompts, mode):
    decoder = BatchDecoder(parts, prompts, NEW)
    left_at = set()
    for criterion in criteria(parts):
        one_by_one = [generate(parts, prompt, NEW, criterion, mode) for prompt in prompts]
        assert decoder.decode(criterion, mode) == one_by_one
        left_at.update(layer for result in one_by_one for layer in result.exit_layers)
    assert left_at == {*parts.exit_points, parts.total_layers}  # the comparison met every exit


def test_a_scripted_trace_replays_an_agent(parts, prompts):
    agent = BatchDecoder(parts, prompts, NEW).decode(Agent(random_policy(parts.width), 0.5))
    script = Scripted([result.exit_layers for result in agent])
    assert BatchDecoder(parts, prompts, NEW).decode(script) == agent


def test_propagated_keys_are_the_layers_own_projections_of_the_exit_state(parts, prompts):
    prompt, layer = prompts[0], parts.exit_points[0]
    cache = KeyValueCache(parts.total_layers, len(prompt))
    prefill(parts, prompt[:-1], cache)
    hidden, _ = decode_one_token(parts, prompt, 0, FixedLayer(layer), cache)
    # A layer that is given the exit state as its input caches the same keys and values itself.
    for skipped in range(layer + 1, parts.total_layers + 1):
        reference = KeyValueCache(parts.total_layers, 1)
        positions = parts.positions(torch.tensor([[len(prompt) - 1]]))
        parts.run_layer(skipped, hidden, positions, reference, mask=None)
        keys, values = cache.update(
            torch.empty(1, *reference._keys[skipped - 1].shape[1:2], 0, 32),
            *[torch.empty(1, *reference._values[skipped - 1].shape[1:2], 0, 32)],
            skipped - 1,
        )
        torch.testing.assert_close(keys[:, :, -1:], reference._keys[skipped - 1])
        torch.testing.assert_close(values[:, :, -1:], reference._values[skipped - 1])


def test_layers_hold_equally_many_positions_after_every_token(parts, prompts):
    prompt = prompts[2]
    cache = KeyValueCache(parts.total_layers, len(prompt) + 2)
    prefill(parts, prompt[:-1], cache)
    for layer in (4, 12):
        decode_one_token(parts, prompt, 0, FixedLayer(layer), cache)
        assert cache.lengths == [len(prompt)] * parts.total_layers
        prompt = [*prompt, 5]
    cache.lengths[3] += 1
    with pytest.raises(AssertionError, match="positions instead of"):
        cache.check_aligned(len(prompt))


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
    assert VOCABULARY > 3
