"""Optimal stopping: a policy that weighs leaving now against what going on is worth.

A probe knows how probable it is that this exit is right, and not whether a later one would be. But a token that is wrong here and will
be wrong until the last layer should leave now as well, where layers are dear: going on buys nothing. So both are fitted to recorded
rollouts: the value of leaving, and the value of going on to the stops that the policy itself would choose, by regression from the deepest
exit point up (backward induction; Tsitsiklis and Van Roy 2001). What a right token is worth in tokens of the full model is the price, and the
network's further input, so that one training serves all trade-offs.
"""

import math

import numpy as np
import torch
from torch import Tensor

from eelib.decoding.policy import PRICES, ExitPolicy
from eelib.rl.perceptron import Best, Examples, Perceptron, Recipe, descend, per_token
from eelib.rl.rollouts import Rollouts

# Twice PPO's noise: where most tokens agree at once, few of them tell leaving from going on (docs/decisions.md, "Optimal stopping").
RECIPE = Recipe(steps=3000, noise=1.0)
JUDGED_AT = 12  # prices, at equal distances of their logarithms


def train_stopping(
    rollouts: Rollouts, chosen: Rollouts, costs: np.ndarray, seed: int, model: str, recipe: Recipe = RECIPE
) -> ExitPolicy:
    """Fit the values of leaving and of going on, at prices drawn anew for every token; keep the state that pays most on `chosen`.

    Parameters
    ----------
    chosen: of validation prompts.
    costs: (E + 1,) of leaving at each stop, as shares of the full model's token.
    model: fingerprint of the model the states come from, kept with the policy.
    """
    examples, generator = Examples(rollouts, direction=True), torch.Generator().manual_seed(seed)
    unseen = Examples(chosen, examples.moments, direction=True).states, per_token(chosen.correct)
    correct, steps = per_token(rollouts.correct), torch.from_numpy(np.diff(costs)).float()
    network = Perceptron(examples.states.shape[-1], recipe, 2, generator, priced=True)
    low, high = map(math.log, PRICES)
    best = Best(network, recipe.steps)

    def loss_of(rows: Tensor, noisy: Tensor) -> Tensor:
        log_prices = low + (high - low) * torch.rand(len(rows), generator=generator)
        go_on, leave = network(noisy, log_prices).unbind(-1)
        prices = log_prices.exp()
        worth = continuing(go_on.detach(), leave.detach(), correct[rows], prices, steps)
        # Where layers are dear, values are large: their errors are weighed down to those of the others.
        errors = (leave - correct[rows]) ** 2 + (go_on - worth) ** 2 / (1 + prices)[:, None]
        return errors.mean()

    for step in descend(network, examples, recipe, generator, loss_of):
        best.offer(step, lambda: -paid(network, *unseen, steps))
    return best.kept.export(examples, model)


@torch.no_grad()
def paid(network: Perceptron, states: Tensor, correct: Tensor, steps: Tensor) -> float:
    """What a network's decisions pay a token: a mean over prices, each divided by 1 + price, since dear layers would drown the others.

    Parameters
    ----------
    states, correct: (M, E, D) standardised, and (M, E). steps: as of `continuing`.
    """
    worth = []
    for log_price in torch.linspace(*map(math.log, PRICES), JUDGED_AT):
        prices = log_price.exp().expand(len(states))
        go_on, leave = network(states, log_price.expand(len(states))).unbind(-1)
        first = continuing(go_on, leave, correct, prices, steps)[:, 0]
        stays = leave[:, 0] <= go_on[:, 0]
        worth.append(torch.where(stays, first, correct[:, 0]).mean() / (1 + log_price.exp()))
    return torch.stack(worth).mean().item()


def continuing(go_on: Tensor, leave: Tensor, correct: Tensor, prices: Tensor, steps: Tensor) -> Tensor:
    """(M, E) what going on from each exit point has paid, by the outcomes of the stops where the policy leaves.

    A right token pays 1, the last layer's is always right, and every step to the next stop costs its price.

    Parameters
    ----------
    go_on, leave: (M, E) values by which the policy decides: it leaves at the first exit point where leaving is worth more.
    correct: (M, E), 1 where the exit's token is the last layer's.
    prices: (M,) of a full token. steps: (E,) cost from each exit point to the next stop, in full tokens.
    """
    paid = torch.empty_like(correct)
    ahead = torch.ones_like(prices)
    for exit in reversed(range(correct.shape[1])):
        paid[:, exit] = ahead - prices * steps[exit]
        ahead = torch.where(leave[:, exit] > go_on[:, exit], correct[:, exit], paid[:, exit])
    return paid
