"""Depth-Adaptive Transformer (Elbayad et al. 2020), at the level of tokens (Section 3.2, "Token-specific depth").

Trains: a linear classifier, towards an oracle's exit. *Multinomial*: from one early state it names the exit of the whole token.
*Geometric-like*: at every layer it says whether to leave, and the exit's probability is that of leaving there and not before.
The oracle maximises a gain less the price of layers: *correctness*, whether the layer's token is right, or *likelihood*, the
logarithm of the probability it gives to the token.
Decides: multinomial once, after the first exit point; geometric-like at every exit point.
Adapted: the paper's first block is the first exit point here, and the token to be right about is the last layer's instead of the
reference. The paper draws its curve by a training for each price of layers; here one training serves all budgets, by a threshold on the
probability that a token is right so far, which for the multinomial is the sum of those of the exits up to a layer. The smoothing of
likelihoods over neighbouring tokens is left out. Decoders share the one head instead of having heads of their own.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.evaluation.frontier import at_every_stop
from eelib.rl.perceptron import Recipe
from eelib.rl.probe import fit
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, by_exits, by_policy
from eelib.systems.network import classify

PRICE = 0.1  # of a full token, in right tokens, or in nats
BARS = np.linspace(0.01, 0.99, 50)


def oracle_exits(gains: np.ndarray, prices: np.ndarray, price: float = PRICE) -> np.ndarray:
    """(...) index of the stop with the most gain (..., E + 1) less `price` times its own (E + 1,); of equal ones the first."""
    return (gains - price * prices).argmax(-1)


def correctness(rollouts: Rollouts) -> np.ndarray:
    """(N, T, E + 1) gains: 1 where a stop's token is the last layer's."""
    return at_every_stop(rollouts.correct).astype(float)


def leaving_targets(oracle: np.ndarray, exits: int) -> np.ndarray:
    """(..., E) float32 targets of leaving at each exit point: 0 before the oracle's exit, 1 at it, -1 (not learnt) past it."""
    places = np.arange(exits)
    return np.where(places == oracle[..., None], 1.0, np.where(places < oracle[..., None], 0.0, -1.0)).astype(
        np.float32
    )


def leaving_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the oracle's exits under the geometric-like distribution, both (B, E)."""
    learnt = targets >= 0
    losses = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), reduction="none")
    return (losses * learnt).sum() / learnt.any(-1).sum().clamp(min=1)


def multinomial(bench: Bench, train: Rollouts, gains: np.ndarray, seed: int, steps: int) -> list[Choice]:
    """The exit named once, from the state at the first exit point.

    Parameters
    ----------
    gains: (N, T, E + 1) of the training tokens.
    """
    oracle = torch.from_numpy(oracle_exits(gains, bench.prices).reshape(-1, 1))
    recipe = Recipe(steps=steps, hidden_layers=0)
    classifier = classify(_first_states(train), oracle, len(bench.prices), seed, recipe)
    exits = []
    for split in bench.splits:
        so_far = classifier.probabilities(_first_states(split.rollouts))[:, :, 0].cumsum(-1)
        exits.append([np.minimum((so_far < bar).sum(-1), len(bench.prices) - 1) for bar in BARS])
    # Every token pays the one decision; the first exit point is where it is taken.
    return by_exits(*exits, bench.prices + bench.price(classifier.flops), bench.correct)


def _first_states(rollouts: Rollouts) -> Rollouts:
    return replace(rollouts, states=rollouts.states[:, :, :1])


def geometric(bench: Bench, train: Rollouts, gains: np.ndarray, seed: int, steps: int) -> list[Choice]:
    """Leave or go on, at every exit point."""
    exits = len(train.exit_points)
    chosen = bench.chosen.rollouts
    own = correctness(chosen)
    targets = [
        torch.from_numpy(leaving_targets(oracle_exits(of, bench.prices), exits)).flatten(0, 1)
        for of in (gains, own)
    ]
    recipe = Recipe(steps=steps, hidden_layers=0)
    return by_policy(bench, fit(train, chosen, *targets, leaving_loss, seed, "", recipe))
