"""Decode one prompt, really skipping layers: what is timed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode, KeyValueCache, propagate
from eelib.decoding.criteria import ExitCriterion, ExitState
from eelib.models.parts import ModelParts, Positions
from eelib.study.errors import InputError


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
) -> Generation:
    """Greedy early-exit decoding of one prompt.

    With `CacheMode.NONE` the whole prefix runs again for every token, up to the layer the token leaves at. With
    `CacheMode.PROPAGATE` all of the prompt but its last token is cached at full depth; from there on every step runs one
    token. A prompt that is empty or does not fit the model's positions gives InputError, and so do NaN logits.
    """
    check_prompt(parts, prompt, new_tokens)
    criterion.check(parts)
    sequence = list(prompt)
    exit_layers: list[int] = []
    cache = None
    if cache_mode is CacheMode.PROPAGATE:
        cache = KeyValueCache(parts.total_layers, len(prompt) + new_tokens)
        prefill(parts, sequence[:-1], cache)
    for token in range(new_tokens):
        hidden, layer = decode_one_token(parts, sequence, token, criterion, cache)
        sequence.append(next_token(parts.logits(hidden[:, -1])))
        exit_layers.append(layer)
    return Generation(sequence[len(prompt) :], exit_layers)


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


def prefill(parts: ModelParts, tokens: list[int], cache: KeyValueCache) -> None:
    """Run tokens at full depth into an empty cache."""
    if not tokens:
        return
    hidden, positions = embed(parts, tokens, start=0)
    for layer in range(1, parts.total_layers + 1):
        hidden = parts.run_layer(layer, hidden, positions, cache, mask=None)


def decode_one_token(
    parts: ModelParts, sequence: list[int], token: int, criterion: ExitCriterion, cache: KeyValueCache | None
) -> tuple[Tensor, int]:
    """States (1, T, D) of the layer that the next token is decoded from, and that layer.

    Without a cache T is the whole sequence; with one it is the newest token, and the layers it skips are filled.
    """
    if cache is None:
        hidden, positions = embed(parts, sequence, start=0)
    else:
        hidden, positions = embed(parts, sequence[-1:], start=len(sequence) - 1)
    hidden, layer = run_until_exit(parts, hidden, positions, token, criterion, cache)
    if cache is not None:
        propagate(parts, cache, hidden, positions, layer)
        cache.check_aligned(len(sequence))
    return hidden, layer


def run_until_exit(
    parts: ModelParts,
    hidden: Tensor,
    positions: Positions,
    token: int,
    criterion: ExitCriterion,
    cache: KeyValueCache | None,
) -> tuple[Tensor, int]:
    """Run layers until the criterion stops the last position, or to the end; return states and the layer reached."""
    for layer in range(1, parts.total_layers + 1):
        hidden = parts.run_layer(layer, hidden, positions, cache, mask=None)
        if layer in parts.exit_points:
            newest = hidden[:, -1]
            state = ExitState(newest, layer, token, lambda newest=newest: parts.logits(newest))
            if bool(criterion.exits(state)):
                return hidden, layer
    return hidden, parts.total_layers


def embed(parts: ModelParts, tokens: list[int], start: int) -> tuple[Tensor, Positions]:
    """Hidden states (1, T, D) before the first layer of tokens at positions start, start + 1, ..."""
    ids = torch.tensor([tokens], device=parts.device)
    positions = parts.positions(torch.arange(start, start + len(tokens), device=parts.device)[None])
    return parts.embed(ids, positions), positions


def next_token(logits: Tensor) -> int:
    """The most probable token of (1, V) logits; NaN among them gives InputError."""
    value, index = logits.max(dim=-1)
    if torch.isnan(value):
        raise InputError("The model's logits are NaN: its weights or its number format are broken.")
    return int(index)
