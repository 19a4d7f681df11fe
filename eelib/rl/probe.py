"""The supervised rival of PPO: a classifier that says whether an exit's token is the last layer's.

A recorded rollout holds the outcome of every exit, so nothing has to be tried out: where PPO samples rewards, a probe of the same
size is fitted to all of them by binary cross-entropy. It exports to the same `ExitPolicy` and costs the same.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eelib.decoding.policy import ExitPolicy
from eelib.rl.rollouts import Rollouts

HELD_OUT = 5  # every fifth prompt: for the choice of the epoch, and of exit points


@dataclass(frozen=True)
class ProbeRecipe:
    """How a probe is fitted; fixed before its results were seen.

    Attributes
    ----------
    noise: Gaussian, in training, in standard deviations of each coordinate of the states; as PPO has it.
    """

    hidden_units: int = 64
    hidden_layers: int = 2
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    noise: float = 0.5


def held_out(prompts: int) -> np.ndarray:
    """(N,) bool: the prompts that no probe is fitted to, the same for all seeds."""
    return np.random.default_rng(0).permutation(prompts) % HELD_OUT == 0


def train_probe(rollouts: Rollouts, seed: int, model: str, recipe: ProbeRecipe | None = None) -> ExitPolicy:
    """Fit a probe to four fifths of the prompts and keep the epoch with the least loss on the others.

    Parameters
    ----------
    model: fingerprint of the model the states come from, kept with the policy.
    """
    recipe = recipe or ProbeRecipe()
    mean, deviation = (torch.from_numpy(moment) for moment in rollouts.moments())
    deviation = torch.where(deviation > 1e-6, deviation, 1.0)
    out = held_out(len(rollouts))
    fitted, kept = (_examples(rollouts, chosen, mean, deviation) for chosen in (~out, out))
    generator = torch.Generator().manual_seed(seed)
    network = _Network(rollouts.states.shape[-1], recipe, generator)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    best, state = np.inf, network.state_dict()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(fitted[0]), generator=generator).split(recipe.batch_size):
            states, correct = (part[rows] for part in fitted)
            noise = recipe.noise * torch.randn(states.shape, generator=generator)
            loss = F.binary_cross_entropy_with_logits(network(states + noise), correct)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            loss = F.binary_cross_entropy_with_logits(network(kept[0]), kept[1]).item()
        if loss < best:
            best = loss
            state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(state)
    return network.export(mean, deviation, model)


def _examples(
    rollouts: Rollouts, chosen: np.ndarray, mean: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Every token at every exit point: standardised states (M, D), and whether the exit is right (M,)."""
    states = torch.from_numpy(np.asarray(rollouts.states[chosen], np.float32))
    correct = torch.from_numpy(rollouts.correct[chosen]).float()
    return ((states - mean) / deviation).flatten(0, -2), correct.flatten()


class _Network(nn.Module):
    """tanh units as those of the thesis's agent (Listing 4), with one output, the log-odds of being right."""

    def __init__(self, width: int, recipe: ProbeRecipe, generator: torch.Generator):
        super().__init__()
        sizes = [width, *[recipe.hidden_units] * recipe.hidden_layers, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()

    def forward(self, states: Tensor) -> Tensor:
        """(M, D) standardised states -> (M,) log-odds."""
        features = self.layers[0](states)
        for layer in list(self.layers)[1:]:
            features = layer(torch.tanh(features))
        return features.squeeze(-1)

    def export(self, mean: Tensor, deviation: Tensor, model: str) -> ExitPolicy:
        """Plain tensors that read raw states; the log-odds stand in the output that exits, 0 in the one that goes on."""
        weights = [layer.weight.detach().clone() for layer in self.layers]
        biases = [layer.bias.detach().clone() for layer in self.layers]
        biases[0] -= weights[0] @ (mean / deviation)
        weights[0] /= deviation
        weights[-1] = torch.cat([torch.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = torch.cat([torch.zeros_like(biases[-1]), biases[-1]])
        return ExitPolicy(weights, biases, model)
