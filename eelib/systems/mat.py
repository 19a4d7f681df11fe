"""MAT, "Jump to Conclusions: Short-Cutting Transformers With Linear Transformations" (Yom Din et al. 2023).

Trains: for every layer l a matrix A_l, by least squares over states of the same token: A_l h_l is to be the last layer's state
(Section 3, "mat"). The norm and the head of the model then decode it.
Decides: always leaves at one layer, or where the decoded distribution's largest probability is above a threshold (Section 6).
Adapted: nothing but the data: states along code, and a small ridge, since a laptop records fewer tokens than the paper.
"""

import numpy as np
import torch

from eelib.models.parts import ModelParts
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, Looks, Told, by_exits, by_threshold, looks

RIDGE = 1e-4  # of the mean square of a coordinate


def linear_map(states: np.ndarray, targets: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """(D, D) float64 A with A h nearest to the target, from (M, D) states and targets."""
    states, targets = states.astype(np.float64), targets.astype(np.float64)
    gram = states.T @ states
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, states.T @ targets).T


def fit_maps(text: Rollouts, last_states: np.ndarray) -> np.ndarray:
    """(E, D, D) float32, from recorded states and the last layer's (N, T, D) of the same tokens."""
    width = last_states.shape[-1]
    targets = last_states.reshape(-1, width)
    maps = [
        linear_map(text.states[:, :, place].reshape(-1, width), targets)
        for place in range(len(text.exit_points))
    ]
    return np.stack(maps).astype(np.float32)


def mapped_looks(parts: ModelParts, maps: np.ndarray, rollouts: Rollouts) -> Looks:
    """What the model's norm and head say of mapped states."""
    matrices = torch.from_numpy(maps).to(parts.device)
    return looks(
        rollouts,
        lambda place, states: parts.logits((states @ matrices[place].T).to(parts.model.dtype)).float(),
        parts.device,
    )


def map_flops(bench: Bench) -> int:
    """Of one product with a map."""
    return 2 * bench.config.hidden_size**2


def confident(bench: Bench, parts: ModelParts, maps: np.ndarray) -> list[Choice]:
    """By the largest probability after the map, and every fixed exit with its map."""
    said = [mapped_looks(parts, maps, split.rollouts) for split in bench.splits]
    rights = tuple(
        own.tokens == split.rollouts.last[..., None] for own, split in zip(said, bench.splits, strict=True)
    )
    told = [Told(own.confidence, right) for own, right in zip(said, rights, strict=True)]
    fixed = [
        [np.full(split.rollouts.last.shape, place) for place in range(len(maps))] for split in bench.splits
    ]
    jumps = bench.prices + bench.price(map_flops(bench)) * np.append(np.ones(len(maps)), 0.0)
    return by_threshold(*told, bench.saying(map_flops(bench))) + by_exits(*fixed, jumps, rights)
