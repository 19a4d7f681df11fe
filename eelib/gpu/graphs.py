"""Decode one prompt on a GPU at the speed of its memory: the layers between two exit points are CUDA graphs.

At one token a step, Python and kernel launches take longer than reading the weights. Here the host launches one graph for
the layers up to the next exit point, and at an exit point reads one byte at most. While it does, the GPU goes on to the
next layer's attention: if the token leaves, that work is lost (about a third of a layer), and the keys and values that it
wrote are those that propagation would write.

The same functions run uncaptured on a CPU, where the tests hold them to `SingleDecoder`, token for token.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import ExitCriterion
from eelib.decoding.decisions import ask, asked_criterion, scripted_layer
from eelib.decoding.generate import Generation, check_prompt
from eelib.errors import InputError
from eelib.gpu.capture import Captured, Flags, SideStream
from eelib.gpu.static import BUCKET, Prompt, Rows, StaticCache, Tables, attend, finish
from eelib.models.architectures import ARCHITECTURES
from eelib.models.fused import FusedModel
from eelib.models.parts import ModelParts

MODES = (CacheMode.PROPAGATE, CacheMode.PROPAGATE_LATER, CacheMode.RECOMPUTE)
# One tuned kernel for each product of one row: what reaches the memory's bandwidth at batch 1.
COMPILER = {"backend": "inductor", "options": {"coordinate_descent_tuning": True}}


# The newest token's state (1, 1, D), what the next layer attended to where that has been done, and its rows.
Step = tuple[Tensor, Tensor | None, Rows]


GIVING = ("embed", "alone", "together")  # kinds of graphs whose output another graph takes


def _pool(device: torch.device) -> Any | None:
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


def power_of_two(count: int) -> int:
    """The least one that is not below count: few graphs serve all counts."""
    return 1 << (count - 1).bit_length()


class GraphDecoder:
    """A decoder for one prompt after another. What it captures for one, the next ones use.

    Parameters
    ----------
    capacity: the most tokens of a prompt and its answer together. Attention reads that many slots whatever a prompt's
        length: give what is needed, not what the model allows.
    compiler: arguments of `torch.compile` for the two halves of a layer (`COMPILER`); None runs them as they are.
    """

    @torch.inference_mode()
    def __init__(self, parts: ModelParts, capacity: int, compiler: dict[str, Any] | None = None):
        if not isinstance(parts.fused, FusedModel):
            raise InputError(
                f"The model type {parts.model.config.model_type!r} has no fused layers, which captured decoding runs: allowed "
                f"are {', '.join(kind for kind, made in ARCHITECTURES.items() if made.fused)}."
            )
        device = parts.device
        self.parts = parts
        self.slots = math.ceil(capacity / BUCKET) * BUCKET
        self.capacity = capacity
        self._layers = parts.fused.layers
        self._stops = [*parts.exit_points, parts.total_layers]
        self._attend, self._finish, self._ask = attend, finish, ask
        if compiler is not None:
            self._attend, self._finish, self._ask = (
                torch.compile(function, dynamic=False, **compiler) for function in (attend, finish, ask)
            )
        self._cache = StaticCache(parts, self.slots)
        self._tables = Tables(parts, self.slots)
        self._tokens = torch.zeros(self.slots, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)  # of the newest token
        self._oldest = torch.zeros(1, dtype=torch.int64, device=device)  # position that runs along with it
        weights = parts.model.get_input_embeddings().weight
        # States of positions that wait, by the stop they reached: a graph never writes what it reads, and may run twice.
        self._states = weights.new_zeros(len(self._stops), self.slots, parts.width)
        self._best = weights.new_zeros(self.slots)  # the logit of each token
        self._side = SideStream(device)
        self._flags = Flags(len(self._stops), device)
        # Graphs that give tensors share a pool of memory, and those that give none another: one of these may be replayed
        # between a graph that gives and one that takes, and its scratch must not lie where the tensors do.
        self._pools = {gives: _pool(device) for gives in (True, False)}
        self._captured: dict[tuple, Captured] = {}  # each holds on to its criterion, whose id is in the key
        self._mode = CacheMode.PROPAGATE
        self._waiting: list[int] = []  # layers that the newest positions have reached, oldest position first
        self.prompt_length = self.length = 0

    @torch.inference_mode()
    def start(self, prompt: list[int], cache_mode: CacheMode = CacheMode.PROPAGATE) -> None:
        """Prefill a prompt but for its last token, at full depth. Bad input gives InputError.

        A graph is captured for each length of a prompt.
        """
        if cache_mode not in MODES:
            raise InputError(
                f"The cache mode is {cache_mode.value!r}: captured decoding allows {', '.join(m.value for m in MODES)}."
            )
        check_prompt(self.parts, prompt, 1)
        if len(prompt) >= self.capacity:
            raise InputError(
                f"The prompt has {len(prompt)} tokens: allowed are fewer than the decoder's capacity of {self.capacity}."
            )
        self._mode, self._waiting = cache_mode, []
        self.prompt_length = self.length = len(prompt)
        self._tokens[: len(prompt)].copy_(torch.tensor(prompt))
        if len(prompt) > 1:
            self._get(("prefill", len(prompt)), lambda: self._prefill(len(prompt) - 1))()

    @torch.inference_mode()
    def step(self, criterion: ExitCriterion) -> int:
        """Decode one token, which stays on the device; give the layer it left at."""
        assert 0 < self.length < self.capacity, "no prompt, or no room for another token"
        total = self.parts.total_layers
        known = scripted_layer(criterion, self.length - self.prompt_length, total)
        asked = asked_criterion(criterion)
        self._position.fill_(self.length - 1)
        reached, key = 0, ("embed",)
        self._get(key, self._embed)()
        for index, stop in enumerate(self._stops):
            key = self._run(key, reached, stop, index, asked)
            reached = stop
            leaves = asked is not None and stop < total and self._flags.wait(index)
            if stop == known or (known is None and leaves):
                break
        self._leave(key, reached)
        self.length += 1
        return reached

    @torch.inference_mode()
    def tokens(self) -> list[int]:
        """The tokens generated so far; NaN logits give InputError. Waits for the device."""
        span = slice(self.prompt_length, self.length)
        if self._best[span].isnan().any():
            raise InputError("The model's logits are NaN: its weights or its number format are broken.")
        return self._tokens[span].tolist()

    def _get(self, key: tuple, function: Callable[[], Any]) -> Captured:
        if key not in self._captured:
            self._captured[key] = Captured(function, self._pools[key[0] in GIVING])
        return self._captured[key]

    def _output(self, key: tuple) -> Step:
        return self._captured[key].output

    def _prefill(self, length: int) -> None:
        positions = self._tables.columns[:length]
        hidden = self.parts.embed(self._tokens[None, :length], positions[None])
        rotation = self._tables.rotation
        rotation = None if rotation is None else rotation.narrow(0, length)
        prompt = Prompt(self._cache, positions)
        for layer in self._layers:
            hidden = layer(hidden, rotation, prompt)

    def _embed(self) -> Step:
        """The newest token's state, what the next layer attended to (None if not yet), and its `Rows`."""
        ids = self._tokens.index_select(0, self._position)
        hidden = self.parts.embed(ids[None], self._position[None])
        return hidden, None, self._tables.rows(self._position)

    def _run(self, source: tuple, reached: int, stop: int, index: int, asked: ExitCriterion | None) -> tuple:
        """Run layers `reached` + 1..`stop`, with the positions that wait there; the key of what did it."""
        count = self._waiting_up_to(reached)
        if count and self._mode is CacheMode.RECOMPUTE:
            if source[0] != "together":  # the newest joins those that wait
                self._get(("park", source), lambda: self._park(source, index - 1))()
            self._oldest.fill_(self.length - 1 - count)
            rows = power_of_two(count + 1)
            key = ("together", stop, rows, id(asked))
            captured = self._get(key, lambda: self._together(reached, stop, index, rows, asked))
        else:
            if self._mode is CacheMode.PROPAGATE_LATER:
                self._fill(count, reached + 1, stop)
                if asked is not None and stop < self.parts.total_layers:  # the layer that is gone on to
                    self._fill(self._waiting_up_to(stop), stop + 1, stop + 1)
            key = ("alone", stop, id(asked))
            captured = self._get(key, lambda: self._alone(source, reached, stop, index, asked))
        self._waiting = [stop if layer <= reached else layer for layer in self._waiting]
        captured.record()
        self._flags.clear(index)
        captured()
        return key

    def _alone(self, source: tuple, reached: int, stop: int, index: int, asked: ExitCriterion | None) -> Step:
        hidden, attended, rows = self._output(source)
        for layer in range(reached, stop):
            if attended is None:
                attended = self._attend(self._layers[layer], hidden, rows, *self._cache.layer(layer + 1))
            hidden, attended = self._finish(self._layers[layer], hidden, attended), None
        if asked is not None and stop < self.parts.total_layers:
            with self._side.aside():
                self._decide(asked, hidden, index)
            attended = self._attend(self._layers[stop], hidden, rows, *self._cache.layer(stop + 1))
            self._side.join()
        return hidden, attended, rows

    def _together(self, reached: int, stop: int, index: int, count: int, asked: ExitCriterion | None) -> Step:
        """Layers for the rows from `_oldest` to the newest."""
        rows = self._tables.rows(self._last_positions(count, self._position))
        hidden = self._states[index - 1].index_select(0, rows.positions)[None]
        for layer in range(reached, stop):
            attended = attend(self._layers[layer], hidden, rows, *self._cache.layer(layer + 1))
            hidden = finish(self._layers[layer], hidden, attended)
        self._states[index].index_copy_(0, rows.positions, hidden[0])
        newest = hidden[:, -1:]
        if asked is not None and stop < self.parts.total_layers:
            self._decide(asked, newest, index)
        return newest, None, rows

    def _waiting_up_to(self, layer: int) -> int:
        """How many of the newest positions have gone no deeper than a layer."""
        return sum(reached <= layer for reached in self._waiting)

    def _fill(self, count: int, first: int, last: int) -> None:
        """Let the newest `count` positions that wait have keys and values in the layers `first`..`last`."""
        if count:
            self._oldest.fill_(self.length - 1 - count)
            rows = power_of_two(count)
            self._get(("fill", first, last, rows), lambda: self._fill_rows(first, last, rows))()

    def _fill_rows(self, first: int, last: int, count: int) -> None:
        positions = self._last_positions(count, self._position - 1)
        states = self._states[0].index_select(0, positions)[None]
        rotation = self._tables.rows(positions).rotation
        self._cache.fill(*self.parts.fused.keys_values(states, rotation, first, last), first, positions)

    def _last_positions(self, count: int, newest: Tensor) -> Tensor:
        """`count` positions up to `newest`; where there are fewer since `_oldest`, that one again and again."""
        back = torch.arange(count - 1, -1, -1, device=newest.device)
        return torch.maximum(newest - back, self._oldest)

    def _decide(self, asked: ExitCriterion, hidden: Tensor, index: int) -> None:
        self._flags.write(index, self._ask(asked, self.parts.logits, hidden[:, -1]))

    def _park(self, source: tuple, place: int) -> None:
        """Keep the newest position's state among those that wait at a stop (at the first, where they never run again)."""
        self._states[place].index_copy_(0, self._position, self._output(source)[0][0])

    def _leave(self, source: tuple, layer: int) -> None:
        """Decode the token that leaves at `layer`, and see to the layers it skipped."""
        early = layer < self.parts.total_layers
        fills = early and self._mode is CacheMode.PROPAGATE
        waits = early and self._mode.waits
        place = None
        if waits:
            place = self._stops.index(layer) if self._mode is CacheMode.RECOMPUTE else 0
        self._get(("leave", source, fills, place), lambda: self._decode(source, layer, fills, place))()
        if waits:
            self._waiting.append(layer)
        elif not early:
            self._waiting = []

    def _decode(self, source: tuple, layer: int, fills: bool, place: int | None) -> None:
        hidden, _, rows = self._output(source)
        if fills:
            with self._side.aside():
                keys, values = self.parts.fused.keys_values(
                    hidden, rows.rotation, layer + 1, self.parts.total_layers
                )
                self._cache.fill(keys, values, layer + 1, self._position)
        if place is not None:
            self._park(source, place)
        value, index = self.parts.logits(hidden[:, -1]).max(-1)
        self._best.index_copy_(0, self._position + 1, value)
        self._tokens.index_copy_(0, self._position + 1, index)
        if fills:
            self._side.join()


def generate_captured(
    decoder: GraphDecoder,
    prompt: list[int],
    new_tokens: int,
    criterion: ExitCriterion,
    cache_mode: CacheMode = CacheMode.PROPAGATE,
) -> Generation:
    """Greedy early-exit decoding of one prompt, as `generate` does it. Bad input gives InputError before any work."""
    criterion.check(decoder.parts)
    asked_criterion(criterion)
    if len(prompt) + new_tokens > decoder.capacity:
        raise InputError(
            f"The prompt has {len(prompt)} tokens, which with {new_tokens} new ones is more than the decoder's capacity "
            f"of {decoder.capacity}."
        )
    decoder.start(prompt, cache_mode)
    layers = [decoder.step(criterion) for _ in range(new_tokens)]
    return Generation(decoder.tokens(), layers)
