"""The supervised rival of PPO: a classifier that says whether an exit's token is the last layer's.

A recorded rollout holds the outcome of every exit, so nothing has to be tried out: where PPO samples rewards, a probe of the same
size is fitted to all of them by binary cross-entropy. It exports to the same `ExitPolicy` and costs the same.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.decoding.policy import ExitPolicy
from eelib.rl.perceptron import Best, Examples, Perceptron, Recipe, descend, per_token
from eelib.rl.rollouts import Rollouts

RECIPE = Recipe(steps=2000)


def train_probe(
    rollouts: Rollouts, chosen: Rollouts, seed: int, model: str, recipe: Recipe = RECIPE
) -> ExitPolicy:
    """Fit a probe to all exits of all tokens, and keep its state of the least loss on `chosen`.

    Parameters
    ----------
    chosen: of validation prompts.
    model: fingerprint of the model the states come from, kept with the policy.
    """
    right = (per_token(recorded.correct) for recorded in (rollouts, chosen))
    return fit(rollouts, chosen, *right, F.binary_cross_entropy_with_logits, seed, model, recipe)


def fit(
    rollouts: Rollouts,
    chosen: Rollouts,
    targets: Tensor,
    chosen_targets: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    model: str,
    recipe: Recipe = RECIPE,
) -> ExitPolicy:
    """Fit a single output, the policy's margin, to a target at every exit of every token, (M, E) float32."""
    examples, generator = Examples(rollouts), torch.Generator().manual_seed(seed)
    seen = Examples(chosen, examples.moments).states
    network = Perceptron(seen.shape[-1], recipe, 1, generator)
    best = Best(network, recipe.steps)
    steps = descend(
        network,
        examples,
        recipe,
        generator,
        lambda rows, noisy: loss_of(network(noisy).squeeze(-1), targets[rows]),
    )

    @torch.no_grad()
    def loss_on_seen() -> float:
        return loss_of(network(seen).squeeze(-1), chosen_targets).item()

    for step in steps:
        best.offer(step, loss_on_seen)
    return best.kept.export(examples, model)
