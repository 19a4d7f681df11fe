"""Early exit with a key-value cache: what it changes and what it costs."""

import math
from itertools import zip_longest

import numpy as np
import pandas as pd
import torch
from transformers import PretrainedConfig

from eelib.evaluation.predict import CACHES
from eelib.evaluation.sweep import summarise, summarise_timings


def cached_frame(
    cached: pd.DataFrame, exact: pd.DataFrame, timings: pd.DataFrame, language: str
) -> pd.DataFrame:
    """One row a threshold and cache, all of the first agent: metrics, `skipped` (share of layers), `changed` (share of tokens
    that differ from the uncached decoder's), `flops` a token, and `time_s` of the timed subset where it was measured.

    Parameters
    ----------
    cached, timings: rows of `predict.cached_predictions` and `timed.setting_timings`.
    exact: uncached rows of the same model and samples, see `uncached`.
    """
    rows = pd.concat([cached, exact], ignore_index=True)
    layers = rows.loc[rows["criterion"] == "full", "exit_layers"].iloc[0][0]
    frame = summarise(rows, language, ["criterion", "threshold", "cache"])
    frame["skipped"] = 1 - frame["mean_layers"] / layers
    frame["changed"] = [
        np.nanmean(changed_tokens(rows, row.criterion, row.threshold, row.cache))
        for row in frame.itertuples()
    ]
    own = timings[(timings["kind"] == "aggregated") & (timings["cache"] != "none")]
    costs = summarise_timings(own, ["criterion", "threshold", "cache"])
    frame = frame.merge(costs, on=["criterion", "threshold", "cache"], how="left")
    frame["label"] = ["full" if math.isnan(value) else f"{value:g}" for value in frame["threshold"]]
    return frame.rename(columns={"seconds": "time_s"})


def uncached(full: pd.DataFrame, agents: pd.DataFrame) -> pd.DataFrame:
    """The uncached rows that a cache is held against: the fine-tuned model's at full depth, and the first agent's."""
    full = full[full["kind"] == "aggregated"]
    return pd.concat([full, agents[agents["seed"] == 0]], ignore_index=True).drop(columns="kind")


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


def changes_by_position(cached: pd.DataFrame, exact: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """`position` (1 for the first new token), `cache`, `changed`: where each cache changes tokens, at one threshold."""
    rows, table = pd.concat([cached, exact], ignore_index=True), []
    for mode in CACHES:
        shares = np.nanmean(changed_tokens(rows, "agent", threshold, mode.value), axis=0)
        table += [
            {"position": position, "cache": mode.value, "changed": share}
            for position, share in enumerate(shares, start=1)
        ]
    return pd.DataFrame(table)


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


def cache_bytes(config: PretrainedConfig, positions: int, dtype: torch.dtype) -> int:
    """Memory of a key-value cache of some positions."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * positions * dtype.itemsize
