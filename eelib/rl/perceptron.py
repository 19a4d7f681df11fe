"""The small network that supervised policies are fitted as: the shape of the thesis's agent, exported to the same `ExitPolicy`."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eelib.decoding.policy import ExitPolicy, normed
from eelib.rl.rollouts import Rollouts

CHOICES = 16  # states of a training that are judged


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted.

    Attributes
    ----------
    noise: Gaussian, in training, in standard deviations of each coordinate of the states; as PPO has it.
    """

    steps: int
    hidden_units: int = 64
    hidden_layers: int = 2
    batch_size: int = 48  # tokens, each at all exit points
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    noise: float = 0.5


class Examples:
    """Every token of some rollouts: its standardised `states` (M, E, D), float32.

    Parameters
    ----------
    moments: mean and deviation (D,) to standardise by; by default their own.
    direction: states divided by their root mean square first.
    """

    def __init__(
        self, rollouts: Rollouts, moments: tuple[Tensor, Tensor] | None = None, direction: bool = False
    ):
        states = per_token(rollouts.states)
        states = normed(states) if direction else states
        if moments is None:
            deviation, mean = torch.std_mean(states.flatten(0, 1), 0, correction=0)
            moments = mean, torch.where(deviation > 1e-6, deviation, 1.0)
        self.moments, self.direction = moments, direction
        self.states = states.sub_(moments[0]).div_(moments[1])


def per_token(recorded: np.ndarray) -> Tensor:
    """What is recorded of N prompts of T tokens, (N, T, ...), as a float32 copy (N * T, ...)."""
    return torch.tensor(recorded, dtype=torch.float32).flatten(0, 1)


class Perceptron(nn.Module):
    """tanh units as those of the thesis's agent (Listing 4).

    Parameters
    ----------
    priced: whether the price of a token is a further input (`ExitPolicy.price`).
    """

    def __init__(
        self, width: int, recipe: Recipe, outputs: int, generator: torch.Generator, priced: bool = False
    ):
        super().__init__()
        units = recipe.hidden_units
        sizes = [width, *[units] * recipe.hidden_layers, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.price = nn.Parameter(torch.empty(units)) if priced else None
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()
            if priced:
                self.price.normal_(0, 1, generator=generator)

    def forward(self, states: Tensor, log_prices: Tensor | None = None) -> Tensor:
        """(M, E, D) standardised states, and (M,) logarithms of prices for a priced one -> (M, E, outputs)."""
        features = self.layers[0](states)
        if log_prices is not None:
            features = features + (log_prices[:, None] * self.price)[:, None]
        for layer in list(self.layers)[1:]:
            features = layer(torch.tanh(features))
        return features

    def export(self, examples: Examples, model: str) -> ExitPolicy:
        """Plain tensors that read raw states, the standardisation folded in; a single output is the logit of exiting against 0."""
        weights = [layer.weight.detach().clone() for layer in self.layers]
        biases = [layer.bias.detach().clone() for layer in self.layers]
        mean, deviation = examples.moments
        biases[0] -= weights[0] @ (mean / deviation)
        weights[0] /= deviation
        if len(weights[-1]) == 1:
            weights[-1] = torch.cat([torch.zeros_like(weights[-1]), weights[-1]])
            biases[-1] = torch.cat([torch.zeros_like(biases[-1]), biases[-1]])
        price = None if self.price is None else self.price.detach().clone()
        return ExitPolicy(weights, biases, model, price, examples.direction)


class Best:
    """The state of a network at which it did best on what it does not learn from, of `CHOICES` at equal steps of the training."""

    def __init__(self, network: Perceptron, steps: int):
        self._network, self._every = network, max(1, steps // CHOICES)
        self._least, self._state = np.inf, {}

    def offer(self, step: int, loss: Callable[[], float]) -> None:
        """Keep the state after this step if it is one to judge, and its loss the least so far."""
        if step % self._every == 0 and (now := loss()) < self._least:
            self._least = now
            self._state = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}

    @property
    def kept(self) -> Perceptron:
        """The network in that state."""
        self._network.load_state_dict(self._state)
        return self._network


def descend(
    network: Perceptron,
    examples: Examples,
    recipe: Recipe,
    generator: torch.Generator,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[int]:
    """Train on batches of noisy examples; gives the number of each step after it, from 1.

    Parameters
    ----------
    loss_of: (B,) indices of the tokens drawn and their noisy states (B, E, D) -> the loss of a batch.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, recipe.steps)
    states = examples.states
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(states), (recipe.batch_size,), generator=generator)
        noise = recipe.noise * torch.randn((recipe.batch_size, *states.shape[1:]), generator=generator)
        loss = loss_of(rows, states[rows] + noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield step
