"""The supervised rival of PPO: a classifier that says whether an exit's token is the last layer's.

A recorded rollout holds the outcome of every exit, so nothing has to be tried out: where PPO samples rewards, a probe of the same
size is fitted to all of them by binary cross-entropy. It exports to the same `ExitPolicy` and costs the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.decoding.policy import ExitPolicy
from eelib.rl.perceptron import Examples, Perceptron
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
    right = [torch.from_numpy(recorded.correct).float().flatten(0, 1) for recorded in (rollouts, chosen)]
    return fit(rollouts, chosen, *right, F.binary_cross_entropy_with_logits, seed, model, recipe)


def fit(
    rollouts: Rollouts,
    chosen: Rollouts,
    targets: Tensor,
    chosen_targets: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    model: str,
    recipe: ProbeRecipe | None = None,
) -> ExitPolicy:
    """Fit a single output, the policy's margin, to a target at every exit of every token, (M, E) float32."""
    recipe = recipe or ProbeRecipe()
    examples, generator = Examples(rollouts), torch.Generator().manual_seed(seed)
    states, seen = examples.states, Examples(chosen, examples.moments).states
    network = Perceptron(states.shape[-1], recipe.hidden_units, recipe.hidden_layers, 1, generator)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, recipe.steps)
    best, kept = np.inf, {}
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(states), (recipe.batch_size,), generator=generator)
        noise = recipe.noise * torch.randn((recipe.batch_size, *states.shape[1:]), generator=generator)
        loss = loss_of(network(states[rows] + noise).squeeze(-1), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, recipe.steps // CHOICES) == 0:
            with torch.no_grad():
                loss = loss_of(network(seen).squeeze(-1), chosen_targets).item()
            if loss < best:
                best = loss
                kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.export(examples, model)
