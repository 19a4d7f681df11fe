"""What notebooks 04 and 06 compute from agents and rollouts, by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from eelib.decoding.cache import KeyValueCache
from eelib.decoding.policy import ExitPolicy
from eelib.pipeline import observations
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


def test_the_layer_of_table_5_1_attends_to_the_profiles_context(parts, monkeypatch, tmp_path):
    attended = []
    update = KeyValueCache.update

    def spy(self, keys, values, layer):
        held = update(self, keys, values, layer)
        attended.append(held[0].shape[2])
        return held

    monkeypatch.setattr(KeyValueCache, "update", spy)
    with torch.inference_mode():
        layer = observations.candidates(parts, 17)[observations.LAYER]
        for _ in range(2):
            layer(torch.zeros(1, parts.width))
    assert attended == [18, 18]  # and its own
    rows = {"Hidden State of current layer": 1.0, "Confidence": 7.0, observations.LAYER: 3.0}
    measured = pd.DataFrame({"method": rows.keys(), "microseconds": rows.values(), "joules": np.nan})
    measured.to_parquet(tmp_path / "costs.parquet")
    monkeypatch.setattr(observations, "observation_cost", lambda *_: SimpleNamespace(path=tmp_path))
    study = SimpleNamespace(profile=SimpleNamespace(context=SimpleNamespace(max_tokens=17)))
    table = observations.observation_frame(study, "model", "java").set_index("observation")
    assert table.loc["Confidence", "of_a_layer"] == pytest.approx(3.0)  # (7 - 1) / (3 - 1)
    assert set(table["cached_positions"]) == {17}
