"""Rollouts: what the full model computes while it completes code, recorded for the agent to learn from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.criteria import FullDepth
from eelib.models.parts import ModelParts
from eelib.study.errors import InputError


@dataclass(frozen=True)
class Episode:
    """One prompt's completion by the full model: the material of one episode.

    Attributes
    ----------
    states: (T, E, D) float32 hidden states of each token at each exit point, before the final norm.
    predictions: (T, E) int64 tokens decoded from them.
    last: (T,) int64 tokens of the last layer.
    """

    states: np.ndarray
    predictions: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Rollouts:
    """Episodes of many prompts: `states` (N, T, E, D) float32, `predictions` (N, T, E), `last` (N, T).

    `exit_points` are the E layers (1..L) recorded, `total_layers` is L.
    """

    states: np.ndarray
    predictions: np.ndarray
    last: np.ndarray
    exit_points: list[int]
    total_layers: int

    def __post_init__(self):
        if not len(self.states):
            raise InputError("There are no rollouts: at least one prompt has to be recorded.")
        if not np.isfinite(self.states).all():
            raise InputError(
                "The rollouts hold states that are NaN or infinite: the model's number format is broken."
            )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def correct(self) -> np.ndarray:
        """(N, T, E) bool: predictions that equal the last layer's."""
        return self.predictions == self.last[..., None]

    @property
    def optimal_exits(self) -> np.ndarray:
        """(N, T) int64: for each token the first exit point that predicts the last layer's token, or L."""
        layers = np.array([*self.exit_points, self.total_layers])
        return layers[optimal_index(self.correct)]

    def episode(self, index: int) -> Episode:
        """Episode of one prompt."""
        return Episode(self.states[index], self.predictions[index], self.last[index])

    def draw(self, rng: np.random.Generator) -> Episode:
        """Episode of a prompt drawn uniformly."""
        return self.episode(int(rng.integers(len(self))))

    def save(self, path: Path) -> None:
        """Write to one safetensors file."""
        tensors = {"states": self.states, "predictions": self.predictions, "last": self.last}
        tensors["layers"] = np.array([*self.exit_points, self.total_layers])
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)


def load_rollouts(path: Path) -> Rollouts:
    """Rollouts written by `Rollouts.save`."""
    tensors = load_file(path)
    *exit_points, total_layers = tensors["layers"].tolist()
    return Rollouts(tensors["states"], tensors["predictions"], tensors["last"], exit_points, total_layers)


def optimal_index(correct: np.ndarray) -> np.ndarray:
    """Index of the first True along the last axis (E), or E when there is none: (..., E) bool -> (...) int64."""
    return np.where(correct.any(-1), correct.argmax(-1), correct.shape[-1])


def record(parts: ModelParts, prompts: list[list[int]], new_tokens: int, batch_size: int = 64) -> Rollouts:
    """Let the full model complete the prompts greedily and keep its states at the exit points."""
    if not prompts:
        raise InputError("There are no rollouts: at least one prompt has to be recorded.")
    parts_of = [_record_batch(parts, batch, new_tokens) for batch in _batches(prompts, batch_size)]
    states, predictions, last = (np.concatenate(arrays) for arrays in zip(*parts_of, strict=True))
    return Rollouts(states, predictions, last, parts.exit_points, parts.total_layers)


def _batches(prompts: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def _record_batch(
    parts: ModelParts, prompts: list[list[int]], new_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = {layer: i for i, layer in enumerate(parts.exit_points)}
    shape = (len(prompts), new_tokens, len(index))
    states = torch.empty(*shape, parts.width)
    predictions = torch.empty(shape, dtype=torch.int64)

    def observe(token: int, layer: int, hidden: Tensor) -> None:
        if layer in index:
            states[:, token, index[layer]] = hidden.float().cpu()
            predictions[:, token, index[layer]] = parts.logits(hidden).argmax(-1).cpu()

    generations = BatchDecoder(parts, prompts, new_tokens).decode(FullDepth(), observe=observe)
    last = np.array([generation.tokens for generation in generations])
    return states.numpy(), predictions.numpy(), last
