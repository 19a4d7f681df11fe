"""Stages of notebook 04: other rewards, coefficients and observations, one agent each, in one setting."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from eelib.decoding.policy import load_policy
from eelib.evaluation.frontier import Frontier
from eelib.models.parts import ModelParts
from eelib.pipeline.agents import read_rollouts, rollouts, training_config
from eelib.pipeline.frontier import probabilities
from eelib.pipeline.models import fine_tuned, load_kind
from eelib.pipeline.parallel import one_thread, side_by_side
from eelib.pipeline.study import Study
from eelib.rl.agent import coefficients_for, train_agent
from eelib.rl.rollouts import Rollouts
from eelib.study.stages import Artifact, Stage

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


def variant(study: Study, model: str, language: str, name: str) -> Artifact:
    """One agent of a variant, seed 0: its policy, and `shares.parquet` with what it recovers on unseen rollouts."""
    train_set, test_set = (rollouts(study, model, language, split) for split in ("train", "test"))
    tuned = fine_tuned(study, model, language)
    config = replace(study.profile.reinforcement, **VARIANTS[name])
    coefficients = coefficients_for(language, config)
    stage = Stage(
        f"variant/{model}-{language}-{name.replace(' ', '_').replace(',', '')}",
        layer="evaluation",
        config=training_config(config)
        | {"normed": name == NORMED, "coefficients": dataclasses.asdict(coefficients)}
        | {"temperature": study.profile.evaluation.temperature},
        inputs=(train_set, test_set, tuned),
    )

    def train(folder: Path) -> None:
        train_rollouts, test_rollouts = read_rollouts(train_set), read_rollouts(test_set)
        if name == NORMED:
            parts, _ = load_kind(study, model, language, "aggregated")
            train_rollouts, test_rollouts = (
                replace(recorded, states=_normed(recorded, parts))
                for recorded in (train_rollouts, test_rollouts)
            )
        with one_thread():
            policy, log = train_agent(train_rollouts, coefficients, config, seed=0, model=tuned.key)
        policy.save(folder)
        frontier = Frontier(test_rollouts)
        curve = frontier.whole_curve(
            probabilities(test_rollouts, load_policy(folder, tuned.key), study.profile.evaluation.temperature)
        )
        interval = frontier.interval(
            lambda prompts: frontier.recovered_area([curve], prompts, frontier.best_fixed)
        )
        row = {
            "variant": name,
            "reward": log["reward"].tail(len(log) // 10 + 1).mean(),
            "share": interval.mean,
        }
        row |= {"low": interval.low, "high": interval.high}
        pd.DataFrame([row]).to_parquet(folder / "shares.parquet", index=False)

    return study.stage(stage, "04", train)


@torch.inference_mode()
def _normed(recorded: Rollouts, parts: ModelParts) -> np.ndarray:
    """The states as the model's head would read them: after its final norm."""
    states = torch.tensor(recorded.states, device=parts.device, dtype=parts.model.dtype)
    return parts.norm(states).float().cpu().numpy()


def all_variants(study: Study) -> list[Artifact]:
    """Every variant in the study's first setting, side by side."""
    return side_by_side(study, variant, [(*study.settings[0], name) for name in VARIANTS])


def variants_frame(study: Study) -> pd.DataFrame:
    """`variant`, `reward` (mean a step at the end of training), and the recovered share over all depths with its interval."""
    artifacts = [variant(study, *study.settings[0], name) for name in VARIANTS]
    return pd.concat(
        [pd.read_parquet(artifact.path / "shares.parquet") for artifact in artifacts], ignore_index=True
    )
