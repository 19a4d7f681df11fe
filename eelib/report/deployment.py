"""Figures of the endpoint (Section 5.4), which the thesis describes without any."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from eelib.report import figures as style
from eelib.report.figures import curve, finished, label, legend, need, new_figure


def by_threshold(frame: pd.DataFrame) -> Figure:
    """Latency as a client sees it and mean layers against the threshold: medians over the prompts, and every prompt by itself.

    A long prompt takes many times what a short one does, whatever the threshold, so that latency has a logarithmic axis.

    Args:
        frame: one row a prompt and threshold: `prompt`, `threshold`, `milliseconds`, `mean_layers`, `total_layers`.
    """
    need(
        frame,
        ["prompt", "threshold", "milliseconds", "mean_layers", "total_layers"],
        "The endpoint by threshold",
    )
    thresholds = sorted(frame["threshold"].unique())
    positions = range(len(thresholds))
    figure, axes = new_figure(1, 2, (3.9, 2.6))
    for ax, column, name, colour in (
        (axes[0, 0], "milliseconds", "latency of a completion [ms]", style.VERMILLION),
        (axes[0, 1], "mean_layers", "mean layers a token", style.BLUE),
    ):
        wide = frame.pivot(index="threshold", columns="prompt", values=column)
        lines = ax.plot(positions, wide, ".-", color=colour, alpha=0.3, markersize=5, linewidth=0.8)
        lines[0].set_label("one prompt")
        curve(ax, positions, frame.groupby("threshold")[column].median(), colour, "median")
        ax.set_xticks(positions, [f"{threshold:g}" for threshold in thresholds])
        label(ax, "", "exit threshold T (1: full depth)", name)
    latency, layers = axes[0]
    latency.set_yscale("log")
    latency.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0), numticks=12))
    latency.yaxis.set_major_formatter("{x:,g}")
    latency.yaxis.set_minor_formatter(NullFormatter())
    layers.set_ylim(bottom=0)
    total = frame["total_layers"].iloc[0]
    layers.axhline(total, color=style.FULL_COLOUR, linewidth=0.8, linestyle=":", label=f"all {total}")
    legend(layers, loc="lower right")
    return finished(figure)
