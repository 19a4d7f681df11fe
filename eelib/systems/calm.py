"""CALM, Confident Adaptive Language Modeling (Schuster et al. 2022).

Trains: nothing for two of its three measures; for the third a linear classifier, one for all layers, that says from the state
whether this layer's token is the last layer's (Section 3.5).
Decides: by the difference of the two largest probabilities, by the cosine of the state with that of the layer before, or by the
classifier; the bar falls along the completion, since early mistakes are felt longer (Section 3.4, the threshold function).
Adapted: T5's decoder becomes a decoder-only model, layers become exit points, so that saturation compares neighbouring exit points
and says nothing at the first. The model's own head serves all layers, as in CALM. Its calibration by Learn-then-Test is
`evaluation/promises.py`; here thresholds are chosen as every system's are.
"""

import numpy as np
import torch.nn.functional as F

from eelib.rl.perceptron import Recipe, per_token
from eelib.rl.probe import fit
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, Told, by_policy, by_threshold

TEMPERATURE = 4.0  # of the falling bar: CALM's tau


def falling_bar(threshold: float, tokens: int, temperature: float = TEMPERATURE) -> np.ndarray:
    """(T,) bars of the tokens of a completion: 0.9 threshold + 0.1 exp(-temperature t / T), within [0, 1]."""
    token = np.arange(tokens)
    return np.clip(0.9 * threshold + 0.1 * np.exp(-temperature * token / tokens), 0.0, 1.0)


def saturation(states: np.ndarray) -> np.ndarray:
    """(N, T, E) cosines of (N, T, E, D) states with those of the exit point before; -inf at the first."""
    states = states.astype(np.float32)
    lengths = np.linalg.norm(states, axis=-1)
    cosines = (states[:, :, 1:] * states[:, :, :-1]).sum(-1) / np.maximum(
        lengths[:, :, 1:] * lengths[:, :, :-1], 1e-12
    )
    return np.concatenate([np.full((*cosines.shape[:2], 1), -np.inf), cosines], -1)


def difference(bench: Bench, falling: bool = False) -> list[Choice]:
    """By the two largest probabilities, at one bar or at one that falls along the completion."""
    told = [Told(split.looks.difference, split.rollouts.correct) for split in bench.splits]
    if not falling:
        return by_threshold(*told, bench.saying())
    tokens = bench.unseen.rollouts.last.shape[1]
    return by_threshold(*told, bench.saying(), lambda threshold: falling_bar(threshold, tokens)[..., None])


def saturation_flops(bench: Bench) -> int:
    """Of one cosine: three products of width D, as no length is kept."""
    return 3 * 2 * bench.config.hidden_size


def saturated(bench: Bench) -> list[Choice]:
    """By the state."""
    told = [Told(saturation(split.rollouts.states), split.rollouts.correct) for split in bench.splits]
    return by_threshold(*told, bench.reading(saturation_flops(bench)))


def classifier(bench: Bench, train: Rollouts, seed: int, steps: int) -> list[Choice]:
    """By the trained linear classifier."""
    right = (per_token(rollouts.correct) for rollouts in (train, bench.chosen.rollouts))
    recipe, loss = Recipe(steps=steps, hidden_layers=0), F.binary_cross_entropy_with_logits
    return by_policy(bench, fit(train, bench.chosen.rollouts, *right, loss, seed, "", recipe))
