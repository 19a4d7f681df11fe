"""What claims are judged on: the tidy results of a run, and what a token costs there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from eelib.evaluation.metrics import per_sample_metrics

SCORED = (
    "full_predictions",
    "agent_predictions",
    "cached_predictions",
    "fixed_exit_predictions",
    "epoch_predictions",
)
Setting = tuple[str, str]  # model and language
THEIRS = {"llama": "llama-3.2-3b", "opt": "opt-2.7b"}  # the thesis's models
# What is left out in turn.
PER_PROJECT = ("project",)
PER_LANGUAGE = ("language", "project")
PER_PROMPT = ("model", "language", "sample")  # what is timed is pooled over settings: few prompts each


@dataclass(frozen=True)
class Results:
    """One run.

    Attributes
    ----------
    frames: the datasets of `docs/data.md` by name, and beside them `optimal` (a row a prompt and token of the training rollouts:
        `model`, `language`, `prompt`, `layer`, the optimal exit), `episodes` (the agents' logs: `model`, `language`, `seed`,
        `episode`, `reward`) and `files` (`data.statistics.files_frame`). What a run lacks is left out.
    settings: (model, language) of the run.
    families: "llama" or "opt" by model.
    prices: by model and exit layer, what a token costs with a cache, the agent's decisions included, as a share of the full model's
        token with its cache (`cost.py`).
    decision_flops, decision_prices: of one decision, by model; the price in the unit of `prices`.
    hub: whether the corpora are CodeXGLUE's own.
    """

    frames: Mapping[str, pd.DataFrame]
    settings: list[Setting]
    families: Mapping[str, str]
    prices: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    decision_flops: Mapping[str, int] = field(default_factory=dict)
    decision_prices: Mapping[str, float] = field(default_factory=dict)
    hub: bool = False

    def __getitem__(self, dataset: str) -> pd.DataFrame:
        """A dataset; an empty frame where the run lacks it."""
        return self.frames.get(dataset, pd.DataFrame())

    def of(self, family: str = "", language: str = "") -> list[Setting]:
        """The settings of a family and a language; of all where none is named."""
        return [
            (model, corpus)
            for model, corpus in self.settings
            if family in ("", self.families[model]) and language in ("", corpus)
        ]

    def models(self, family: str = "") -> list[str]:
        """The models of a family, each once."""
        return list(dict.fromkeys(model for model, _ in self.of(family)))

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Predictions with the scores of each sample (`metrics.per_sample_metrics`), `mean_layers`, `count` (tokens), `early` (tokens
        that left before the last layer), `early_right` (those of them that are the last layer's), `last` (the model's layers),
        and, where the model has prices, `cost`, the sum over the tokens, and `decisions`."""
        rows = self["predictions"]
        if rows.empty:
            return rows
        rows = rows[rows["node"].isin(SCORED)].copy()
        texts = rows[["language", "prediction", "reference"]].drop_duplicates()
        parts = []
        for language, own in texts.groupby("language", sort=False):
            scores = per_sample_metrics(own["prediction"].tolist(), own["reference"].tolist(), language)
            parts.append(pd.concat([own.reset_index(drop=True), scores], axis=1))
        rows = rows.merge(pd.concat(parts), on=list(texts), how="left", validate="many_to_one")
        last = rows["exit_layers"].map(max).groupby(rows["model"]).max()
        rows["last"] = rows["model"].map(last)
        rows["count"] = rows["exit_layers"].map(len)
        rows["mean_layers"] = rows["exit_layers"].map(np.mean)
        # Where agreement is not known, `agrees` is empty and so is `early_right`.
        early = [
            np.asarray(layers) < end for layers, end in zip(rows["exit_layers"], rows["last"], strict=True)
        ]
        rows["early"] = [int(sum(left)) for left in early]
        rows["early_right"] = [
            int(sum(np.asarray(agrees, bool) & left)) if len(agrees) else np.nan
            for agrees, left in zip(rows["agrees"], early, strict=True)
        ]
        # Layers that are no exit points, which only fixed exits leave at, have no price.
        priced = [self.prices.get(model, {}) for model in rows["model"]]
        exits = list(zip(priced, rows["exit_layers"], strict=True))
        rows["cost"] = [sum(prices.get(layer, np.nan) for layer in layers) for prices, layers in exits]
        rows["decisions"] = [
            sum(point <= layer for layer in layers for point in sorted(prices)[:-1])
            for prices, layers in exits
        ]
        return rows


def where(rows: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows that have these values; a list allows any of its own. An empty frame stays empty."""
    for column, value in wanted.items():
        if rows.empty:
            return rows
        rows = rows[rows[column].isin(value if isinstance(value, list) else [value])]
    return rows


def named(model: str, language: str = "", *more: str) -> str:
    """A setting in words."""
    return ", ".join([model, *([language.capitalize()] if language else []), *more])


def nearest(values: list[float], wanted: float) -> float:
    """The nearest of some thresholds or contexts; of two that are as near the higher one."""
    return min(sorted(values, reverse=True), key=lambda value: round(abs(value - wanted), 9))
