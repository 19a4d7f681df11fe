"""Heads of their own at every exit point: what DeeBERT, BERxiT and ConsistentEE decode their layers by.

A head is a matrix over the vocabulary behind the model's own final norm. It starts as the model's own head and learns the last layer's
token by cross-entropy on a frozen model, all exit points side by side. Together they are E times the model's head, so they are
fitted where that is no more than `MOST_PARAMETERS`: what one core fits in a minute. The rule looks at the model alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.errors import InputError
from eelib.models.parts import ModelParts
from eelib.rl.perceptron import per_token
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Looks, looks

MOST_PARAMETERS = 10_000_000
LEARNING_RATE = 3e-4
BATCH_TOKENS = 64
CHECKS = 8  # at equal steps of the training: of each head the state that is right most often is kept


@dataclass(frozen=True)
class Heads:
    """(E, V, D) float32 matrices, behind the norm of `parts`."""

    parts: ModelParts
    weights: Tensor

    def looks(self, rollouts: Rollouts) -> Looks:
        """What they say of recorded states."""
        return looks(
            rollouts,
            lambda place, states: F.linear(_normed(self.parts, states), self.weights[place]),
            self.weights.device,
        )

    def correct(self, rollouts: Rollouts) -> np.ndarray:
        """(N, T, E) bool: where they say the last layer's token."""
        return self.looks(rollouts).tokens == rollouts.last[..., None]


def affordable(parts: ModelParts) -> bool:
    """Whether heads of their own are fitted for a model."""
    return len(parts.exit_points) * parts.head.weight.numel() <= MOST_PARAMETERS


def fit_heads(parts: ModelParts, train: Rollouts, chosen: Rollouts, seed: int, steps: int) -> Heads:
    """Fit them, and keep of each the state that is right most often on `chosen`; a model whose heads are too large gives InputError."""
    if not affordable(parts):
        raise InputError(
            f"Heads of their own would have {len(parts.exit_points) * parts.head.weight.numel():,} parameters: "
            f"allowed are {MOST_PARAMETERS:,}."
        )
    generator = torch.Generator().manual_seed(seed)
    (states, last), (seen, seen_last) = (
        (_inputs(parts, own), per_token_ids(own, parts)) for own in (train, chosen)
    )
    start = parts.head.weight.detach().float()
    weights = start.expand(len(parts.exit_points), *start.shape).clone().requires_grad_()
    optimizer = torch.optim.AdamW([weights], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    best, kept = _right(weights.detach(), seen, seen_last), weights.detach().clone()
    for step in range(1, steps + 1):
        rows = torch.randint(len(last), (BATCH_TOKENS,), generator=generator)
        optimizer.zero_grad()
        _loss(weights, states[:, rows], last[rows]).backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // CHECKS) == 0:
            with torch.no_grad():
                right = _right(weights, seen, seen_last)
                kept = torch.where((right > best)[:, None, None], weights, kept)
                best = torch.maximum(right, best)
    return Heads(parts, kept)


def _loss(weights: Tensor, states: Tensor, last: Tensor) -> Tensor:
    """Mean cross-entropy of (E, M, D) normed states under (E, V, D) heads."""
    logits = torch.bmm(states, weights.transpose(1, 2))
    return F.cross_entropy(logits.flatten(0, 1), last.repeat(len(weights)))


def _right(weights: Tensor, states: Tensor, last: Tensor) -> Tensor:
    """(E,) shares of tokens that heads say right."""
    tokens = torch.stack([(own @ head.T).argmax(-1) for own, head in zip(states, weights, strict=True)])
    return (tokens == last).float().mean(-1)


@torch.no_grad()
def _inputs(parts: ModelParts, rollouts: Rollouts) -> Tensor:
    """(E, M, D) normed states of all tokens."""
    return _normed(parts, per_token(rollouts.states).to(parts.device)).transpose(0, 1).contiguous()


def _normed(parts: ModelParts, states: Tensor) -> Tensor:
    return parts.norm(states.to(parts.model.dtype)).float()


def per_token_ids(rollouts: Rollouts, parts: ModelParts) -> Tensor:
    """(M,) int64 tokens of the last layer."""
    return torch.from_numpy(np.ascontiguousarray(rollouts.last)).flatten().to(parts.device)
