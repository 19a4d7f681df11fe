"""Rollouts: what the full model computes while it completes code, for the agent to learn from.

Recorded once (`record`), along real text (`record_prefixes`), or made by the model at every reset, as in the thesis (`LiveEpisodes`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.criteria import FullDepth
from eelib.errors import InputError
from eelib.models.parts import ModelParts

STATES, REST = "states.npy", "rollouts.safetensors"
_PROMPTS_AT_ONCE = 64  # whose states are in memory when all are gone through
_LOOKS_AT_ONCE = 512  # states decoded together: the head's weights are read once for all of them


@dataclass(frozen=True)
class Episode:
    """One prompt's completion by the full model: the material of one episode.

    Attributes
    ----------
    states: (T, E, D) float32 or float16 hidden states of each token at each exit point, before the final norm.
    predictions: (T, E) int64 tokens decoded from them.
    last: (T,) int64 tokens of the last layer.
    """

    states: np.ndarray
    predictions: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Rollouts:
    """Episodes of many prompts, N of T tokens at E exit points each.

    Attributes
    ----------
    states: (N, T, E, D) float32 or float16; an array of a file that need not fit in memory will do (`load_rollouts`).
    predictions: (N, T, E) int64, as of `Episode`.
    confidences: (N, T, E) float32, the largest softmax probability where the prediction was decoded.
    last: (N, T) int64.
    exit_points, total_layers: the E layers (1..L) recorded, and L.
    """

    states: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    last: np.ndarray
    exit_points: list[int]
    total_layers: int

    def __len__(self) -> int:
        return len(self.states)

    def _chunks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.states), _PROMPTS_AT_ONCE):
            yield self.states[start : start + _PROMPTS_AT_ONCE]

    @property
    def correct(self) -> np.ndarray:
        """(N, T, E) bool: predictions that equal the last layer's."""
        return self.predictions == self.last[..., None]

    @property
    def stops(self) -> np.ndarray:
        """(E + 1,) int64: the exit points, and L."""
        return np.array([*self.exit_points, self.total_layers])

    @property
    def optimal_exits(self) -> np.ndarray:
        """(N, T) int64: for each token the first exit point that predicts the last layer's token, or L."""
        return self.stops[optimal_index(self.correct)]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each of the D coordinates of all states, float32."""
        count = np.prod(self.states.shape[:-1])
        axes = (0, 1, 2)
        mean = sum(states.sum(axes, dtype=np.float64) for states in self._chunks()) / count
        squares = sum(((states - mean) ** 2).sum(axes, dtype=np.float64) for states in self._chunks())
        return mean.astype(np.float32), np.sqrt(squares / count).astype(np.float32)

    def episode(self, index: int) -> Episode:
        """Episode of one prompt."""
        return Episode(self.states[index], self.predictions[index], self.last[index])

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States, predictions, confidences and last layer's tokens."""
        return self.states, self.predictions, self.confidences, self.last

    def first(self, count: int) -> "Rollouts":
        """Those of the first prompts."""
        return Rollouts(*[array[:count] for array in self.arrays], self.exit_points, self.total_layers)

    def joined(self, others: "Rollouts") -> "Rollouts":
        """These and others of the same model, with as many tokens each, in memory."""
        both = zip(self.arrays, others.arrays, strict=True)
        return Rollouts(*[np.concatenate(pair) for pair in both], self.exit_points, self.total_layers)

    def draw(self, rng: np.random.Generator) -> Episode:
        """Episode of a prompt drawn uniformly."""
        return self.episode(int(rng.integers(len(self))))

    def save(self, folder: Path) -> None:
        """Write `states.npy` and `rollouts.safetensors`; states that were recorded into that file stay where they are."""
        if not (
            isinstance(self.states, np.memmap) and Path(self.states.filename) == (folder / STATES).resolve()
        ):
            np.save(folder / STATES, self.states, allow_pickle=False)
        tensors = {"predictions": self.predictions, "confidences": self.confidences, "last": self.last}
        tensors["layers"] = self.stops
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / REST)


def load_rollouts(folder: Path) -> Rollouts:
    """Rollouts written by `Rollouts.save`. The states stay on disk, unread until they are asked for."""
    tensors = load_file(folder / REST)
    states = np.load(folder / STATES, mmap_mode="r", allow_pickle=False)
    *exit_points, total_layers = tensors.pop("layers").tolist()
    return Rollouts(states, **tensors, exit_points=exit_points, total_layers=total_layers)


def optimal_index(correct: np.ndarray) -> np.ndarray:
    """Index of the first True along the last axis (E), or E when there is none: (..., E) bool -> (...) int64."""
    return np.where(correct.any(-1), correct.argmax(-1), correct.shape[-1])


def record(
    parts: ModelParts,
    prompts: list[list[int]],
    new_tokens: int,
    batch_size: int = 64,
    dtype: str = "float32",
    folder: Path | None = None,
) -> Rollouts:
    """Let the full model complete the prompts greedily and keep its states at the exit points.

    Every completion has `new_tokens` tokens: it runs on after an end token, so that all episodes have one length.

    Parameters
    ----------
    dtype: of the states, "float32" or "float16".
    folder: keep the states in `states.npy` there instead of in memory, batch by batch.

    No prompts, and states that are not finite in `dtype`, give InputError.
    """
    if not prompts:
        raise InputError("There are no rollouts: at least one prompt has to be recorded.")
    shape = (len(prompts), new_tokens, len(parts.exit_points))
    if folder is None:
        states = np.empty((*shape, parts.width), dtype)
    else:
        states = np.lib.format.open_memmap(
            (folder / STATES).resolve(), "w+", np.dtype(dtype), (*shape, parts.width)
        )
    predictions, confidences = np.empty(shape, np.int64), np.empty(shape, np.float32)
    last = np.empty(shape[:2], np.int64)
    # Prompts of like length share a batch: padding is computed and read by nobody.
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _record_batch(parts, [prompts[row] for row in rows], new_tokens)
        with np.errstate(over="ignore"):  # what float16 cannot hold is infinite
            for whole, part in zip((states, predictions, confidences, last), batch, strict=True):
                whole[rows] = part
        _check_finite(states[rows])
    return Rollouts(states, predictions, confidences, last, parts.exit_points, parts.total_layers)


def _record_batch(
    parts: ModelParts, prompts: list[list[int]], new_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    index = {layer: i for i, layer in enumerate(parts.exit_points)}
    shape = (len(prompts), new_tokens, len(index))
    states = torch.empty(*shape, parts.width)

    def observe(token: int, layer: int, hidden: Tensor) -> None:
        if layer in index:
            states[:, token, index[layer]] = hidden

    generations = BatchDecoder(parts, prompts, new_tokens).decode(FullDepth(), observe=observe)
    last = np.array([generation.tokens for generation in generations])
    return states.numpy(), *_looks(parts, states), last


@torch.inference_mode()
def _looks(parts: ModelParts, states: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What (..., D) states at exit points decode to: the likeliest token, int64, and its probability, float32."""
    predictions, confidences = [], []
    for chunk in states.flatten(0, -2).split(_LOOKS_AT_ONCE):
        logits = parts.logits(chunk.to(parts.device, parts.model.dtype)).float()
        largest, token = logits.max(-1)
        predictions.append(token.cpu())
        confidences.append((largest - logits.logsumexp(-1)).exp().cpu())
    shape = states.shape[:-1]
    return torch.cat(predictions).view(shape).numpy(), torch.cat(confidences).view(shape).numpy()


def _check_finite(states: np.ndarray) -> None:
    if not np.isfinite(states).all():
        raise InputError(f"The model's states are NaN, infinite, or too large for {states.dtype}.")


@torch.inference_mode()
def record_prefixes(
    parts: ModelParts, windows: list[list[int]], tokens: int, dtype: str = "float32", batch_size: int = 8
) -> Rollouts:
    """What the full model computes along real text: every position has states at all exit points, for one pass over it.

    Parameters
    ----------
    windows: (N, W) token ids, all of one length.
    tokens: of an episode. The last floor(W / 2 / tokens) * tokens positions of a window are recorded, so that all of them
        have at least half of the window before them, and cut into episodes of neighbours.

    Windows too short for one episode, and states that are not finite in `dtype`, give InputError.
    """
    pieces = len(windows[0]) // 2 // tokens if windows else 0
    if pieces == 0:
        raise InputError(
            f"There are no prefixes to record: at least one window of {2 * tokens} tokens has to be there."
        )
    shape = (len(windows), pieces * tokens, len(parts.exit_points))
    states = np.empty((*shape, parts.width), dtype)
    predictions, confidences = np.empty(shape, np.int64), np.empty(shape, np.float32)
    last = np.empty(shape[:2], np.int64)
    for start in range(0, len(windows), batch_size):
        rows = slice(start, start + batch_size)
        hidden = parts.hidden_states(torch.tensor(windows[rows], device=parts.device))
        kept = [layer[:, -shape[1] :] for layer in hidden]
        last[rows] = parts.logits(kept[-1]).argmax(-1).cpu()
        for place, layer in enumerate(parts.exit_points):
            here = (rows, slice(None), place)
            predictions[here], confidences[here] = _looks(parts, kept[layer - 1])
            with np.errstate(over="ignore"):  # as in `record`
                states[here] = kept[layer - 1].float().cpu()
        _check_finite(states[rows])
    episodes = (len(windows) * pieces, tokens)
    arrays = (states, predictions, confidences, last)
    return Rollouts(
        *[array.reshape(*episodes, *array.shape[2:]) for array in arrays],
        parts.exit_points,
        parts.total_layers,
    )


class LiveEpisodes:
    """Episodes that the model makes at each reset, as in the thesis (Section 5.1): no two the same, and dear.

    Parameters
    ----------
    prompt: draws the token ids of a prompt (`data.samples.RandomPrompts.draw`).
    """

    def __init__(
        self, parts: ModelParts, prompt: Callable[[np.random.Generator], list[int]], new_tokens: int
    ):
        self.parts = parts
        self.prompt = prompt
        self.new_tokens = new_tokens
        self.exit_points, self.total_layers = parts.exit_points, parts.total_layers

    def draw(self, rng: np.random.Generator) -> Episode:
        """The completion of a prompt drawn at random."""
        return record(self.parts, [self.prompt(rng)], self.new_tokens).episode(0)
