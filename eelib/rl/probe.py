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

CHOICES = 16  # at equal steps of the training: the one with the least validation loss is kept


@dataclass(frozen=True)
class ProbeRecipe:
    """How a probe is fitted.

    Attributes
    ----------
    noise: Gaussian, in training, in standard deviations of each coordinate of the states; as PPO has it.
    """

    hidden_units: int = 64
    hidden_layers: int = 2
    steps: int = 2000
    batch_size: int = 48  # tokens, each at all exit points
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    noise: float = 0.5


def train_probe(
    rollouts: Rollouts, chosen: Rollouts, seed: int, model: str, recipe: ProbeRecipe | None = None
) -> ExitPolicy:
    """Fit a probe to all exits of all tokens, and keep its state of the least loss on `chosen`.

    Parameters
    ----------
    chosen: of validation prompts.
    model: fingerprint of the model the states come from, kept with the policy.
    """
    recipe = recipe or ProbeRecipe()
    mean, deviation = (torch.from_numpy(moment) for moment in rollouts.moments())
    deviation = torch.where(deviation > 1e-6, deviation, 1.0)
    states, correct = _examples(rollouts, mean, deviation)
    seen, right = _examples(chosen, mean, deviation)
    generator = torch.Generator().manual_seed(seed)
    network = _Network(states.shape[-1], recipe, generator)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, recipe.steps)
    best, kept = np.inf, {}
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(states), (recipe.batch_size,), generator=generator)
        noise = recipe.noise * torch.randn((recipe.batch_size, *states.shape[1:]), generator=generator)
        loss = F.binary_cross_entropy_with_logits(network(states[rows] + noise), correct[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, recipe.steps // CHOICES) == 0:
            with torch.no_grad():
                loss = F.binary_cross_entropy_with_logits(network(seen), right).item()
            if loss < best:
                best = loss
                kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.export(mean, deviation, model)


def _examples(rollouts: Rollouts, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Every token: standardised states at its exit points (M, E, D), and whether each exit is right (M, E)."""
    states = torch.tensor(rollouts.states, dtype=torch.float32).flatten(0, 1)
    correct = torch.from_numpy(rollouts.correct).float().flatten(0, 1)
    return states.sub_(mean).div_(deviation), correct


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
        """(..., D) standardised states -> (...) log-odds."""
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
