"""Stages of notebooks 05, 06 and 07: evaluation over thresholds, the agent's overhead, key-value caching."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from eelib.data.samples import Sample, evaluation_samples
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings, timings
from eelib.models.loading import fingerprint, load_config, load_tokenizer
from eelib.models.parts import ModelParts
from eelib.pipeline.agents import agent, agents, policy_of
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.models import KINDS, fine_tuned, load_kind
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage

WATT_HOUR = 3600.0  # joules


def agent_settings(
    study: Study, model: str, language: str, seeds: list[int], cache: CacheMode = CacheMode.NONE
) -> list[Setting]:
    """The agent at every threshold of the profile."""
    evaluation = study.profile.evaluation
    return [
        Setting("agent", Agent(policy, threshold, evaluation.temperature), threshold, seed, cache)
        for seed in seeds
        for policy in [policy_of(study, model, language, seed)]
        for threshold in evaluation.thresholds
    ]


def _samples(
    study: Study, language: str, tokenizer: PreTrainedTokenizerBase, fraction: float, count: int | None = None
) -> tuple[list[Sample], int]:
    """The first `count` evaluation samples (all of the profile's by default), and how many files were passed over."""
    tests = files_of(corpus(study, language), "test")
    count = count or study.profile.evaluation.samples
    return evaluation_samples(tests, tokenizer, fraction, count, study.profile.context)


def evaluation(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Predictions of the base model, the full fine-tuned one, and every agent at every threshold: `predictions.parquet`."""
    trained = agents(study, model, language)
    stage = Stage(
        f"evaluation/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction, "base": fingerprint(model)} | _decoding(study, "samples"),
        inputs=(corpus(study, language), fine_tuned(study, model, language), *[item for _, item in trained]),
    )

    def evaluate(folder: Path) -> None:
        rows = []
        for kind in KINDS:
            parts, tokenizer = load_kind(study, model, language, kind)
            samples, _ = _samples(study, language, tokenizer, fraction)
            settings = [Setting("full", FullDepth())]
            if kind == "aggregated":
                settings += agent_settings(study, model, language, [seed for seed, _ in trained])
            found = predictions(parts, tokenizer, samples, settings, study.profile.context.new_tokens)
            rows.append(found.assign(kind=kind))
        pd.concat(rows).to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "05", evaluate)


def evaluation_timings(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Time and energy of a subset of the same samples, one prompt at a time: `timings.parquet`.

    The base model, the full one without and with its key-value cache, and the first agent at every threshold, uncached.
    """
    stage = Stage(
        f"timings/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction, "base": fingerprint(model)}
        | _decoding(study, "timing_samples", "timing_repeats"),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
        ),
    )

    def measure(folder: Path) -> None:
        config, new_tokens = study.profile.evaluation, study.profile.context.new_tokens
        rows = []
        for kind in KINDS:
            parts, tokenizer = load_kind(study, model, language, kind)
            samples, _ = _samples(study, language, tokenizer, fraction, config.timing_samples)
            settings = [Setting("full", FullDepth()), Setting("full", FullDepth(), cache=CacheMode.PROPAGATE)]
            if kind == "aggregated":
                settings += agent_settings(study, model, language, [0])
            timed = timings(parts, samples, settings, new_tokens, config.timing_repeats, EnergyMonitor())
            rows.append(timed.assign(kind=kind))
        pd.concat(rows).to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "05", measure)


def samples_table(study: Study) -> pd.DataFrame:
    """`model`, `language`, `context_fraction`, `samples`, and `dropped`: files passed over for want of 15 more tokens."""
    rows = []
    for model, language, fraction in contexts_of(study):
        samples, dropped = _samples(study, language, load_tokenizer(model), fraction)
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


def all_evaluations(study: Study) -> list[Artifact]:
    """Predictions of every setting and context side by side, then their timings one after the other.

    Returns the two artifacts of each, predictions first.
    """
    decoded = side_by_side(study, evaluation, contexts_of(study))
    return [*decoded, *[evaluation_timings(study, *context) for context in contexts_of(study)]]


def _decoding(study: Study, *fields: str) -> dict:
    """The part of a stage's configuration that says how it decodes, with some fields of `evaluation`."""
    config = study.profile.section("evaluation", "context")
    evaluation = {name: config["evaluation"][name] for name in ("thresholds", "temperature", *fields)}
    return {"dtype": study.profile.dtype, "context": config["context"]} | evaluation


KEYS = ["kind", "criterion", "threshold", "seed", "cache"]


def evaluation_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """One row a setting of one model, corpus and context: `label`, metrics, `mean_layers`, `agreement`, costs.

    `label` is "base", "full", "full_cached" (time only differs) or the threshold. Metrics of a threshold are means over
    agents, with `<metric>_spread`, their standard deviation, beside ROUGE-L and mean layers; time and energy are of the
    first agent, over the timed subset. `energy_wh` is NaN where not measured.
    """
    artifact = evaluation(study, model, language, fraction)
    rows = pd.read_parquet(artifact.path / "predictions.parquet")
    metrics = summarise(rows, language, KEYS)
    groups = metrics.groupby(["kind", "criterion", "threshold"], dropna=False, sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    for column in ("rouge_l", "mean_layers", "agreement"):
        means[f"{column}_spread"] = groups[column].std()
    means = means.reset_index()
    timed = evaluation_timings(study, model, language, fraction)
    costs = summarise_timings(pd.read_parquet(timed.path / "timings.parquet"), KEYS)
    means["cache"] = "none"
    cached = means[(means["kind"] == "aggregated") & (means["criterion"] == "full")].assign(cache="propagate")
    cached["flops"] = _cached_flops(load_config(model), rows[rows["criterion"] == "full"])
    frame = pd.concat([means, cached], ignore_index=True).merge(
        costs.drop(columns="seed"), on=["kind", "criterion", "threshold", "cache"], how="left"
    )
    frame["flops"] /= study.profile.context.new_tokens
    frame["energy_wh"] = frame["joules"] / WATT_HOUR
    frame["label"] = [_label(row) for row in frame.itertuples()]
    frame = frame.rename(columns={"seconds": "time_s"})
    return frame.assign(model=model, language=language, context_fraction=fraction)


def _cached_flops(config: PretrainedConfig, rows: pd.DataFrame) -> float:
    """Mean FLOPs a sample of full-depth rows if their key-value cache had been kept."""
    costs = [
        generation_flops(config, row.prompt_tokens, row.exit_layers, CacheMode.PROPAGATE.value)
        for row in rows.itertuples()
    ]
    return sum(costs) / len(costs)


def _label(row) -> str:
    if row.criterion == "agent":
        return f"{row.threshold:g}"
    if row.kind == "base":
        return "base"
    return "full" if row.cache == "none" else "full_cached"


def overhead(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """The agent's share of time and energy: `overhead.parquet` (Figure 6.12).

    Each prompt is decoded by the agent, and again along the same exits without it (a scripted trace), interleaved. The
    difference is what its decisions cost, end to end. `full` is the full model on the same prompts. All uncached.
    """
    config = study.profile.evaluation
    stage = Stage(
        f"overhead/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction} | _decoding(study, "timing_samples", "timing_repeats"),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
        ),
    )

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = _samples(study, language, tokenizer, fraction, config.timing_samples)
        new_tokens, monitor = study.profile.context.new_tokens, EnergyMonitor()
        frames = []
        for sample in samples:
            settings = [Setting("full", FullDepth())]
            for setting in agent_settings(study, model, language, [0]):
                trace = generate(parts, sample.context, new_tokens, setting.rule).exit_layers
                settings += [setting, Setting("scripted", Scripted([trace]), setting.threshold)]
            frames.append(timings(parts, [sample], settings, new_tokens, config.timing_repeats, monitor))
        pd.concat(frames).to_parquet(folder / "overhead.parquet", index=False)

    return study.stage(stage, "06", measure)


def overhead_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """`threshold`, and the agent's cost as shares of the full model's and of the early-exit model's time and energy."""
    rows = pd.read_parquet(overhead(study, model, language, fraction).path / "overhead.parquet")
    costs = summarise_timings(rows, ["criterion", "threshold"]).set_index(["criterion", "threshold"])
    full = costs.loc["full"].iloc[0]
    table = []
    for threshold in study.profile.evaluation.thresholds:
        with_agent, without = costs.loc[("agent", threshold)], costs.loc[("scripted", threshold)]
        entry = {"threshold": threshold}
        for column, name in (("seconds", "time"), ("joules", "energy")):
            difference = with_agent[column] - without[column]
            entry[f"of_full_{name}"] = difference / full[column]
            entry[f"of_exit_{name}"] = difference / with_agent[column]
        table.append(entry)
    return pd.DataFrame(table).assign(model=model, language=language, context_fraction=fraction)


def decision_cost(study: Study, model: str, language: str) -> Artifact:
    """Time and energy of one decision on random states, for four kinds of criterion: `decisions.parquet` (Figure 6.13)."""
    first, tuned = agent(study, model, language, 0), fine_tuned(study, model, language)
    count = study.profile.evaluation.decisions
    stage = Stage(
        f"decision_cost/{model}-{language}",
        layer="evaluation",
        config={"decisions": count, "dtype": study.profile.dtype},
        inputs=(tuned, first),
    )

    def measure(folder: Path) -> None:
        parts, _ = load_kind(study, model, language, "aggregated")
        methods = decision_methods(parts, study, model, language)
        chunk, monitor = min(500, count), EnergyMonitor()
        totals = {name: [0.0, 0.0] for name in methods}
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for decide in methods.values():
                decide(torch.zeros(1, parts.width, device=parts.device, dtype=study.dtype))  # warm-up
            for _ in range(count // chunk):
                states = torch.randn(chunk, 1, parts.width, generator=generator).to(parts.device, study.dtype)
                for name, decide in methods.items():
                    with monitor.measure() as measured:
                        for state in states:
                            decide(state)
                    totals[name][0] += measured.seconds
                    totals[name][1] += measured.joules
        decided = count // chunk * chunk
        table = [
            {"method": name, "microseconds": 1e6 * seconds / decided, "joules": joules / decided}
            for name, (seconds, joules) in totals.items()
        ]
        pd.DataFrame(table).to_parquet(folder / "decisions.parquet", index=False)

    return study.stage(stage, "06", measure)


def decision_methods(
    parts: ModelParts, study: Study, model: str, language: str
) -> dict[str, Callable[[Tensor], bool]]:
    """How long a decision takes is measured as the decoder takes it: on one (1, D) state, up to a Python bool."""
    policy = policy_of(study, model, language, 0)
    classifier = nn.Linear(parts.width, 2).to(parts.device, study.dtype)

    return {
        "agent": lambda state: bool(policy.margin(state) > 1.0),
        "agent with softmax": lambda state: bool(policy.probability(state) > 0.9),
        "linear classifier": lambda state: bool(classifier(state).softmax(-1)[0, 1] > 0.9),
        "norm + head + softmax": lambda state: bool(parts.logits(state).softmax(-1).amax() > 0.9),
    }


def cached_evaluation(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Predictions of the full model and the first agent with key-value propagation: `predictions.parquet`."""
    stage = Stage(
        f"cached/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction} | _decoding(study, "samples"),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
        ),
    )

    def evaluate(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = _samples(study, language, tokenizer, fraction)
        settings = _cached_settings(study, model, language)
        rows = predictions(parts, tokenizer, samples, settings, study.profile.context.new_tokens)
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "07", evaluate)


def cached_timings(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Time and energy of the same settings, one prompt at a time: `timings.parquet`."""
    config = study.profile.evaluation
    stage = Stage(
        f"cached_timings/{model}-{language}-{fraction}",
        layer="evaluation",
        config={"fraction": fraction} | _decoding(study, "timing_samples", "timing_repeats"),
        inputs=(
            corpus(study, language),
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
        ),
    )

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = _samples(study, language, tokenizer, fraction, config.timing_samples)
        settings, new_tokens = _cached_settings(study, model, language), study.profile.context.new_tokens
        rows = timings(parts, samples, settings, new_tokens, config.timing_repeats, EnergyMonitor())
        rows.to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "07", measure)


def _cached_settings(study: Study, model: str, language: str) -> list[Setting]:
    return [
        Setting("full", FullDepth(), cache=CacheMode.PROPAGATE),
        *agent_settings(study, model, language, [0], CacheMode.PROPAGATE),
    ]


def all_cached_evaluations(study: Study, contexts: list[tuple[str, str, float]]) -> list[Artifact]:
    """Predictions side by side, then timings one after the other; the two artifacts of each, predictions first."""
    decoded = side_by_side(study, cached_evaluation, contexts)
    return [*decoded, *[cached_timings(study, *context) for context in contexts]]


def cached_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """One row a threshold and cache: metrics, `skipped` (share of layers), `changed` (share of tokens that differ from
    the uncached decoder's), and `time_s` of the timed subset where it was measured."""
    cached = pd.read_parquet(cached_evaluation(study, model, language, fraction).path / "predictions.parquet")
    exact = pd.read_parquet(evaluation(study, model, language, fraction).path / "predictions.parquet")
    exact = exact[(exact["kind"] == "aggregated") & exact["seed"].isin([-1, 0])]
    rows = pd.concat([cached, exact.drop(columns="kind")], ignore_index=True)
    layers = rows.loc[rows["criterion"] == "full", "exit_layers"].iloc[0][0]
    frame = summarise(rows, language, ["criterion", "threshold", "cache"])
    frame["skipped"] = 1 - frame["mean_layers"] / layers
    frame["changed"] = [
        _changed(rows, row.criterion, row.threshold) if row.cache != "none" else 0.0
        for row in frame.itertuples()
    ]
    timed = pd.read_parquet(cached_timings(study, model, language, fraction).path / "timings.parquet")
    costs = summarise_timings(timed, ["criterion", "threshold", "cache"])
    frame = frame.merge(costs, on=["criterion", "threshold", "cache"], how="left")
    frame["label"] = ["full" if math.isnan(value) else f"{value:g}" for value in frame["threshold"]]
    frame = frame.rename(columns={"seconds": "time_s"})
    return frame.assign(model=model, language=language, context_fraction=fraction)


def _changed(rows: pd.DataFrame, criterion: str, threshold: float) -> float:
    """Share of tokens that propagation changes, position by position over the same samples."""
    same_threshold = rows["threshold"].isna() if math.isnan(threshold) else rows["threshold"] == threshold
    chosen = rows[(rows["criterion"] == criterion) & same_threshold]
    cached, exact = (
        chosen[chosen["cache"] == cache].set_index("sample")["tokens"] for cache in ("propagate", "none")
    )
    pairs = [(a, b) for name in exact.index for a, b in zip(cached[name], exact[name], strict=True)]
    return sum(a != b for a, b in pairs) / len(pairs)
