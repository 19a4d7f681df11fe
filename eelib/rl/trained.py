"""Rollouts and agents of the study, and how the agents' training went."""

from pathlib import Path

import numpy as np
import pandas as pd

from eelib.data.corpus import CodeFile, split_of
from eelib.data.samples import random_prompts, random_windows
from eelib.decoding.policy import ExitPolicy, load_policy
from eelib.models.loading import CodeModel, device
from eelib.profile import Context, Reinforcement
from eelib.rl.agent import coefficients_for, one_thread, train_agent
from eelib.rl.perceptron import Recipe
from eelib.rl.probe import train_probe
from eelib.rl.rollouts import Rollouts, record, record_prefixes


def record_rollouts(
    corpus: list[CodeFile],
    tuned: CodeModel,
    split: str,
    prompts: int,
    states_dtype: str,
    context: Context,
    folder: Path,
) -> None:
    """Rollouts of a model on prompts from one split: `rollouts.safetensors`, `states.npy`."""
    drawn = random_prompts(split_of(corpus, split), tuned.tokenizer, prompts, context, seed=0)
    record(tuned.parts, drawn, context.new_tokens, dtype=states_dtype, folder=folder).save(folder)


def keep_prefixes(
    corpus: list[CodeFile],
    tuned: CodeModel,
    prefix_windows: int,
    states_dtype: str,
    context: Context,
    folder: Path,
) -> None:
    """What a model makes of windows of training files, in episodes as long as a rollout: the same files as `record_rollouts`."""
    windows = random_windows(split_of(corpus, "train"), tuned.tokenizer, prefix_windows, context, seed=1)
    record_prefixes(tuned.parts, windows, context.new_tokens, states_dtype).save(folder)


def train(
    rollouts: Rollouts,
    prefixes: Rollouts,
    tuned_key: str,
    language: str,
    seed: int,
    reinforcement: Reinforcement,
    folder: Path,
) -> None:
    """One PPO agent: `policy.safetensors`, `policy.json`, `log.parquet` with one row an episode, and `tensorboard/`."""
    coefficients, episodes = coefficients_for(language, reinforcement), rollouts.joined(prefixes)
    with one_thread():
        policy, log = train_agent(
            episodes, coefficients, reinforcement, seed, tuned_key, folder / "tensorboard"
        )
    policy.save(folder)
    log.to_parquet(folder / "log.parquet", index=False)


def fit_probe(
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
    tuned_key: str,
    seed: int,
    probe_steps: int,
    folder: Path,
) -> None:
    """One supervised probe: `policy.safetensors`, `policy.json`."""
    with one_thread():
        train_probe(rollouts.joined(prefixes), chosen, seed, tuned_key, Recipe(steps=probe_steps)).save(
            folder
        )


def load_agent(folder: Path) -> ExitPolicy:
    """The policy of an agent or a probe, where models decode."""
    return load_policy(folder).to(device())


def rewards(log: pd.DataFrame) -> pd.DataFrame:
    """An agent's log without its optimal exits: a row an episode, `episode`, `reward` (mean a step), `length`, `steps`."""
    return log.drop(columns=[column for column in log if column.startswith("optimal_")])


def convergence(frame: pd.DataFrame) -> pd.DataFrame:
    """How far a reward curve still moves at its end, for each agent: of rows of `rewards`, with `model`, `language`, `seed`.

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


def optimal_exits(rollouts: Rollouts, logs: list[pd.DataFrame]) -> pd.DataFrame:
    """How often each layer was the optimal exit: `layer`, `tokens`, `decisions` (Figure 6.3).

    `tokens` of the training rollouts, each once; `decisions` that all agents, by their logs, took in training on such tokens.
    """
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "tokens": int((rollouts.optimal_exits == layer).sum()),
                "decisions": sum(int(log[f"optimal_{layer}"].sum()) for log in logs),
            }
            for layer in rollouts.stops.tolist()
        ]
    )
