"""Stages of notebook 04: rollouts and agents."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from eelib.data.samples import random_prompts
from eelib.decoding.policy import ExitPolicy, load_policy
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.models import device, fine_tuned, load_kind
from eelib.pipeline.parallel import one_thread, side_by_side
from eelib.pipeline.study import Study
from eelib.rl.agent import coefficients_for, train_agent
from eelib.rl.rollouts import Rollouts, load_rollouts, record
from eelib.study.profile import Reinforcement
from eelib.study.stages import Artifact, Stage

SPLITS = ("train", "test")


def rollouts(study: Study, model: str, language: str, split: str) -> Artifact:
    """Rollouts of the fine-tuned model on prompts from one split: `rollouts.safetensors`, `states.npy`."""
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    rl = study.profile.reinforcement
    count = {"train": rl.train_prompts, "test": rl.test_prompts}[split]
    stage = Stage(
        f"rollouts/{model}-{language}-{split}",
        layer="rl",
        config={
            "split": split,
            "prompts": count,
            "dtype": study.profile.dtype,
            "states_dtype": rl.states_dtype,
        }
        | study.profile.section("context"),
        inputs=(data, tuned),
    )

    def make_rollouts(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        context = study.profile.context
        prompts = random_prompts(files_of(data, split), tokenizer, count, context, seed=0)
        record(parts, prompts, context.new_tokens, dtype=rl.states_dtype, folder=folder).save(folder)

    return study.stage(stage, "04", make_rollouts)


def read_rollouts(artifact: Artifact) -> Rollouts:
    """The rollouts of an artifact."""
    return load_rollouts(artifact.path)


def agent(study: Study, model: str, language: str, seed: int) -> Artifact:
    """One PPO agent: `policy.safetensors`, `policy.json`, `log.parquet` with one row an episode, and `tensorboard/`."""
    recorded = rollouts(study, model, language, "train")
    tuned = fine_tuned(study, model, language)
    rl = study.profile.reinforcement
    coefficients = coefficients_for(language, rl)
    stage = Stage(
        f"agent/{model}-{language}-seed{seed}",
        layer="rl",
        config=training_config(rl) | {"seed": seed, "coefficients": dataclasses.asdict(coefficients)},
        inputs=(recorded, tuned),
    )

    def train(folder: Path) -> None:
        with one_thread():
            policy, log = train_agent(
                read_rollouts(recorded), coefficients, rl, seed, tuned.key, folder / "tensorboard"
            )
        policy.save(folder)
        log.to_parquet(folder / "log.parquet", index=False)

    return study.stage(stage, "04", train)


def training_config(rl: Reinforcement) -> dict:
    """The fields that a single agent's training depends on, for the configuration of its stage."""
    others = ("seeds", "beta_java", "beta_python", "train_prompts", "test_prompts", "states_dtype")
    return {name: value for name, value in dataclasses.asdict(rl).items() if name not in others}


def agents(study: Study, model: str, language: str) -> list[tuple[int, Artifact]]:
    """(seed, agent) of every seed of the profile."""
    return [(seed, agent(study, model, language, seed)) for seed in range(study.profile.reinforcement.seeds)]


def all_rollouts(study: Study) -> list[Artifact]:
    """Training and test rollouts of all settings, recorded side by side."""
    return side_by_side(
        study, rollouts, [(*setting, split) for setting in study.settings for split in SPLITS]
    )


def all_agents(study: Study) -> list[Artifact]:
    """Every agent of every setting, trained side by side."""
    seeds = range(study.profile.reinforcement.seeds)
    return side_by_side(study, agent, [(*setting, seed) for setting in study.settings for seed in seeds])


def policy_of(study: Study, model: str, language: str, seed: int) -> ExitPolicy:
    """The policy of an agent, checked to belong to the fine-tuned model."""
    artifact = agent(study, model, language, seed)
    return load_policy(artifact.path, model=fine_tuned(study, model, language).key).to(device())


def reward_frame(study: Study) -> pd.DataFrame:
    """One row an episode: `model`, `language`, `seed`, `episode`, `reward` (mean a step), `length`, `steps`."""
    frames = []
    for model, language in study.settings:
        for seed, artifact in agents(study, model, language):
            log = pd.read_parquet(artifact.path / "log.parquet")
            frames.append(log.assign(model=model, language=language, seed=seed))
    frame = pd.concat(frames, ignore_index=True)
    return frame[["model", "language", "seed", "episode", "reward", "length", "steps"]]


def convergence(frame: pd.DataFrame) -> pd.DataFrame:
    """How far a reward curve still moves at its end, for each agent of `reward_frame`.

    Columns: `first` and `last` (mean reward of the first and last tenth of the episodes), `drift` (last tenth less the
    tenth before), and `noise` (standard error of that difference): a drift within two of it is flat.
    """
    rows = []
    for keys, log in frame.groupby(["model", "language", "seed"], sort=False):
        tenths = np.array_split(log["reward"].to_numpy(), 10)
        before, last = tenths[-2], tenths[-1]
        noise = np.sqrt(before.var(ddof=1) / len(before) + last.var(ddof=1) / len(last))
        rows.append(
            dict(zip(["model", "language", "seed"], keys, strict=True))
            | {
                "first": tenths[0].mean(),
                "last": last.mean(),
                "drift": last.mean() - before.mean(),
                "noise": noise,
            }
        )
    return pd.DataFrame(rows)


def optimal_exit_frame(study: Study) -> pd.DataFrame:
    """How often each layer was the optimal exit: `model`, `language`, `layer`, `tokens`, `decisions` (Figure 6.3).

    `tokens` of the training rollouts, each once; `decisions` that all agents took in training on such tokens.
    """
    rows = []
    for model, language in study.settings:
        recorded = read_rollouts(rollouts(study, model, language, "train"))
        logs = [
            pd.read_parquet(artifact.path / "log.parquet") for _, artifact in agents(study, model, language)
        ]
        for layer in recorded.stops.tolist():
            row = {"model": model, "language": language, "layer": layer}
            row["tokens"] = int((recorded.optimal_exits == layer).sum())
            row["decisions"] = sum(int(log[f"optimal_{layer}"].sum()) for log in logs)
            rows.append(row)
    return pd.DataFrame(rows)
