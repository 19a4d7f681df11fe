"""The completions that the study scores: of full models, fixed exits, agents and caches, all on the same samples."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eelib.data.corpus import CodeFile, split_of
from eelib.data.samples import Sample, evaluation_samples
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FullDepth
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.sweep import Setting, predictions
from eelib.models.loading import CodeModel, device, load_model, load_tokenizer
from eelib.models.parts import ModelParts, take_apart
from eelib.profile import Context, EpochStudy

CACHES = (
    CacheMode.PROPAGATE,
    *[mode for mode in CacheMode if mode not in (CacheMode.NONE, CacheMode.PROPAGATE)],
)


def test_samples(
    corpus: list[CodeFile],
    tokenizer: PreTrainedTokenizerBase,
    context_fraction: float,
    samples: int,
    context: Context,
) -> tuple[list[Sample], int]:
    """The first `samples` evaluation samples of the test files, and how many files were passed over."""
    return evaluation_samples(split_of(corpus, "test"), tokenizer, context_fraction, samples, context)


def full_predictions(
    tuned: CodeModel, corpus: list[CodeFile], context_fraction: float, samples: int, context: Context
) -> pd.DataFrame:
    """A model at full depth: rows of `sweep.predictions` and the sample's `project`."""
    return _predicted(tuned, corpus, [Setting("full", FullDepth())], context_fraction, samples, context)


def agent_predictions(
    tuned: CodeModel,
    corpus: list[CodeFile],
    agents: dict[int, ExitPolicy],
    thresholds: list[float],
    temperature: float,
    context_fraction: float,
    samples: int,
    context: Context,
) -> pd.DataFrame:
    """Every agent, by its seed, at some thresholds, without a cache: rows as of `full_predictions`, and `kind`."""
    settings = [
        setting
        for seed, policy in agents.items()
        for setting in agent_settings(policy, thresholds, temperature, seed)
    ]
    rows = _predicted(tuned, corpus, settings, context_fraction, samples, context)
    return rows.assign(kind="aggregated")


def cached_predictions(
    tuned: CodeModel,
    corpus: list[CodeFile],
    agent: ExitPolicy,
    thresholds: list[float],
    temperature: float,
    context_fraction: float,
    samples: int,
    context: Context,
) -> pd.DataFrame:
    """The full model and an agent with a key-value cache, see `cached_settings`: rows as of `full_predictions`."""
    settings = cached_settings(agent, thresholds, temperature)
    return _predicted(tuned, corpus, settings, context_fraction, samples, context)


def fixed_exit_predictions(
    tuned: CodeModel, corpus: list[CodeFile], context_fraction: float, samples: int, context: Context
) -> pd.DataFrame:
    """Always leaving at one layer, for every layer (Figure 4.10): rows as of `full_predictions`; `threshold` is the layer."""
    settings = layer_settings(tuned.parts)
    return _predicted(tuned, corpus, settings, context_fraction, samples, context)


def epoch_predictions(
    tuned: Path,
    corpus: list[CodeFile],
    model: str,
    step: int,
    epoch_study: EpochStudy,
    context: Context,
    dtype: str,
) -> pd.DataFrame:
    """Every layer of a model after `step` steps of its fine-tuning, 0 for the base (Figure 4.8).

    Parameters
    ----------
    tuned: folder of the fine-tuned model and its snapshots.
    """
    snapshot = tuned / f"snapshot-{step}"  # the finished model has none
    name = model if step == 0 else str(snapshot if snapshot.exists() else tuned / "model")
    at_step = CodeModel(
        take_apart(load_model(name, getattr(torch, dtype)).to(device())), load_tokenizer(model)
    )
    # More new tokens than elsewhere: the context gives way where the model's positions end.
    longest = min(context.max_tokens, at_step.parts.max_positions - epoch_study.new_tokens)
    context = replace(context, max_tokens=longest, new_tokens=epoch_study.new_tokens)
    return fixed_exit_predictions(at_step, corpus, epoch_study.context_fraction, epoch_study.samples, context)


def _predicted(
    tuned: CodeModel,
    corpus: list[CodeFile],
    settings: list[Setting],
    context_fraction: float,
    samples: int,
    context: Context,
) -> pd.DataFrame:
    chosen, _ = test_samples(corpus, tuned.tokenizer, context_fraction, samples, context)
    rows = predictions(tuned.parts, tuned.tokenizer, chosen, settings, context.new_tokens)
    return rows.assign(project=rows["sample"].map(projects_of(corpus)))


def projects_of(corpus: list[CodeFile]) -> dict[str, str]:
    """The project of every file, by the file's id, which is a sample's."""
    return {file.id: file.project for file in corpus}


def agent_settings(
    policy: ExitPolicy,
    thresholds: list[float],
    temperature: float,
    seed: int = 0,
    cache: CacheMode = CacheMode.NONE,
) -> list[Setting]:
    """An agent at some thresholds."""
    return [
        Setting("agent", Agent(policy, threshold, temperature), threshold, seed, cache)
        for threshold in thresholds
    ]


def cached_settings(policy: ExitPolicy, thresholds: list[float], temperature: float) -> list[Setting]:
    """The full model with its cache, and an agent: with propagation at all thresholds, other caches at the middle one."""
    settings = [Setting("full", FullDepth(), cache=CacheMode.PROPAGATE)]
    for mode in CACHES:
        chosen = thresholds if mode is CacheMode.PROPAGATE else [middle(thresholds)]
        settings += agent_settings(policy, chosen, temperature, cache=mode)
    return settings


def middle(thresholds: list[float]) -> float:
    """The middle one: where all caches are compared, and what the endpoint is shown at."""
    return thresholds[len(thresholds) // 2]


def layer_settings(parts: ModelParts) -> list[Setting]:
    """Always leaving at one layer, for every layer. Deeper ones do not run, so that agreement with the last is not known."""
    layers = range(1, parts.total_layers + 1)
    return [Setting("fixed", FullDepth(), threshold=float(layer), depth=layer) for layer in layers]


def samples_row(
    corpus: list[CodeFile],
    tokenizer: PreTrainedTokenizerBase,
    context_fraction: float,
    samples: int,
    context: Context,
) -> dict[str, int]:
    """`samples`, and `dropped`: files passed over for want of a full reference."""
    chosen, dropped = test_samples(corpus, tokenizer, context_fraction, samples, context)
    return {"samples": len(chosen), "dropped": dropped}
