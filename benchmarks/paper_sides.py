"""What is measured at the thesis's sizes: one way to decode, over and over, within windows of time and energy."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import ExitCriterion, FullDepth
from eelib.decoding.generate import SingleDecoder
from eelib.evaluation.nvml import card_state
from eelib.gpu.graphs import GraphDecoder
from eelib.models.parts import ModelParts

NEW_TOKENS = 15
Criteria = Callable[[int], ExitCriterion]  # the criterion of the i-th completion of a window


class Clock:
    """Seconds of device work between marks: CUDA events on a GPU, the wall clock elsewhere."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._marks: list = []

    def mark(self) -> None:
        if not self._cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def spans(self) -> list[float]:
        """Seconds between the marks so far, which are then forgotten. The device must have been waited for."""
        pairs = list(zip(self._marks[:-1], self._marks[1:], strict=True))
        self._marks = []
        if self._cuda:
            return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
        return [end - begin for begin, end in pairs]


@dataclass
class Side:
    """One way to decode.

    Attributes
    ----------
    name: columns that tell it from the others: `decoder`, `cache`, `criterion`, and what these need.
    decode: decodes the i-th completion of a window, marks the clock once the prompt is prefilled, and gives the exit layers.
    thorough: whether every completion runs once before anything is measured, since each may capture something of its own.
    splits: whether the clock is marked between the prompt and the new tokens; `generate` cannot be looked into.
    """

    name: dict[str, object]
    decode: Callable[[int, Clock], list[int]]
    thorough: bool = False
    splits: bool = True
    new_tokens: int = NEW_TOKENS


def prompts(parts: ModelParts, context: int, count: int = 64) -> list[list[int]]:
    """Prompts of random tokens: what they say changes neither time nor energy."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = parts.model.config.vocab_size
    return torch.randint(4, vocabulary, (count, context), generator=generator).tolist()


def hugging_face(parts: ModelParts, context: int, kind: str, new_tokens: int = NEW_TOKENS) -> Side:
    """`generate` of transformers: "uncached", "dynamic", "static", or "compiled" (static, on a GPU only)."""
    options = {
        "uncached": {"use_cache": False},
        "dynamic": {},
        "static": {"cache_implementation": "static", "disable_compile": True},
        "compiled": {"cache_implementation": "static"},
    }[kind]
    ids = torch.tensor(prompts(parts, context), device=parts.device)
    total = parts.total_layers

    def decode(index: int, clock: Clock) -> list[int]:
        prompt = ids[index % len(ids)][None]
        clock.mark()
        with torch.inference_mode(kind != "compiled"):  # compiled code keeps tensors of its own between calls
            out = parts.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=new_tokens,
                do_sample=False,
                **options,
            )
        tokens = out[0, context:].tolist()
        assert len(tokens) == new_tokens, "generate stopped early"
        return [total] * new_tokens

    cache = "none" if kind == "uncached" else "full"
    criterion = "full" if new_tokens == NEW_TOKENS else "prompt"
    name = {"decoder": f"generate, {kind}", "cache": cache, "criterion": criterion, "agent": False}
    return Side(name, decode, splits=kind == "uncached", new_tokens=new_tokens)


def eager(parts: ModelParts, context: int, criteria: Criteria, mode: CacheMode, name: dict) -> Side:
    """Our decoder without graphs; `CacheMode.NONE` runs the prefix again for every token, as the thesis does."""
    texts = prompts(parts, context)

    def decode(index: int, clock: Clock) -> list[int]:
        decoder = SingleDecoder(parts, texts[index % len(texts)], NEW_TOKENS, mode)
        clock.mark()
        return [decoder.step(criteria(index))[1] for _ in range(NEW_TOKENS)]

    return Side({"decoder": "eager", "cache": mode.value, **name}, decode)


def captured(
    decoder: GraphDecoder, kind: str, context: int, criteria: Criteria, mode: CacheMode, name: dict
) -> Side:
    """Our decoder by CUDA graphs; `kind`, "graphs" or "graphs-compiled", says which."""
    texts = prompts(decoder.parts, context)

    def decode(index: int, clock: Clock) -> list[int]:
        decoder.start(texts[index % len(texts)], mode)
        clock.mark()
        layers = [decoder.step(criteria(index)) for _ in range(NEW_TOKENS)]
        decoder.tokens()
        return layers

    thorough = mode.waits
    return Side({"decoder": kind, "cache": mode.value, **name}, decode, thorough)


def always(criterion: ExitCriterion) -> Criteria:
    """One criterion for all completions."""
    return lambda index: criterion


def full(agent: bool = False) -> dict:
    """The name of a side at full depth."""
    return {"criterion": "full", "agent": agent}


FULL = always(FullDepth())


def measure(side: Side, completions: int, device: torch.device, monitor) -> dict:
    """One window: `completions` in a row; a tidy row without what all rows share."""
    clock = Clock(device)
    layers: list[int] = []
    with monitor.measure() as window:
        clock.mark()
        for index in range(completions):
            layers += side.decode(index, clock)
            clock.mark()
    spans = clock.spans()
    return side.name | {
        "completions": completions,
        "new_tokens": side.new_tokens,
        "mean_layers": sum(layers) / len(layers),
        "seconds": math.fsum(spans),
        "prompt_seconds": math.fsum(spans[::2]) if side.splits else math.nan,
        "step_seconds": math.fsum(spans[1::2]) if side.splits else math.nan,
        "wall_seconds": window.seconds,
        "joules": window.joules,
        "energy_source": window.source,
        **card_state(device),
    }


def warm_up(side: Side, completions: int, device: torch.device) -> float:
    """Run a side until all it will need is captured or compiled; seconds of a completion after that."""
    clock = Clock(device)
    for index in range(completions if side.thorough else 2):
        side.decode(index, clock)
    _wait(device)
    started = time.perf_counter()
    for index in range(2):
        side.decode(index, clock)
    _wait(device)
    return (time.perf_counter() - started) / 2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy of `size` bytes reads and writes: the best of ten."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    clock = Clock(device)
    best = math.inf
    for _ in range(10):
        clock.mark()
        target.copy_(source)
        clock.mark()
        _wait(device)
        best = min(best, *clock.spans())
    return 2 * size / best
