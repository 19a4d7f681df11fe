"""The captured decoder, uncaptured on the CPU: the tokens and exit layers of `SingleDecoder`. A GPU, if any, captures."""

from dataclasses import replace

import pytest
import torch
from conftest import VOCABULARY, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoding import random_policy
from torch._dynamo.testing import CompileCounter

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import (
    Agent,
    Confidence,
    Entropy,
    FixedLayer,
    FullDepth,
    Saturation,
    Scripted,
    Shadowed,
)
from eelib.decoding.generate import generate
from eelib.errors import InputError
from eelib.gpu.capture import UNDECIDED, Captured, Flags
from eelib.gpu.graphs import MODES, GraphDecoder, generate_captured
from eelib.models.parts import take_apart

NEW = 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRACE = [4, 4, 6, 10, 4, 12, 6, 4]
PARTS = {
    name: take_apart(tiny_model(name).to(device=DEVICE, dtype=torch.float32))
    for name in ("llama-pico", "opt-pico")
}


@pytest.fixture(scope="module", params=list(PARTS))
def decoder(request) -> GraphDecoder:
    """One decoder for all prompts and criteria: what one leaves behind must not disturb the next."""
    return GraphDecoder(PARTS[request.param], 40)


def criteria(parts):
    agent = Agent(random_policy(parts.width).to(parts.device), 0.5)
    return [
        FullDepth(),
        *[FixedLayer(layer) for layer in parts.exit_points],
        Scripted([TRACE]),
        agent,
        Shadowed(agent, Scripted([TRACE])),
        Confidence(0.3),
        Entropy(0.6),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_tokens_and_exit_layers_are_those_of_the_single_decoder(decoder, prompts, mode):
    parts = decoder.parts
    exits = set()
    for criterion in criteria(parts):
        for prompt in prompts:
            expected = generate(parts, prompt, NEW, criterion, mode)
            assert generate_captured(decoder, prompt, NEW, criterion, mode) == expected
            exits.update(expected.exit_layers)
    assert exits == {*parts.exit_points, parts.total_layers}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(PARTS)),
    st.lists(st.sampled_from([4, 6, 10, 12]), min_size=1, max_size=12),
    st.integers(1, 20),
    st.sampled_from(MODES),
)
def test_any_trace_is_replayed_alike(name, trace, length, mode):
    parts = PARTS[name]
    prompt = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    decoder = GraphDecoder(parts, length + len(trace))
    expected = generate(parts, prompt, len(trace), Scripted([trace]), mode)
    assert generate_captured(decoder, prompt, len(trace), Scripted([trace]), mode) == expected
    assert expected.exit_layers == trace


@pytest.mark.parametrize("mode", MODES)
def test_every_graph_may_run_twice(decoder, prompts, mode, monkeypatch):
    """A graph runs for warm-up before it is captured and replayed: the second time must change nothing."""
    monkeypatch.setattr(Captured, "__call__", twice)
    again = GraphDecoder(decoder.parts, decoder.capacity)
    for criterion in criteria(decoder.parts):
        expected = generate(decoder.parts, prompts[0], NEW, criterion, mode)
        assert generate_captured(again, prompts[0], NEW, criterion, mode) == expected


def twice(captured: Captured) -> None:
    captured._function()
    captured.output = captured._function()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_graph_took_once_it_takes_for_ever(decoder, prompts, mode, monkeypatch):
    """A replay reads and writes the addresses of its capture: outputs stay where they first were, and are written anew."""
    monkeypatch.setattr(Captured, "__call__", in_place)
    again = GraphDecoder(decoder.parts, decoder.capacity)
    for criterion in criteria(decoder.parts):
        for prompt in prompts[:3]:
            expected = generate(decoder.parts, prompt, NEW, criterion, mode)
            assert generate_captured(again, prompt, NEW, criterion, mode) == expected


def in_place(captured: Captured) -> None:
    found = captured._function()
    if captured.output is None:
        captured.output = found
        return
    for kept, new in zip(tensors(captured.output), tensors(found), strict=True):
        kept.copy_(new)


def tensors(output) -> list[torch.Tensor]:
    """Those of a step: state, attended, and the rows' rotation and mask."""
    if output is None:
        return []
    hidden, attended, rows = output
    turns = [] if rows.rotation is None else [rows.rotation.cos, rows.rotation.sin]
    return [hidden, *([] if attended is None else [attended]), *turns, rows.mask]


def test_recomputing_gives_the_tokens_of_no_cache(decoder, prompts):
    for prompt in prompts:
        exact = generate(decoder.parts, prompt, NEW, Scripted([TRACE]))
        assert generate_captured(decoder, prompt, NEW, Scripted([TRACE]), CacheMode.RECOMPUTE) == exact


def test_all_layers_share_one_compilation_of_each_half_and_all_exit_points_one_of_the_agent(decoder, prompts):
    """What the compiler is given (products without bias, attention written out), run as it is."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = GraphDecoder(decoder.parts, decoder.capacity, {"backend": counter})
    agent = Agent(random_policy(decoder.parts.width).to(decoder.parts.device), 0.5)
    for criterion in (FullDepth(), Scripted([TRACE]), agent):
        for prompt in prompts:
            expected = generate_captured(decoder, prompt, NEW, criterion)
            assert generate_captured(compiled, prompt, NEW, criterion) == expected
    assert counter.frame_count == 3


@pytest.mark.skipif(DEVICE == "cuda", reason="a captured criterion is asked by the graph, not by Python")
def test_a_script_asks_nothing_and_a_shadowed_one_asks_at_every_exit_point(decoder, prompts):
    parts, asked = decoder.parts, []

    class Counting(Agent):
        def exits(self, state):
            asked.append(state)
            return super().exits(state)

    counting = Counting(random_policy(parts.width), 0.0)
    plain = generate_captured(decoder, prompts[0], NEW, Scripted([TRACE]))
    assert asked == []
    shadowed = Shadowed(counting, Scripted([TRACE]))
    assert generate_captured(decoder, prompts[0], NEW, shadowed) == plain
    assert len(asked) == sum(point <= layer for layer in TRACE for point in parts.exit_points)


def test_a_decision_that_never_comes_is_an_error_and_not_a_wait_for_ever():
    flags = Flags(2, torch.device("cpu"))
    flags.write(0, torch.tensor([1], dtype=torch.uint8))
    assert flags.wait(0) is True
    flags.clear(0)
    assert flags._bytes.tolist() == [UNDECIDED, UNDECIDED]
    with pytest.raises(RuntimeError, match="never reached the host"):
        flags.wait(0)


def test_bad_input_is_refused_with_its_limits(decoder, prompts):
    parts = decoder.parts
    for prompt, new, criterion, mode, sentence in (
        ([], 1, FullDepth(), MODES[0], "prompt is empty"),
        (prompts[0], 31, FullDepth(), MODES[0], "10 tokens, which with 31 .* capacity of 40"),
        (prompts[0], 1, FixedLayer(5), MODES[0], "fixed exit layer is 5"),
        (prompts[0], 1, Saturation(0.5), MODES[0], "Saturation cannot be captured"),
        (
            prompts[0],
            1,
            FullDepth(),
            CacheMode.COPY,
            "'copy': captured decoding allows propagate, propagate-later, recompute",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            generate_captured(decoder, prompt, new, criterion, mode)
    broken = replace(parts, _norm=lambda hidden: hidden * float("nan"))
    with pytest.raises(InputError, match="logits are NaN"):
        generate_captured(GraphDecoder(broken, 40), prompts[0], 2, FullDepth())
