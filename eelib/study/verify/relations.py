"""What must hold within and between the other datasets, each with its reason; see `completions.py` for predictions."""

from functools import cache

import numpy as np
import pandas as pd

from eelib.evaluation.flops import generation_flops
from eelib.models.exits import exit_points
from eelib.study.verify.completions import Broken, load_config

Datasets = dict[str, pd.DataFrame]
SETTING = ["model", "language"]
NEAR = 1e-9
NOISE = 5  # how many times apart two times of the same work may be: what a busy machine does, not what another unit does


@cache
def _total(model: str) -> int:
    return load_config(model).num_hidden_layers


def timed_lengths(data: Datasets) -> Broken:
    """What is timed is what is predicted."""
    timings, predictions = data["timings"], data["predictions"]
    keys = [*SETTING, "context_fraction", "criterion", "threshold", "seed", "cache", "sample"]
    there = predictions[predictions["node"] != "epoch_predictions"].copy()
    there["kind"] = there["kind"].fillna("aggregated")
    there["count"] = there["tokens"].map(len)
    own = timings.assign(kind=timings["kind"].fillna("aggregated"))
    # With a cache a full model says the same tokens.
    own.loc[own["criterion"] == "full", "cache"] = "none"
    pairs = own.merge(
        there[[*keys, "kind", "count", "exit_layers"]].drop_duplicates([*keys, "kind"]), on=[*keys, "kind"]
    )
    yield (
        "as many tokens are timed as are predicted in the same setting",
        pairs[pairs["tokens"] != pairs["count"]],
    )
    deciding = pairs[pairs["decisions"].notna() & (pairs["criterion"] == "agent")]
    passed = [
        sum(point <= layer for layer in row.exit_layers for point in exit_points(_total(row.model)))
        for row in deciding.itertuples()
    ]
    yield (
        "an agent decides at every exit point on the way",
        deciding[deciding["decisions"] != np.array(passed)],
    )
    traced = timings[timings["decisions"].notna()]
    different = (
        traced.groupby([*SETTING, "context_fraction", "threshold", "sample"])["decisions"].transform(
            "nunique"
        )
        > 1
    )
    yield "a replayed trace stands for as many decisions as its agent took", traced[different]
    missing = (timings["energy_source"] == "none") != timings["joules"].isna()
    yield "there is energy where a counter is, and nowhere else", timings[missing]
    traced = (timings["cache"] == "propagate") & timings["criterion"].isin(["agent", "scripted"])
    yield (
        "decisions are counted where an agent's trace is replayed",
        timings[traced != timings["decisions"].notna()],
    )


def timed_work(data: Datasets) -> Broken:
    """Time goes with work: the same machine does about as many FLOPs a second in all settings of a model and cache."""
    timings, predictions = data["timings"], data["predictions"]
    keys = [*SETTING, "context_fraction", "criterion", "threshold", "seed", "cache", "sample"]
    work = predictions[predictions["kind"].isin(["aggregated", "base"]) | predictions["kind"].isna()]
    work = work.drop_duplicates([*keys, "kind"])[[*keys, "kind", "prompt_tokens", "exit_layers"]]
    own = timings.assign(kind=timings["kind"].fillna("aggregated"))
    work = work.assign(kind=work["kind"].fillna("aggregated"))
    left = own.assign(cache_of_it=own["cache"])
    left.loc[left["criterion"] == "full", "cache"] = "none"
    pairs = left.merge(work, on=[*keys, "kind"])
    done = [
        generation_flops(load_config(row.model), row.prompt_tokens, list(row.exit_layers), row.cache_of_it)
        for row in pairs.itertuples()
    ]
    pairs["speed"] = np.array(done, dtype=float) / pairs["seconds"]
    pairs["cache"] = pairs["cache_of_it"]
    usual = pairs.groupby(["model", "cache"])["speed"].transform("median")
    ratio = pairs["speed"] / usual
    yield (
        "a machine does about as many FLOPs a second in all settings of a model and cache",
        pairs[~ratio.between(1 / 10, 10)],
    )
    alike = timings.groupby([*SETTING, "context_fraction", "criterion", "cache", "sample"])["seconds"]
    apart = timings["seconds"] / alike.transform("median")
    whole = timings[timings["criterion"].isin(["full", "never"]) & ~apart.between(1 / NOISE, NOISE)]
    yield "full depth takes about the same time whenever it is timed", whole


def layer_scores(data: Datasets) -> Broken:
    """Accuracy and agreement are numbers of tokens, and bound each other."""
    rows = data["layers"]
    for column in ("accuracy", "agreement"):
        hits = rows[column] * rows["tokens"]
        yield f"{column} is a number of tokens", rows[(hits - hits.round()).abs() > 1e-6]
    keys = [*SETTING, "kind", "sample"]
    last = rows[rows["layer"] == rows["model"].map(_total)].set_index(keys)
    yield (
        "the last layer agrees with itself",
        rows[(rows["layer"] == rows["model"].map(_total)) & (rows["agreement"] != 1)],
    )
    of_last = last["accuracy"].reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    apart = (rows["accuracy"] - of_last).abs() > 1 - rows["agreement"] + NEAR
    yield (
        "a layer's accuracy is away from the last layer's by at most the tokens on which they differ",
        rows[apart],
    )
    sizes = rows.groupby(SETTING)["tokens"].transform("median")
    yield "every sample has as many tokens", rows[rows["tokens"] != sizes]
    wrong = rows.groupby(SETTING)["layer"].transform("nunique") != rows["model"].map(_total)
    yield "every layer is looked at", rows[wrong]
    yield "a layer is one of the model's", rows[rows["layer"] > rows["model"].map(_total)]
    if "predictions" in data:
        fixed = data["predictions"].query("node == 'fixed_exit_predictions'")
        for column, both in {
            "sample": [*SETTING, "sample"],
            "project": ["language", "sample", "project"],
        }.items():
            known = set(fixed[both].itertuples(index=False, name=None))
            strange = [row not in known for row in rows[both].itertuples(index=False, name=None)]
            yield f"layers and fixed exits are of the same {column}s", rows[np.array(strange) & bool(known)]


def losses(data: Datasets) -> Broken:
    """Losses are taken where the model can stop, and training is what kinds differ in."""
    rows = data["validation_losses"]
    stops = {model: {*exit_points(_total(model)), _total(model)} for model in rows["model"].unique()}
    odd = [layer not in stops[model] for model, layer in zip(rows["model"], rows["layer"], strict=True)]
    yield "losses are of exit points and the last layer", rows[np.array(odd)]
    count = rows.groupby([*SETTING, "kind"])["layer"].transform("nunique")
    yield (
        "every exit point and the last layer has a loss",
        rows[count != rows["model"].map(lambda model: len(stops[model]))],
    )
    by_kind = rows.pivot_table(index=[*SETTING, "layer"], columns="kind", values="loss").reset_index()
    depths = by_kind["model"].map(_total)
    early = by_kind[by_kind["layer"] < depths]
    if {"aggregated", "plain"} <= set(early):
        worse = early[early["aggregated"] > early["plain"] + 0.5]  # nats; a few steps change little
        yield "a model trained to decode early has no much larger loss there than one that was not", worse
    last = by_kind[by_kind["layer"] == depths]
    if {"aggregated", "plain", "base"} <= set(last):
        spread = last[["aggregated", "plain", "base"]].max(axis=1) / last[
            ["aggregated", "plain", "base"]
        ].min(axis=1)
        yield "at the last layer fine-tuning moves the loss by less than a factor", last[spread > NOISE]


def decided(data: Datasets) -> Broken:
    """The same work takes about as long wherever it is timed."""
    rows = data["decisions"]
    usual = rows.groupby(["node", "model", "method"])["microseconds"].transform("median")
    yield (
        "a decision takes about as long in every language",
        rows[~(rows["microseconds"] / usual).between(1 / NOISE, NOISE)],
    )
    by = rows.pivot_table(index="model", columns="method", values="microseconds").reset_index()
    same = {
        "norm + head + softmax": "Confidence",
        "Prediction of current layer and token": "Confidence",
        "Current layer": "Last token",
        "Last token": "Hidden State of current layer",
    }
    for one, other in same.items():
        if one in by and other in by:
            yield (
                f"{one!r} and {other!r} are the same work",
                by[~(by[one] / by[other]).between(1 / NOISE, NOISE)],
            )
    if {"agent", "agent with softmax"} <= set(by):
        yield (
            "a softmax does not make a decision several times cheaper",
            by[by["agent"] > 2 * by["agent with softmax"]],
        )


def served(data: Datasets) -> Broken:
    """An answer's mean layers are whole layers of its tokens, and FLOPs and time go with them."""
    rows = data["serving"]
    total = rows["model"].map(_total)
    yield "the endpoint has the model's layers", rows[rows["total_layers"] != total]
    layers = rows["mean_layers"] * rows["tokens"]
    yield "mean layers are whole layers of the answer's tokens", rows[(layers - layers.round()).abs() > 1e-3]
    yield "no token runs more layers than there are", rows[rows["mean_layers"] > total]
    yield "a threshold of 1 is full depth", rows[(rows["threshold"] == 1) & (rows["mean_layers"] != total)]
    bad = []
    for _, own in rows.groupby([*SETTING, "measured", "prompt", "key"], dropna=False):
        full = own[own["threshold"] == 1]
        if len(full) == 1:
            bad += list(own.index[~_flops_fit(own, full.iloc[0])])
    yield "FLOPs follow from prompt and layers", rows.loc[bad]
    speed = rows["flops"] / rows["milliseconds"]
    yield (
        "the endpoint does about as many FLOPs a second for every answer",
        rows[~(speed / speed.median()).between(1 / 20, 20)],
    )


def _flops_fit(rows: pd.DataFrame, full: pd.Series) -> np.ndarray:
    """Whether answers to one prompt have the FLOPs of their layers; how long the prompt is follows from the full answer."""
    config, count, low, high = load_config(full["model"]), int(full["tokens"]), 1, 2**17
    while low < high:
        middle = (low + high) // 2
        if generation_flops(config, middle, [int(full["total_layers"])] * count, "propagate") < full["flops"]:
            low = middle + 1
        else:
            high = middle
    ends = {}
    for tokens in rows["tokens"].unique():
        one, whole = (
            generation_flops(config, low, [depth] * int(tokens), "propagate")
            for depth in (1, int(full["total_layers"]))
        )
        ends[tokens] = one, (whole - one) / (full["total_layers"] - 1)
    expected = np.array(
        [ends[row.tokens][0] + (row.mean_layers - 1) * ends[row.tokens][1] for row in rows.itertuples()]
    )
    return np.abs(rows["flops"].to_numpy() / expected - 1) < 1e-3


# A relation and the datasets that it needs.
RELATIONS = {
    timed_lengths: ("timings", "predictions"),
    timed_work: ("timings", "predictions"),
    layer_scores: ("layers",),
    losses: ("validation_losses",),
    decided: ("decisions",),
    served: ("serving",),
}
