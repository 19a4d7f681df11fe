"""Figures of early exit measured at the thesis's sizes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eelib.report import figures as style
from eelib.report.figures import (
    LANGUAGES,
    curve,
    entries_of,
    finished,
    label,
    layer_axis,
    need,
    new_figure,
    note,
    outside_legend,
)

MEASURES = ("time", "energy")
CACHES = {  # cache mode: (name, colour)
    "none": ("no cache", style.VERMILLION),
    "propagate": ("cache, propagated at once", style.BLUE),
    "propagate-later": ("cache, propagated when needed", style.SKY),
    "recompute": ("cache, recomputed", style.GREEN),
}


def fixed_exits(sides: pd.DataFrame) -> Figure:
    """Cost of a completion that always leaves at one layer, over the cached full model; a row a measure, a column a geometry.

    Args:
        sides: rows of `ratios` with criterion "fixed", of one dtype and context: `geometry`, `cache`, `mean_layers`,
            `of_cached_time`, `of_cached_energy` with their `_low` and `_high`.
    """
    need(sides, ["geometry", "cache", "mean_layers", "of_cached_time", "of_cached_energy"], "The fixed exits")
    geometries = sorted(sides["geometry"].unique())
    figure, axes = new_figure(2, len(geometries), (4.4, 2.7), sharex="col")
    for row, measure in enumerate(MEASURES):
        column = f"of_cached_{measure}"
        for ax, geometry in zip(axes[row], geometries, strict=True):
            here = sides[sides["geometry"] == geometry]
            total = int(here["mean_layers"].max())
            for cache, (name, colour) in CACHES.items():
                rows = here[here["cache"] == cache].sort_values("mean_layers")
                if rows[column].notna().any():
                    _banded(ax, rows, "mean_layers", column, colour, name)
            ax.plot([0, total], [0, 1], color=style.GREY, linestyle=":", linewidth=1, label="share of layers")
            ax.axhline(1, color=style.BLACK, linewidth=0.8, label="full model, cached")
            layer_axis(ax, total)
            ax.set_ylim(bottom=0)
            _unmeasured(ax, here[column])
            title = geometry if row == 0 else ""
            x = "exit layer" if row == 1 else ""
            label(ax, title, x, f"{measure} over cached full" if ax is axes[row, 0] else "")
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def traces_beside_the_thesis(frame: pd.DataFrame, measure: str) -> Figure:
    """The same exits by threshold: the thesis's cost over its full model, and ours over ours; a panel a setting.

    Solid: without the agent's decisions; hollow, dotted: with them. Uncached sides are over the uncached full model, cached
    ones over the cached.

    Args:
        frame: rows of `beside_the_thesis` of one dtype and context.
        measure: "time" or "energy".
    """
    column = f"of_full_{measure}"
    need(frame, ["geometry", "language", "threshold", "cache", column, f"thesis_{measure}"], "The traces")
    settings = list(frame.groupby(["geometry", "language"], sort=True))
    columns = min(2, len(settings))
    figure, axes = new_figure(-(-len(settings) // columns), columns, (4.4, 3.2), sharey=True)
    for ax in axes.flat[len(settings) :]:
        ax.set_axis_off()
    for ax, ((geometry, language), here) in zip(axes.flat, settings, strict=False):
        thresholds = sorted(here["threshold"].unique())
        at = {threshold: place for place, threshold in enumerate(thresholds)}
        theirs = here.drop_duplicates("threshold").sort_values("threshold")
        x = theirs["threshold"].map(at)
        curve(ax, x, theirs[f"thesis_{measure}"], style.BLACK, "thesis, no cache", "--", marker="s")
        for cache, (name, colour) in CACHES.items():
            rows = here[here["cache"] == cache].sort_values("threshold")
            if rows[column].notna().any():
                x = rows["threshold"].map(at)
                curve(ax, x, rows[column], colour, name)
                curve(ax, x, rows[f"{column}_with_agent"], colour, "", ":", markerfacecolor="white")
        ax.axhline(1, color=style.GREY, linewidth=0.8)
        ax.set_xticks(range(len(thresholds)), [f"{threshold:g}" for threshold in thresholds])
        _unmeasured(ax, here[column])
        y = f"{measure} over own full model" if ax in axes[:, 0] else ""
        label(ax, f"{geometry}, {LANGUAGES[language]}", "threshold T", y)
    axes[0, 0].set_ylim(bottom=0, top=max(1.1, axes[0, 0].get_ylim()[1]))
    if frame[column].notna().any():
        curve(axes[0, 0], [], [], style.GREY, "with the agent's decisions", ":", markerfacecolor="white")
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def _banded(ax: Axes, rows: pd.DataFrame, x: str, column: str, colour: str, name: str) -> None:
    """A curve with the range of the rounds behind it."""
    curve(ax, rows[x], rows[column], colour, name)
    ax.fill_between(
        rows[x].astype(float),
        rows[f"{column}_low"].astype(float),
        rows[f"{column}_high"].astype(float),
        color=colour,
        alpha=0.2,
        linewidth=0,
    )


def _unmeasured(ax: Axes, values: pd.Series) -> None:
    if values.isna().all():
        note(ax, style.NOT_MEASURED)
