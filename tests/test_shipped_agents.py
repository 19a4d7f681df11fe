"""Agents that ship: they belong to the model as it ships, their card is their records', and promises are kept small."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eelib import paths
from eelib.decoding.policy import ExitPolicy, load_policy
from eelib.errors import InputError
from eelib.models.loading import fingerprint, load_config
from eelib.report.agent_card import card
from eelib.rl.rollouts import Rollouts
from eelib.server.artifacts import of_shipped

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import ship_agents

FOLDERS = sorted(path.parent for path in paths.MODELS.glob("*/agents/README.md"))


def recorded(prompts: int) -> Rollouts:
    """One-dimensional states, 1 where the first exit is right and -1 where it is not, as in a tenth of the tokens."""
    right = np.arange(prompts * 10).reshape(prompts, 10, 1) % 10 != 0
    states = np.where(right, 1.0, -1.0).astype(np.float32)[..., None]
    last = np.full((prompts, 10), 7)
    return Rollouts(states, np.where(right, 7, 3), np.zeros(right.shape, np.float32), last, [4], 8)


def knowing(margin: float) -> ExitPolicy:
    """Log-odds of `margin` times the state."""
    weight = torch.tensor([[0.0], [margin]])
    return ExitPolicy([weight], [torch.zeros(2)], "model")


def test_a_policy_that_knows_promises_what_so_many_prompts_allow():
    """80 prompts are enough for 5%, of which 59 are needed, and too few for 2%."""
    few, some, more = ship_agents.promised(recorded(80), knowing(3.0))
    assert few == {"tolerated": 0.02, "threshold": None, "depth": 1.0}
    for row in (some, more):
        assert row["threshold"] == pytest.approx(0.3) and row["depth"] == pytest.approx(0.9 * 0.5 + 0.1)


def test_a_policy_that_always_leaves_promises_full_depth():
    blind = ExitPolicy([torch.zeros(2, 1)], [torch.tensor([0.0, 6.0])], "model")
    assert {row["threshold"] for row in ship_agents.promised(recorded(80), blind)} == {None}


def test_a_model_without_agents_is_named():
    with pytest.raises(InputError, match="The model is 'opt-pico': allowed are"):
        of_shipped("opt-pico", "java")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_agents_are_of_the_model_that_ships_and_the_card_is_their_records(folder):
    model, languages = folder.parent.name, ("java", "python")
    records = {
        language: json.loads((folder / language / "record.json").read_text()) for language in languages
    }
    for language in languages:
        policy = load_policy(folder / language, fingerprint(f"{model}+aggregated"))
        assert policy.width == load_config(model).hidden_size
        assert of_shipped(model, language).agent == folder / language
    assert (folder / "README.md").read_text() == card(model, records)
