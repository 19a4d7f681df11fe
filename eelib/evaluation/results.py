"""Evaluation over thresholds: the frames behind the result figures and tables of Chapter 6."""

import math

import numpy as np
import pandas as pd
from transformers import PretrainedConfig

from eelib.decoding.cache import CacheMode
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.sweep import summarise, summarise_timings

WATT_HOUR = 3600.0  # joules
KEYS = ["kind", "criterion", "threshold", "seed", "cache"]


def evaluation_frame(
    predictions: pd.DataFrame, timings: pd.DataFrame, config: PretrainedConfig, language: str
) -> pd.DataFrame:
    """One row a setting of one model, corpus and context: `label`, metrics, `mean_layers`, `agreement`, costs.

    `label` is "base", "plain", "full", "full_cached" (time only differs) or the threshold. Metrics of a threshold are means over
    agents, with `<metric>_spread`, their standard deviation, beside ROUGE-L and mean layers; time and energy are of the
    first agent, over the timed subset. `agents` and `timed_agents` count both, NaN for the full models. What was not
    measured is NaN.

    Parameters
    ----------
    predictions: rows of `predict.full_predictions` of all kinds, and of `predict.agent_predictions`.
    timings: rows of `timed.setting_timings`; none where time is not measured.
    config: of the model, for the FLOPs of its cached completions.
    """
    metrics = summarise(predictions, language, KEYS)
    groups = metrics.groupby(["kind", "criterion", "threshold"], dropna=False, sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    for column in ("rouge_l", "mean_layers", "agreement"):
        means[f"{column}_spread"] = groups[column].std()
    means["agents"] = groups["seed"].nunique()
    means = means.reset_index()
    means["cache"] = "none"
    full = (predictions["kind"] == "aggregated") & (predictions["criterion"] == "full")
    cached = means[(means["kind"] == "aggregated") & (means["criterion"] == "full")].assign(cache="propagate")
    cached["flops"] = _cached_flops(config, predictions[full])
    frame = pd.concat([means, cached], ignore_index=True)
    if len(timings):
        costs = summarise_timings(timings, KEYS)
        keys = ["kind", "criterion", "threshold", "cache"]
        frame = frame.merge(costs.drop(columns="seed"), on=keys, how="left")
    else:
        frame[["seconds", "joules", "throughput"]] = math.nan
    of_agents = frame["criterion"] == "agent"
    frame["agents"] = frame["agents"].where(of_agents)
    frame["timed_agents"] = np.where(of_agents & frame["seconds"].notna(), 1.0, math.nan)
    frame["energy_wh"] = frame["joules"] / WATT_HOUR
    frame["label"] = [_label(row) for row in frame.itertuples()]
    return frame.rename(columns={"seconds": "time_s"})


def savings(frame: pd.DataFrame) -> pd.DataFrame:
    """What each threshold of an `evaluation_frame` saves against the full model.

    Returns
    -------
    `threshold`, `layers_saved`, `time_saved` (of the uncached full model), `rouge_l_lost`, `time_over_cached_full` (a ratio),
    `agents`, `timed_agents`.
    """
    by, rows = frame.set_index("label"), []
    for label in frame.loc[frame["criterion"] == "agent", "label"]:
        at, full = by.loc[label], by.loc["full"]
        row = {
            "threshold": label,
            "layers_saved": 1 - at["mean_layers"] / full["mean_layers"],
            "time_saved": 1 - at["time_s"] / full["time_s"],
            "rouge_l_lost": full["rouge_l"] - at["rouge_l"],
            "time_over_cached_full": at["time_s"] / by.loc["full_cached", "time_s"],
        }
        rows.append(row | at[["agents", "timed_agents"]].to_dict())
    return pd.DataFrame(rows)


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
