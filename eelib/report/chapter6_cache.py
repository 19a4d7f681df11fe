"""Figures 6.14 and 6.15: what KV propagation costs in quality and saves in layers; and the cache modes compared."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eelib.report import figures as style
from eelib.report.figures import (
    LANGUAGES,
    curve,
    entries_of,
    finished,
    label,
    legend,
    model_colours,
    need,
    new_figure,
    only,
    outside_legend,
)
from eelib.report.settings import by_label, draw_metrics, in_order


def kv_metrics(frame: pd.DataFrame) -> Figure:
    """Fig. 6.14: metrics by threshold with KV propagation (solid) and without a cache (dotted, hollow).

    A row a context, a column a model; thin dotted lines repeat the full model's score.

    Args:
        frame: one row a setting (see `settings`) and cache of one corpus: `model`, `language`,
            `context_fraction`, `label`, `cache` ("propagate" or "none"; others are not drawn), `rouge_l`,
            `bleu`, `codebleu` in [0, 1].
    """
    exhibit = "The metrics with KV propagation"
    columns = ["model", "language", "context_fraction", "label", "cache", "rouge_l", "bleu", "codebleu"]
    need(frame, columns, exhibit)
    language = only(frame, "language", exhibit)
    models, contexts = sorted(frame["model"].unique()), sorted(frame["context_fraction"].unique())
    figure, axes = new_figure(len(contexts), len(models), (4.3, 2.6), sharey=True)
    for row, context in enumerate(contexts):
        for column, model in enumerate(models):
            ax = axes[row, column]
            here = frame[(frame["model"] == model) & (frame["context_fraction"] == context)]
            sweeps = {cache: by_label(rows) for cache, rows in here.groupby("cache")}
            order = in_order(text for rows in sweeps.values() for text in rows.index)
            for cache, line, name in [("propagate", "-", "KV propagation"), ("none", ":", "no cache")]:
                if cache in sweeps:
                    draw_metrics(ax, sweeps[cache], order, ["codebleu", "rouge_l", "bleu"], line, f", {name}")
            title = f"{model}, {LANGUAGES[language]}, context {context:.0%}"
            label(ax, title, "", "score" if column == 0 else "")
            ax.tick_params(axis="x", labelsize=style.SMALL)
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def layers_skipped(frame: pd.DataFrame) -> Figure:
    """Fig. 6.15: the mean share of layers skipped with KV propagation by threshold; a panel a context.

    Args:
        frame: `model`, `context_fraction`, `threshold`, `skipped` in [0, 1], of one corpus.
    """
    need(frame, ["model", "context_fraction", "threshold", "skipped"], "The layers skipped")
    colours = model_colours(frame["model"])
    contexts = sorted(frame["context_fraction"].unique())
    thresholds = sorted(frame["threshold"].unique())
    figure, axes = new_figure(1, len(contexts), (4.0, 2.8), sharey=True)
    width = 0.8 / len(colours)
    for ax, context in zip(axes[0], contexts, strict=True):
        for i, (model, colour) in enumerate(colours.items()):
            rows = frame[(frame["model"] == model) & (frame["context_fraction"] == context)]
            shift = (i - (len(colours) - 1) / 2) * width
            positions = np.array([thresholds.index(threshold) for threshold in rows["threshold"]]) + shift
            bars = ax.bar(positions, rows["skipped"], width=width, color=colour, label=model)
            ax.bar_label(
                bars, [f"{share:.0%}" for share in rows["skipped"]], fontsize=style.SMALL - 1, padding=1
            )
        ax.set_xticks(range(len(thresholds)), [f"{threshold:g}" for threshold in thresholds])
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_ylim(0, 1)
        label(ax, f"context {context:.0%}", "threshold T", "layers skipped" if ax is axes[0, 0] else "")
    legend(axes[0, -1], loc="upper right")
    return finished(figure)


def changes_by_position(frame: pd.DataFrame) -> Figure:
    """How each cache mode's error grows: share of tokens changed by position; a row a language, a column a model.

    Args:
        frame: `model`, `language`, `context_fraction` (one), `cache`, `position` from 1, `changed` in [0, 1].
    """
    exhibit = "The changed tokens by position"
    need(frame, ["model", "language", "context_fraction", "cache", "position", "changed"], exhibit)
    only(frame, "context_fraction", exhibit)
    models, languages = sorted(frame["model"].unique()), list(frame["language"].unique())
    figure, axes = new_figure(len(languages), len(models), (4.0, 2.4), sharex=True, sharey=True)
    looks = {
        "propagate": (style.BLUE, "-"),
        "propagate-later": (style.SKY, ":"),
        "recompute": (style.BLACK, "-"),
        "copy": (style.VERMILLION, "-"),
        "monotone": (style.GREEN, "-"),
    }
    for row, language in enumerate(languages):
        for column, model in enumerate(models):
            ax = axes[row, column]
            here = frame[(frame["model"] == model) & (frame["language"] == language)]
            for cache, (colour, line) in looks.items():
                rows = here[here["cache"] == cache]
                curve(ax, rows["position"], rows["changed"], colour, cache, line)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            x = "position of the new token" if row == len(languages) - 1 else ""
            label(ax, f"{model}, {LANGUAGES[language]}", x, "tokens changed" if column == 0 else "")
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)
