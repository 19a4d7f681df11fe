"""Stages of notebook 05: evaluation over thresholds, and what the later ones share with it."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from eelib.data.samples import Sample, evaluation_samples
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FullDepth
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings, timings
from eelib.models.loading import fingerprint, load_config, load_tokenizer
from eelib.models.parts import ModelParts
from eelib.pipeline.agents import agent, agents, policy_of
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.models import KINDS, fine_tuned, load_kind
from eelib.pipeline.parallel import is_made, side_by_side
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage

WATT_HOUR = 3600.0  # joules


def agent_settings(
    study: Study,
    model: str,
    language: str,
    seeds: list[int],
    cache: CacheMode = CacheMode.NONE,
    thresholds: list[float] | None = None,
) -> list[Setting]:
    """The agent at some thresholds, those of the profile by default."""
    evaluation = study.profile.evaluation
    thresholds = evaluation.thresholds if thresholds is None else thresholds
    return [
        Setting("agent", Agent(policy, threshold, evaluation.temperature), threshold, seed, cache)
        for seed in seeds
        for policy in [policy_of(study, model, language, seed)]
        for threshold in thresholds
    ]


def chosen_samples(
    study: Study, language: str, tokenizer: PreTrainedTokenizerBase, fraction: float, count: int | None = None
) -> tuple[list[Sample], int]:
    """The first `count` evaluation samples (all of the profile's by default), and how many files were passed over."""
    tests = files_of(corpus(study, language), "test")
    count = count or study.profile.evaluation.samples
    return evaluation_samples(tests, tokenizer, fraction, count, study.profile.context)


def evaluations(study: Study, model: str, language: str, fraction: float) -> list[Artifact]:
    """Predictions of one setting and context, `predictions.parquet` each: of the models at full depth, and of every threshold.

    A threshold is an artifact of its own, so that one more costs only its own decoding; those that are missing share one
    prefill.
    """
    thresholds = study.profile.evaluation.thresholds

    @functools.cache
    def decoded() -> pd.DataFrame:
        missing = [
            threshold
            for threshold in thresholds
            if study.force
            or not is_made(study, _agent_evaluation, model, language, fraction, threshold, decoded)
        ]
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = chosen_samples(study, language, tokenizer, fraction)
        seeds = [seed for seed, _ in agents(study, model, language)]
        settings = agent_settings(study, model, language, seeds, thresholds=missing)
        return predictions(parts, tokenizer, samples, settings, study.profile.context.new_tokens)

    references = _reference_evaluation(study, model, language, fraction)
    return [
        references,
        *[
            _agent_evaluation(study, model, language, fraction, threshold, decoded)
            for threshold in thresholds
        ],
    ]


def _reference_evaluation(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """The base, plain and full fine-tuned models at full depth."""
    stage = Stage(
        f"evaluation/{model}-{language}-{fraction}-full",
        layer="evaluation",
        config={"fraction": fraction, "base": fingerprint(model)} | _decoding(study, "samples"),
        inputs=(
            corpus(study, language),
            *[fine_tuned(study, model, language, kind) for kind in ("plain", "aggregated")],
        ),
    )

    def decode(folder: Path) -> None:
        rows = []
        for kind in KINDS:
            parts, tokenizer = load_kind(study, model, language, kind)
            samples, _ = chosen_samples(study, language, tokenizer, fraction)
            full = [Setting("full", FullDepth())]
            found = predictions(parts, tokenizer, samples, full, study.profile.context.new_tokens)
            rows.append(found.assign(kind=kind))
        pd.concat(rows).to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "05", decode)


def _agent_evaluation(
    study: Study,
    model: str,
    language: str,
    fraction: float,
    threshold: float,
    decoded: Callable[[], pd.DataFrame],
) -> Artifact:
    """Every agent at one threshold; `decoded` gives its rows among others'."""
    stage = Stage(
        f"evaluation/{model}-{language}-{fraction}-{threshold:g}",
        layer="evaluation",
        config={"fraction": fraction, "threshold": threshold} | _decoding(study, "samples", "temperature"),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            *[item for _, item in agents(study, model, language)],
        ),
    )

    def keep(folder: Path) -> None:
        rows = decoded()
        rows = rows[rows["threshold"] == threshold].assign(kind="aggregated")
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "05", keep)


def evaluation_rows(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """The predictions of one setting and context: `sweep.predictions` and `kind`."""
    artifacts = evaluations(study, model, language, fraction)
    frames = [pd.read_parquet(artifact.path / "predictions.parquet") for artifact in artifacts]
    return pd.concat(frames, ignore_index=True)


def timed_settings(
    study: Study,
    parts: ModelParts,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[Sample],
    settings: list[Setting],
) -> pd.DataFrame:
    """`sweep.timings` with the profile's repeats and longest completion, on this machine's counters."""
    repeats, new_tokens = study.profile.evaluation.timing_repeats, study.profile.context.new_tokens
    return timings(parts, samples, settings, new_tokens, repeats, EnergyMonitor(), tokenizer.eos_token_id)


def evaluation_timings(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Time and energy of a subset of the same samples, one prompt at a time: `timings.parquet`.

    The base model, the full one without and with its key-value cache, and the first agent at every threshold, uncached.
    """
    stage = decoding_stage(
        study,
        "timings",
        model,
        language,
        fraction,
        "timing_samples",
        "timing_repeats",
        base=fingerprint(model),
    )

    def measure(folder: Path) -> None:
        config, rows = study.profile.evaluation, []
        for kind in ("base", "aggregated"):
            parts, tokenizer = load_kind(study, model, language, kind)
            samples, _ = chosen_samples(study, language, tokenizer, fraction, config.timing_samples)
            settings = [Setting("full", FullDepth()), Setting("full", FullDepth(), cache=CacheMode.PROPAGATE)]
            if kind == "aggregated":
                settings += agent_settings(study, model, language, [0])
            rows.append(timed_settings(study, parts, tokenizer, samples, settings).assign(kind=kind))
        pd.concat(rows).to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "05", measure, timed=True)


def samples_table(study: Study) -> pd.DataFrame:
    """`model`, `language`, `context_fraction`, `samples`, and `dropped`: files passed over for want of 15 more tokens."""
    rows = []
    for model, language, fraction in contexts_of(study):
        samples, dropped = chosen_samples(study, language, load_tokenizer(model), fraction)
        row = {"model": model, "language": language, "context_fraction": fraction}
        rows.append(row | {"samples": len(samples), "dropped": dropped})
    return pd.DataFrame(rows)


def contexts_of(study: Study) -> list[tuple[str, str, float]]:
    """(model, language, context fraction) of everything that is evaluated."""
    return [
        (*setting, fraction)
        for setting in study.settings
        for fraction in study.profile.evaluation.context_fractions
    ]


def is_timed(study: Study, fraction: float) -> bool:
    """Whether time and energy are measured at a context fraction."""
    return fraction in study.profile.evaluation.timed_fractions


def artifacts_of(study: Study, model: str, language: str, fraction: float) -> list[Artifact]:
    """What `evaluation_frame` is computed from."""
    timed = [evaluation_timings(study, model, language, fraction)] if is_timed(study, fraction) else []
    return [*evaluations(study, model, language, fraction), *timed]


def all_evaluations(study: Study) -> list[Artifact]:
    """Predictions of every setting and context side by side, then the timings one after the other; all artifacts."""
    side_by_side(study, evaluations, contexts_of(study))
    return [artifact for context in contexts_of(study) for artifact in artifacts_of(study, *context)]


def decoding_stage(
    study: Study, what: str, model: str, language: str, fraction: float, *fields: str, **more: str
) -> Stage:
    """A stage that decodes test samples with the fine-tuned model and its first agent, at all thresholds; `fields` are of
    `evaluation`."""
    return Stage(
        f"{what}/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction} | more | _decoding(study, "thresholds", "temperature", *fields),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
        ),
    )


def _decoding(study: Study, *fields: str) -> dict:
    """The part of a stage's configuration that says how it decodes, with some fields of `evaluation`."""
    config = study.profile.section("evaluation", "context")
    evaluation = {name: config["evaluation"][name] for name in fields}
    return {"dtype": study.profile.dtype, "context": config["context"]} | evaluation


KEYS = ["kind", "criterion", "threshold", "seed", "cache"]


def evaluation_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """One row a setting of one model, corpus and context: `label`, metrics, `mean_layers`, `agreement`, costs.

    `label` is "base", "plain", "full", "full_cached" (time only differs) or the threshold. Metrics of a threshold are means over
    agents, with `<metric>_spread`, their standard deviation, beside ROUGE-L and mean layers; time and energy are of the
    first agent, over the timed subset. `agents` and `timed_agents` count both, NaN for the full models. What was not
    measured is NaN.
    """
    rows = evaluation_rows(study, model, language, fraction)
    metrics = summarise(rows, language, KEYS)
    groups = metrics.groupby(["kind", "criterion", "threshold"], dropna=False, sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    for column in ("rouge_l", "mean_layers", "agreement"):
        means[f"{column}_spread"] = groups[column].std()
    means["agents"] = groups["seed"].nunique()
    means = means.reset_index()
    means["cache"] = "none"
    cached = means[(means["kind"] == "aggregated") & (means["criterion"] == "full")].assign(cache="propagate")
    cached["flops"] = _cached_flops(
        load_config(model), rows[(rows["kind"] == "aggregated") & (rows["criterion"] == "full")]
    )
    frame = pd.concat([means, cached], ignore_index=True)
    if is_timed(study, fraction):
        timed = evaluation_timings(study, model, language, fraction)
        costs = summarise_timings(pd.read_parquet(timed.path / "timings.parquet"), KEYS)
        keys = ["kind", "criterion", "threshold", "cache"]
        frame = frame.merge(costs.drop(columns="seed"), on=keys, how="left")
    else:
        frame[["seconds", "joules", "throughput"]] = math.nan
    of_agents = frame["criterion"] == "agent"
    frame["agents"] = frame["agents"].where(of_agents)
    frame["timed_agents"] = np.where(of_agents & frame["seconds"].notna(), 1.0, math.nan)
    frame["energy_wh"] = frame["joules"] / WATT_HOUR
    frame["label"] = [_label(row) for row in frame.itertuples()]
    frame = frame.rename(columns={"seconds": "time_s"})
    return frame.assign(model=model, language=language, context_fraction=fraction)


def _cached_flops(config: PretrainedConfig, rows: pd.DataFrame) -> float:
    """FLOPs a token of full-depth rows if their key-value cache had been kept."""
    costs = [
        generation_flops(config, row.prompt_tokens, row.exit_layers, CacheMode.PROPAGATE.value)
        for row in rows.itertuples()
    ]
    return sum(costs) / rows["exit_layers"].map(len).sum()


def _label(row) -> str:
    if row.criterion == "agent":
        return f"{row.threshold:g}"
    if row.kind != "aggregated":
        return row.kind
    return "full" if row.cache == "none" else "full_cached"
