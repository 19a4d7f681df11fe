"""BERxiT (Xin et al. 2021).

Trains: heads at every layer, and one learn-to-exit module shared by all of them, a linear layer that predicts from the state how
certain the head there is right, by squared error to whether it is (Section 3.4, "Learning to exit").
Decides: leaves at the first layer whose predicted certainty is above a threshold.
Adapted: the paper alternates between the loss of the last layer and the sum of all layers (Section 3.3), which tunes the backbone; the
backbone here is recorded and stays as it is, so that only heads and module are fitted, one after the other.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.rl.perceptron import Recipe
from eelib.rl.probe import fit
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, by_policy


def certainty_loss(logits: Tensor, correct: Tensor) -> Tensor:
    """Mean squared error of the certainty sigmoid(logits) to correctness, both (B, E)."""
    return F.mse_loss(torch.sigmoid(logits), correct)


def learnt(
    bench: Bench, train: Rollouts, rights: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, steps: int
) -> list[Choice]:
    """By the learn-to-exit module.

    Parameters
    ----------
    rights: (N, T, E) bool, where the heads are right: of what is learnt from, and of the two splits.
    """
    targets = (torch.from_numpy(right).flatten(0, 1).float() for right in rights[:2])
    recipe = Recipe(steps=steps, hidden_layers=0)
    module = fit(train, bench.chosen.rollouts, *targets, certainty_loss, seed, "", recipe)
    return by_policy(bench, module, rights[1:])
