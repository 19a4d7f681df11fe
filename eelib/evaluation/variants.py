"""Other rewards, coefficients and observations, one agent each, in one setting."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from eelib.evaluation.frontier import Frontier
from eelib.evaluation.offline import probabilities
from eelib.models.parts import ModelParts
from eelib.profile import Reinforcement
from eelib.rl.agent import coefficients_for, one_thread, train_agent
from eelib.rl.rollouts import Rollouts
from eelib.training.tuned import load_tuned

# What each variant changes of the profile's configuration; beta is also the reward's gamma.
VARIANTS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "alpha 0.1": {"alpha": 0.1},
    "alpha 1, beta and gamma 1": {"alpha": 1.0, "beta_java": 1.0, "beta_python": 1.0},
    "alpha, beta and gamma 0.5": {"alpha": 0.5, "beta_java": 0.5, "beta_python": 0.5},
    "discount 0.99": {"gamma": 0.99},
    "no entropy bonus": {"entropy_coefficient": 0.0},
    "no noise": {"observation_noise": 0.0},
    "discount 0.99, no entropy bonus, no noise": {
        "gamma": 0.99,
        "entropy_coefficient": 0.0,
        "observation_noise": 0.0,
    },
    "position-scaled reward": {"reward": "position-scaled"},
    "expected-cost reward, discount 1": {"reward": "expected-cost", "gamma": 1.0},
    "normed observations": {},
}
NORMED = "normed observations"


def variant(
    rollouts: Rollouts,
    prefixes: Rollouts,
    unseen: Rollouts,
    tuned: Path,
    language: str,
    variant: str,
    reinforcement: Reinforcement,
    temperature: float,
    dtype: str,
) -> pd.DataFrame:
    """One agent of a variant, seed 0, trained on `rollouts` and `prefixes`: what it recovers on unseen ones.

    Returns
    -------
    One row: `reward` (mean a step at the end of training), and `share` over all depths with its interval, `low` and `high`.
    """
    config, rollouts = replace(reinforcement, **VARIANTS[variant]), rollouts.joined(prefixes)
    if variant == NORMED:
        parts = load_tuned(tuned, dtype).parts
        rollouts, unseen = (replace(item, states=_normed(item, parts)) for item in (rollouts, unseen))
    with one_thread():
        policy, log = train_agent(rollouts, coefficients_for(language, config), config, 0, tuned.name)
    frontier = Frontier(unseen)
    curve = frontier.whole_curve(probabilities(unseen, policy, temperature))
    interval = frontier.interval(
        lambda prompts: frontier.recovered_area([curve], prompts, frontier.best_fixed)
    )
    row = {"reward": log["reward"].tail(len(log) // 10 + 1).mean(), "share": interval.mean}
    return pd.DataFrame([row | {"low": interval.low, "high": interval.high}])


@torch.inference_mode()
def _normed(recorded: Rollouts, parts: ModelParts) -> np.ndarray:
    """The states as the model's head would read them: after its final norm."""
    states = torch.tensor(recorded.states, device=parts.device, dtype=parts.model.dtype)
    return parts.norm(states).float().cpu().numpy()
