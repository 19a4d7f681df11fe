"""ConsistentEE (Zeng et al. 2024).

Trains: heads at every layer of a frozen model, then policy networks by reinforcement learning. A token has to be right at one exit
only, the one where it leaves. The reward is that of being right there, less a price of the layers that is higher for easy tokens: how
hard one is says its *memorised layer*, the first from which on it is right up to the last.
Decides: leaves where the policy's probability of exiting is above a threshold (0.5 in the paper).
Adapted: an exit for every token of a decoder instead of a sentence. A recording holds the outcome of every exit, so the expected
reward is exact and its gradient needs no sampled actions. One policy serves all
exit points; its threshold draws the curve, where the paper trains anew for each alpha. Where heads of their own are too large, the
model's own head stands in.
"""

import numpy as np
import torch
from torch import Tensor

from eelib.evaluation.frontier import at_every_stop
from eelib.rl.perceptron import Recipe
from eelib.rl.probe import fit
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, by_policy

ALPHA = 1.0  # price of a full token, in right tokens, for the easiest token


def memorised(correct: np.ndarray) -> np.ndarray:
    """(...) index of the stop from which on all are right, of (..., E) bool; the last stop, index E, always is."""
    wrong = ~correct[..., ::-1]
    return correct.shape[-1] - np.where(wrong.any(-1), wrong.argmax(-1), correct.shape[-1])


def rewards(correct: np.ndarray, prices: np.ndarray, alpha: float) -> np.ndarray:
    """(..., E + 1) float32 reward of leaving at each stop: 1 where it is right, less alpha (1 - m / E) of its price, m the memorised stop."""
    easy = 1 - memorised(correct)[..., None] / correct.shape[-1]
    return (at_every_stop(correct) - alpha * easy * prices).astype(np.float32)


def expected_loss(logits: Tensor, rewarded: Tensor) -> Tensor:
    """Mean of minus the expected reward: (B, E) logits of exiting, (B, E + 1) rewards; who never exits is at the last stop."""
    leave = torch.sigmoid(logits)
    stay = torch.cumprod(1 - leave, -1)
    ones = torch.ones_like(stay[:, :1])
    chances = torch.cat([leave, ones], -1) * torch.cat([ones, stay], -1)
    return -(chances * rewarded).sum(-1).mean()


def policy(
    bench: Bench, train: Rollouts, rights: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, steps: int
) -> list[Choice]:
    """The policy, at every threshold.

    Parameters
    ----------
    rights: (N, T, E) bool, where the heads are right: of what is learnt from, and of the two splits.
    """
    targets = (torch.from_numpy(rewards(right, bench.prices, ALPHA)).flatten(0, 1) for right in rights[:2])
    fitted = fit(train, bench.chosen.rollouts, *targets, expected_loss, seed, "", Recipe(steps=steps))
    return by_policy(bench, fitted, rights[1:])
