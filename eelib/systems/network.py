"""Networks of several outputs, by the recipe of all policies (`rl/perceptron.py`)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.rl.perceptron import Examples, Perceptron, Recipe, descend
from eelib.rl.rollouts import Rollouts

UNKNOWN = -100  # a label that is not learnt


@dataclass(frozen=True)
class Classifier:
    """K classes at every exit point it was fitted to."""

    network: Perceptron
    moments: tuple[Tensor, Tensor]

    @torch.no_grad()
    def probabilities(self, rollouts: Rollouts) -> np.ndarray:
        """(N, T, E, K) float32."""
        states = Examples(rollouts, self.moments).states
        found = self.network(states).softmax(-1)
        return found.reshape(*rollouts.states.shape[:3], -1).numpy()

    @property
    def flops(self) -> int:
        """Of a decision: two an entry of the weight matrices."""
        return 2 * sum(layer.weight.numel() for layer in self.network.layers)


def classify(rollouts: Rollouts, labels: Tensor, outputs: int, seed: int, recipe: Recipe) -> Classifier:
    """Fit classes (M, E) int64 at all exit points of all tokens by cross-entropy; `UNKNOWN` ones are left out."""
    examples, generator = Examples(rollouts), torch.Generator().manual_seed(seed)
    network = Perceptron(examples.states.shape[-1], recipe, outputs, generator)

    def loss_of(rows: Tensor, noisy: Tensor) -> Tensor:
        return F.cross_entropy(network(noisy).flatten(0, 1), labels[rows].flatten(), ignore_index=UNKNOWN)

    for _ in descend(network, examples, recipe, generator, loss_of):
        pass
    return Classifier(network, examples.moments)
