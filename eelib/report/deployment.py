"""Figures of the endpoint (Section 5.4), which the thesis describes without any."""

import pandas as pd
from matplotlib.figure import Figure

from eelib.report import figures as style
from eelib.report.figures import curve, finished, label, legend, need, new_figure


def by_threshold(frame: pd.DataFrame) -> Figure:
    """Latency as a client sees it and mean layers against the threshold: medians over the prompts, all prompts as dots.

    Args:
        frame: one row a prompt and threshold: `threshold`, `milliseconds`, `mean_layers`, `total_layers`.
    """
    need(frame, ["threshold", "milliseconds", "mean_layers", "total_layers"], "The endpoint by threshold")
    thresholds = sorted(frame["threshold"].unique())
    positions = range(len(thresholds))
    figure, axes = new_figure(1, 2, (3.9, 2.6))
    for ax, column, name, colour in (
        (axes[0, 0], "milliseconds", "latency of a completion [ms]", style.VERMILLION),
        (axes[0, 1], "mean_layers", "mean layers a token", style.BLUE),
    ):
        for position, threshold in enumerate(thresholds):
            values = frame.loc[frame["threshold"] == threshold, column]
            ax.plot([position] * len(values), values, ".", color=colour, alpha=0.3, markersize=5)
        curve(ax, positions, frame.groupby("threshold")[column].median(), colour, "median")
        ax.set_xticks(positions, [f"{threshold:g}" for threshold in thresholds])
        ax.set_ylim(bottom=0)
        label(ax, "", "exit threshold T (1: full depth)", name)
    total = frame["total_layers"].iloc[0]
    axes[0, 1].axhline(total, color=style.FULL_COLOUR, linewidth=0.8, linestyle=":", label=f"all {total}")
    legend(axes[0, 1], loc="lower right")
    return finished(figure)
