"""The small network that supervised policies are fitted as: the shape of the thesis's agent, exported to the same `ExitPolicy`."""

import itertools

import torch
from torch import Tensor, nn

from eelib.decoding.policy import ExitPolicy, normed
from eelib.rl.rollouts import Rollouts


class Examples:
    """Every token of some rollouts, standardised: `states` (M, E, D) and `correct` (M, E), both float32.

    Parameters
    ----------
    moments: mean and deviation (D,) to standardise by; by default their own.
    direction: states divided by their root mean square first.
    """

    def __init__(
        self, rollouts: Rollouts, moments: tuple[Tensor, Tensor] | None = None, direction: bool = False
    ):
        states = torch.tensor(rollouts.states, dtype=torch.float32).flatten(0, 1)
        states = normed(states) if direction else states
        if moments is None:
            deviation, mean = torch.std_mean(states.flatten(0, 1), 0, correction=0)
            moments = mean, torch.where(deviation > 1e-6, deviation, 1.0)
        self.moments = moments
        self.states = states.sub_(moments[0]).div_(moments[1])
        self.correct = torch.from_numpy(rollouts.correct).float().flatten(0, 1)

    def __len__(self) -> int:
        return len(self.states)


class Perceptron(nn.Module):
    """tanh units as those of the thesis's agent (Listing 4).

    Parameters
    ----------
    priced: whether the price of a token is a further input (`ExitPolicy.price`).
    """

    def __init__(
        self,
        width: int,
        units: int,
        hidden_layers: int,
        outputs: int,
        generator: torch.Generator,
        priced: bool = False,
    ):
        super().__init__()
        sizes = [width, *[units] * hidden_layers, outputs]
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

    def export(self, examples: Examples, model: str, **kinds: bool) -> ExitPolicy:
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
        return ExitPolicy(weights, biases, model, price, **kinds)
