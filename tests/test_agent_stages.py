"""What notebooks 04 and 06 compute from agents and rollouts, by hand."""

import numpy as np
import torch

from eelib.decoding.policy import ExitPolicy
from eelib.pipeline.frontier import probabilities
from eelib.rl.rollouts import Rollouts


def rollouts(states: np.ndarray) -> Rollouts:
    """Of a model with exit points 4, 6 and 10 of 12 layers, right everywhere."""
    shape = states.shape[:-1]
    return Rollouts(
        states=states,
        predictions=np.full(shape, 7),
        confidences=np.zeros(shape, np.float32),
        last=np.full(shape[:2], 7),
        exit_points=[4, 6, 10],
        total_layers=12,
    )


def test_a_policy_on_the_cpu_is_asked_there_on_a_machine_with_a_gpu(monkeypatch):
    """Notebook 04's variants load theirs there, while the model decodes on the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    policy = ExitPolicy([torch.tensor([[0.0, 0.0], [1.0, 0.0]])], [torch.zeros(2)], "fingerprint")
    states = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32)
    found = probabilities(rollouts(states), policy, temperature=2.0)
    # A single layer, whose margin is the first coordinate.
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-states[..., 0] / 2)), rtol=1e-5)
