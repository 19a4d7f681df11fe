"""Stages of notebook 07: early exit with a key-value cache."""

import math
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import FullDepth
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings
from eelib.models.loading import load_config
from eelib.pipeline.models import load_kind
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.results import (
    agent_settings,
    chosen_samples,
    decoding_stage,
    evaluation_rows,
    timed_settings,
)
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact

COMPARED = (
    CacheMode.PROPAGATE,
    *[mode for mode in CacheMode if mode not in (CacheMode.NONE, CacheMode.PROPAGATE)],
)


def cached_evaluation(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Predictions of the full model and the first agent with a key-value cache: `predictions.parquet`.

    Propagation at all thresholds, the other cache modes at one (`middle_threshold`).
    """
    stage = decoding_stage(study, "cached", model, language, fraction, "samples")

    def evaluate(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = chosen_samples(study, language, tokenizer, fraction)
        settings = _cached_settings(study, model, language)
        rows = predictions(parts, tokenizer, samples, settings, study.profile.context.new_tokens)
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "07", evaluate)


def cached_timings(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """Time and energy of the same settings, one prompt at a time: `timings.parquet`."""
    config = study.profile.evaluation
    stage = decoding_stage(
        study, "cached_timings", model, language, fraction, "timing_samples", "timing_repeats"
    )

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = chosen_samples(study, language, tokenizer, fraction, config.timing_samples)
        rows = timed_settings(study, parts, tokenizer, samples, _cached_settings(study, model, language))
        rows.to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "07", measure, timed=True)


def _cached_settings(study: Study, model: str, language: str) -> list[Setting]:
    settings = [Setting("full", FullDepth(), cache=CacheMode.PROPAGATE)]
    for mode in COMPARED:
        agents = agent_settings(study, model, language, [0], mode)
        if mode is not CacheMode.PROPAGATE:
            agents = [setting for setting in agents if setting.threshold == middle_threshold(study)]
        settings += agents
    return settings


def middle_threshold(study: Study) -> float:
    """The threshold at which all cache modes are compared."""
    thresholds = study.profile.evaluation.thresholds
    return thresholds[len(thresholds) // 2]


def all_cached_evaluations(study: Study, contexts: list[tuple[str, str, float]]) -> list[Artifact]:
    """Predictions side by side, then timings one after the other; the two artifacts of each, predictions first."""
    decoded = side_by_side(study, cached_evaluation, contexts)
    return [*decoded, *[cached_timings(study, *context) for context in contexts]]


def cached_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """One row a threshold and cache, all of the first agent: metrics, `skipped` (share of layers), `changed` (share of tokens that differ from
    the uncached decoder's), `flops` a token, and `time_s` of the timed subset where it was measured."""
    rows = _all_predictions(study, model, language, fraction)
    layers = rows.loc[rows["criterion"] == "full", "exit_layers"].iloc[0][0]
    frame = summarise(rows, language, ["criterion", "threshold", "cache"])
    frame["skipped"] = 1 - frame["mean_layers"] / layers
    frame["changed"] = [
        np.nanmean(changed_tokens(rows, row.criterion, row.threshold, row.cache))
        for row in frame.itertuples()
    ]
    timed = pd.read_parquet(cached_timings(study, model, language, fraction).path / "timings.parquet")
    costs = summarise_timings(timed, ["criterion", "threshold", "cache"])
    frame = frame.merge(costs, on=["criterion", "threshold", "cache"], how="left")
    frame["label"] = ["full" if math.isnan(value) else f"{value:g}" for value in frame["threshold"]]
    frame = frame.rename(columns={"seconds": "time_s"})
    return frame.assign(model=model, language=language, context_fraction=fraction)


def changed_tokens(rows: pd.DataFrame, criterion: str, threshold: float, cache: str) -> np.ndarray:
    """Which tokens a cache changes against the uncached decoder: 0.0 or 1.0 (samples, new tokens), position by position.

    A token beyond the other's end is changed; where both have ended it is NaN.
    """
    same_threshold = rows["threshold"].isna() if math.isnan(threshold) else rows["threshold"] == threshold
    chosen = rows[(rows["criterion"] == criterion) & same_threshold]
    cached, exact = (
        chosen[chosen["cache"] == mode].set_index("sample")["tokens"] for mode in (cache, "none")
    )
    changed = [
        [float(one != other) for one, other in zip_longest(*pair)]
        for pair in zip(cached[exact.index], exact, strict=True)
    ]
    return np.array(list(zip_longest(*changed, fillvalue=math.nan))).T


def changes_by_position(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """`position` (1 for the first new token), `cache`, `changed`: where each cache mode changes tokens, at one threshold."""
    rows = _all_predictions(study, model, language, fraction)
    table = []
    for mode in COMPARED:
        shares = np.nanmean(changed_tokens(rows, "agent", middle_threshold(study), mode.value), axis=0)
        table += [
            {"position": position, "cache": mode.value, "changed": share}
            for position, share in enumerate(shares, start=1)
        ]
    return pd.DataFrame(table).assign(model=model, language=language, context_fraction=fraction)


def _all_predictions(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    cached = pd.read_parquet(cached_evaluation(study, model, language, fraction).path / "predictions.parquet")
    exact = evaluation_rows(study, model, language, fraction)
    exact = exact[(exact["kind"] == "aggregated") & exact["seed"].isin([-1, 0])]
    return pd.concat([cached, exact.drop(columns="kind")], ignore_index=True)


def tradeoff_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """`evaluation_frame` and `cached_frame` rows as the trade-off's curves: `criterion` says the method and its cache.

    "full" is the full model without a cache, "full, cached" with one; the others are "agent, <cache>", of which the
    uncached and the propagating one have a point a threshold and the recomputing one a single point. The uncached one's
    name says so where its scores are means over more agents than were timed.
    """
    rows = rows[~rows["label"].isin(["base", "plain", "full_cached"])]
    rows = rows[rows["cache"].isin(["none", "propagate", "recompute"]) & rows["time_s"].notna()].copy()
    agent, full = rows["criterion"] == "agent", rows["label"] == "full"
    uncached = "uncached"
    if (rows["agents"] > rows["timed_agents"]).any():
        uncached += f" (scores: mean of {rows['agents'].max():.0f} agents, time: the first's)"
    rows["criterion"] = np.select(
        [agent, full & (rows["cache"] == "none")],
        ["agent, " + rows["cache"].replace("none", uncached), "full"],
        "full, cached",
    )
    return rows


def cache_bytes(study: Study, model: str) -> int:
    """Memory of a key-value cache for the longest context and its new tokens."""
    config, context = load_config(model), study.profile.context
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = config.hidden_size // config.num_attention_heads
    positions = context.max_tokens + context.new_tokens
    return 2 * config.num_hidden_layers * heads * width * positions * study.dtype.itemsize
