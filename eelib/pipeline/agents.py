"""Stages of notebook 04: rollouts and agents."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eelib.data.samples import random_prompts
from eelib.decoding.policy import ExitPolicy, load_policy
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.models import device, fine_tuned, load_kind
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import Study
from eelib.rl.agent import coefficients_for, train_agent
from eelib.rl.rollouts import Rollouts, load_rollouts, record
from eelib.study.stages import Artifact, Stage

SPLITS = ("train", "test")


def rollouts(study: Study, model: str, language: str, split: str) -> Artifact:
    """Rollouts of the fine-tuned model on prompts from one split: `rollouts.safetensors`."""
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    rl = study.profile.reinforcement
    count = {"train": rl.train_prompts, "test": rl.test_prompts}[split]
    stage = Stage(
        f"rollouts/{model}-{language}-{split}",
        layer="rl",
        config={"split": split, "prompts": count, "dtype": study.profile.dtype}
        | study.profile.section("context"),
        inputs=(data, tuned),
    )

    def make_rollouts(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        context = study.profile.context
        prompts = random_prompts(files_of(data, split), tokenizer, count, context, seed=0)
        record(parts, prompts, context.new_tokens).save(folder / "rollouts.safetensors")

    return study.stage(stage, "04", make_rollouts)


def read_rollouts(artifact: Artifact) -> Rollouts:
    """The rollouts of an artifact."""
    return load_rollouts(artifact.path / "rollouts.safetensors")


def agent(study: Study, model: str, language: str, seed: int) -> Artifact:
    """One PPO agent: `policy.safetensors`, `policy.json`, and `log.parquet` with one row an episode."""
    recorded = rollouts(study, model, language, "train")
    tuned = fine_tuned(study, model, language)
    rl = study.profile.reinforcement
    coefficients = coefficients_for(language, rl)
    config = study.profile.section("reinforcement")["reinforcement"]
    unused = ("seeds", "beta_java", "beta_python", "train_prompts", "test_prompts")
    stage = Stage(
        f"agent/{model}-{language}-seed{seed}",
        layer="rl",
        config={name: value for name, value in config.items() if name not in unused}
        | {"seed": seed, "coefficients": dataclasses.asdict(coefficients)},
        inputs=(recorded, tuned),
    )

    def train(folder: Path) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so small a network is faster without
        policy, log = train_agent(read_rollouts(recorded), coefficients, rl, seed, model=tuned.key)
        torch.set_num_threads(threads)
        policy.save(folder)
        log.to_parquet(folder / "log.parquet", index=False)

    return study.stage(stage, "04", train)


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
    return pd.concat(frames, ignore_index=True)


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
    """`model`, `language`, `layer`, `count` of the optimal exits in the training rollouts (Figure 6.3)."""
    rows = []
    for model, language in study.settings:
        recorded = read_rollouts(rollouts(study, model, language, "train"))
        for layer in [*recorded.exit_points, recorded.total_layers]:
            count = int((recorded.optimal_exits == layer).sum())
            rows.append({"model": model, "language": language, "layer": layer, "count": count})
    return pd.DataFrame(rows)


def exits_on(recorded: Rollouts, policy: ExitPolicy, threshold: float, temperature: float) -> np.ndarray:
    """Index of the exit point each recorded token would leave at, (N, T) int64; E stands for the last layer."""
    states = torch.from_numpy(recorded.states)
    probability = policy.probability(states.flatten(0, -2).to(device()), temperature).cpu()
    probability = probability.view(states.shape[:-1]).numpy()
    exits = probability > threshold
    return np.where(exits.any(-1), exits.argmax(-1), exits.shape[-1])


def agent_exit_frame(
    study: Study, model: str, language: str, threshold: float, seed: int = 0
) -> pd.DataFrame:
    """`layer`, `exits`, `matches` of an agent on unseen rollouts: how many of its exits agree with the last layer."""
    recorded = read_rollouts(rollouts(study, model, language, "test"))
    policy = policy_of(study, model, language, seed)
    index = exits_on(recorded, policy, threshold, study.profile.evaluation.temperature)
    always = np.ones((*recorded.last.shape, 1), dtype=bool)
    matches = np.take_along_axis(np.concatenate([recorded.correct, always], -1), index[..., None], -1)[..., 0]
    rows = []
    for point, layer in enumerate([*recorded.exit_points, recorded.total_layers]):
        here = index == point
        rows.append({"layer": layer, "exits": int(here.sum()), "matches": int(matches[here].sum())})
    return pd.DataFrame(rows).assign(model=model, language=language, threshold=threshold)


def frontier(study: Study, model: str, language: str) -> pd.DataFrame:
    """Agreement with the last layer against mean layers on unseen rollouts: fixed exits, every agent, and the oracle.

    Columns: `series` ("fixed", "agent", "oracle"), `seed`, `threshold` (of a fixed exit its layer), `mean_layers`,
    `agreement`.
    """
    recorded = read_rollouts(rollouts(study, model, language, "test"))
    layers = np.array([*recorded.exit_points, recorded.total_layers])
    correct = np.concatenate([recorded.correct, np.ones((*recorded.last.shape, 1), dtype=bool)], -1)

    def row(series: str, index: np.ndarray, seed: int = -1, threshold: float = np.nan) -> dict:
        agreement = np.take_along_axis(correct, index[..., None], -1).mean()
        return {
            "series": series,
            "seed": seed,
            "threshold": threshold,
            "mean_layers": layers[index].mean(),
            "agreement": agreement,
        }

    rows = [
        row("fixed", np.full(recorded.last.shape, point), threshold=layer)
        for point, layer in enumerate(layers)
    ]
    evaluation = study.profile.evaluation
    for seed, _ in agents(study, model, language):
        policy = policy_of(study, model, language, seed)
        for threshold in evaluation.thresholds:
            index = exits_on(recorded, policy, threshold, evaluation.temperature)
            rows.append(row("agent", index, seed, threshold))
    oracle = np.searchsorted(layers, recorded.optimal_exits)
    rows.append(row("oracle", oracle))
    return pd.DataFrame(rows).assign(model=model, language=language)
