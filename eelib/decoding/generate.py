"""Decode one prompt, really skipping layers: what is timed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode, KeyValueCache
from eelib.decoding.criteria import ExitCriterion, ExitState
from eelib.errors import InputError
from eelib.models.parts import ModelParts


@dataclass(frozen=True)
class Generation:
    """Tokens generated after a prompt, and the layer (1..L) each of them left at."""

    tokens: list[int]
    exit_layers: list[int]

    @property
    def mean_layers(self) -> float:
        return sum(self.exit_layers) / len(self.exit_layers)


@torch.inference_mode()
def generate(
    parts: ModelParts,
    prompt: list[int],
    new_tokens: int,
    criterion: ExitCriterion,
    cache_mode: CacheMode = CacheMode.NONE,
    end: int | None = None,
) -> Generation:
    """Greedy early-exit decoding of one prompt: `new_tokens` tokens, or fewer, the last of which is the token id `end`.

    Bad input gives InputError before any work: see `SingleDecoder`.
    """
    criterion.check(parts)
    decoder = SingleDecoder(parts, prompt, new_tokens, cache_mode)
    result = Generation([], [])
    while len(result.tokens) < new_tokens and end not in result.tokens[-1:]:
        token, layer = decoder.step(criterion)
        result.tokens.append(token)
        result.exit_layers.append(layer)
    return result


def check_prompt(parts: ModelParts, prompt: list[int], new_tokens: int) -> None:
    """InputError unless the prompt has a token and leaves room for the answer."""
    if not prompt:
        raise InputError(
            "The prompt is empty: at least one token is needed (the tokenizer's start token will do)."
        )
    if len(prompt) + new_tokens > parts.max_positions:
        raise InputError(
            f"The prompt has {len(prompt)} tokens, which with {new_tokens} new ones is more than the model's "
            f"{parts.max_positions} positions."
        )


class SingleDecoder:
    """One prompt: prefilled when made, then one token a `step`.

    With a cache, all of the prompt but its last token is cached at full depth, and from there on every step runs one
    token, and with it those that waited (`CacheMode`). Without one the whole prefix runs again in every step, up to the
    layer the token leaves at.

    Parameters
    ----------
    prompt: token ids; an empty prompt, or one that with `new_tokens` does not fit the model's positions, gives InputError.
    new_tokens: the most steps that will be taken.
    """

    @torch.inference_mode()
    def __init__(
        self, parts: ModelParts, prompt: list[int], new_tokens: int, cache_mode: CacheMode = CacheMode.NONE
    ):
        check_prompt(parts, prompt, new_tokens)
        self.parts = parts
        self.cache_mode = cache_mode
        self.sequence = list(prompt)
        self.prompt_length = len(prompt)
        self.cache: KeyValueCache | None = None
        self._layers = parts.fused.layers
        self._stops = [*parts.exit_points, parts.total_layers]
        self._state = ExitState(parts.logits)
        self._deepest = parts.total_layers  # that a token may still reach
        self._waiting: list[
            tuple[Tensor, int]
        ] = []  # newest positions: their states and the layers they reached
        capacity = len(prompt) + new_tokens
        self._ids = torch.arange(capacity, device=parts.device)[None]
        self._rotation = parts.fused.rotation(self._ids)
        if cache_mode is not CacheMode.NONE:
            self.cache = KeyValueCache(parts, 1, capacity)
            if len(prompt) > 1:
                hidden = self._embed(0)[:, :-1]
                rotation = self._rotation_of(0, len(prompt) - 1)
                for layer in self._layers:
                    hidden = layer(hidden, rotation, self.cache)

    @torch.inference_mode()
    def step(self, criterion: ExitCriterion) -> tuple[int, int]:
        """Decode one token; give it and the layer it left at. NaN logits give InputError."""
        if self.cache is None:
            state, layer = self._run(self._embed(0), 0, criterion)
        else:
            position = len(self.sequence) - 1
            state, layer = self._run(self._embed(position), position, criterion)
            self._complete(state, position, layer)
        token = most_probable(self.parts.logits(state[:, -1]))
        self.sequence.append(token)
        return token, layer

    def _embed(self, start: int) -> Tensor:
        """States (1, T, D) before the first layer of all tokens from position `start` on."""
        ids = torch.tensor([self.sequence[start:]], device=self.parts.device)
        return self.parts.embed(ids, self._ids[:, start : len(self.sequence)])

    def _rotation_of(self, start: int, length: int):
        return None if self._rotation is None else self._rotation.narrow(start, length)

    def _run(self, hidden: Tensor, start: int, criterion: ExitCriterion) -> tuple[Tensor, int]:
        """Run layers until the criterion stops the last position, or to the end; its state and the layer reached."""
        rotation = self._rotation_of(start, hidden.shape[1])
        state = self._state
        state.token, state.hidden_states = len(self.sequence) - self.prompt_length, None
        reached = 0
        for stop in self._stops:
            if self._waiting:
                hidden = self._run_with_waiting(hidden, start, reached, stop)
            else:
                for layer in self._layers[reached:stop]:
                    hidden = layer(hidden, rotation, self.cache)
            reached = stop
            if stop >= self._deepest:
                break
            state.previous, state.hidden_states, state.layer = state.hidden_states, hidden[:, -1], stop
            if bool(criterion.exits(state)):
                break
        return hidden, reached

    def _run_with_waiting(self, hidden: Tensor, position: int, reached: int, stop: int) -> Tensor:
        """Run the newest token through layers `reached` + 1..`stop`, and bring those that wait there along."""
        ready = [state for state, layer in self._waiting if layer == reached]
        count = len(ready)
        rest = self._waiting[: len(self._waiting) - count]
        first = position - count
        if ready and self.cache_mode is CacheMode.PROPAGATE_LATER:
            keys_values = self.parts.fused.keys_values(
                torch.cat(ready, 1), self._rotation_of(first, count), reached + 1, stop
            )
            self.cache.fill(*keys_values, reached + 1)
            self._waiting = rest + [(state, stop) for state in ready]
            ready, first = [], position
        together = torch.cat([*ready, hidden], 1)
        tokens = together.shape[1]
        rotation = self._rotation_of(first, tokens)
        mask = None
        if tokens > 1:
            mask = torch.ones(tokens, position + 1, dtype=torch.bool, device=hidden.device)
            mask = mask.tril(first)[None, None]
        for layer in self._layers[reached:stop]:
            together = layer(together, rotation, self.cache, mask)
        if ready:
            self._waiting = rest + [(state, stop) for state in together[:, :-1].split(1, dim=1)]
        return together[:, -1:]

    def _complete(self, state: Tensor, position: int, layer: int) -> None:
        """See to the layers that the token at `position` skipped, and assert that the cache is whole."""
        total, mode = self.parts.total_layers, self.cache_mode
        if layer == total:
            self._waiting = []  # this token went all the way, and took the others along
        elif mode is CacheMode.PROPAGATE:
            rotation = self._rotation_of(position, 1)
            self.cache.fill(*self.parts.fused.keys_values(state, rotation, layer + 1, total), layer + 1)
        elif mode.waits:
            self._waiting.append((state, layer))
        elif mode is CacheMode.COPY:
            self.cache.copy_from(layer)
        else:
            self._deepest = layer
        self.cache.check_aligned(position + 1, [reached for _, reached in self._waiting], self._deepest)


def most_probable(logits: Tensor) -> int:
    """The most probable token of (1, V) logits; NaN among them gives InputError."""
    value, index = logits.max(dim=-1)
    if math.isnan(value.item()):
        raise InputError("The model's logits are NaN: its weights or its number format are broken.")
    return index.item()
