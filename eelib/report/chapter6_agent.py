"""Figures 6.2 to 6.4, 6.12 and 6.13: how the agent learns, where it exits, and what its decisions cost."""

import itertools

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import (
    LANGUAGES,
    curve,
    entries_of,
    finished,
    label,
    layer_axis,
    legend,
    model_colours,
    need,
    new_figure,
    note,
    only,
    outside_legend,
)

EPISODES_AVERAGED = 50  # the thesis's moving average


def reward_curves(frame: pd.DataFrame) -> Figure:
    """Fig. 6.2: mean reward a step over the episodes of PPO, moving average over 50; a row a model.

    The line is the mean over seeds and the band goes from the smallest to the largest. Curves end with the
    shortest training, since seeds meet different numbers of episodes in the same number of steps; a training
    of less than 50 episodes is averaged over as many as it has, and the legend says over how many.

    Args:
        frame: one row an episode: `model`, `language`, `seed`, `episode` (in order), `reward` (mean a step).
    """
    need(frame, ["model", "language", "seed", "episode", "reward"], "The reward curves")
    models, languages = sorted(frame["model"].unique()), sorted(frame["language"].unique())
    colours = model_colours(models)
    figure, axes = new_figure(len(models), len(languages), (4.2, 2.4))
    for row, model in enumerate(models):
        for column, language in enumerate(languages):
            ax = axes[row, column]
            rows = frame[(frame["model"] == model) & (frame["language"] == language)].sort_values("episode")
            label(ax, f"{model}, {LANGUAGES[language]}", "episode", "mean reward a step")
            if rows.empty:
                note(ax, "no data")
                continue
            trainings = [run["reward"].to_numpy(float) for _, run in rows.groupby("seed")]
            length = min(map(len, trainings))
            window = min(EPISODES_AVERAGED, length)
            kernel = np.full(window, 1 / window)
            smooth = np.stack([np.convolve(run[:length], kernel, mode="valid") for run in trainings])
            episodes = np.arange(window, length + 1)
            ax.fill_between(
                episodes, smooth.min(0), smooth.max(0), color=colours[model], alpha=0.25, linewidth=0
            )
            text = f"mean of {len(trainings)} seeds, band: range" if len(trainings) > 1 else "1 seed"
            curve(
                ax,
                episodes,
                smooth.mean(0),
                colours[model],
                f"{text}\n(average of {window} episodes)",
                marker="",
            )
            ax.xaxis.set_major_formatter("{x:,.0f}")
            ax.locator_params(axis="x", nbins=6)
            legend(ax, loc="lower right")
    return finished(figure)


def optimal_exits(frame: pd.DataFrame) -> Figure:
    """Fig. 6.3: how often each layer was the optimal exit in training; two rows a corpus.

    The thesis's figure counts decisions (its bars add up to the steps of its training): a token counts once for
    every decision on it, so that tokens that need many count more. Below stand the tokens, each once.

    Args:
        frame: `model`, `language`, `layer` (1..L), `decisions`, `tokens`.
    """
    need(frame, ["model", "language", "layer", "decisions", "tokens"], "The optimal exits")
    models, languages = sorted(frame["model"].unique()), sorted(frame["language"].unique())
    colours = model_colours(models)
    counts = {"decisions": "decisions in training", "tokens": "tokens recorded"}
    figure, axes = new_figure(len(counts) * len(languages), len(models), (4.3, 2.2))
    for row, (language, (count, name)) in enumerate(itertools.product(languages, counts.items())):
        for column, model in enumerate(models):
            ax = axes[row, column]
            rows = frame[(frame["model"] == model) & (frame["language"] == language)]
            ax.bar(rows["layer"], rows[count], width=0.8, color=colours[model])
            ax.yaxis.set_major_formatter("{x:,.0f}")
            layer_axis(ax, frame.loc[frame["model"] == model, "layer"].max())
            label(ax, f"{model}, {LANGUAGES[language]}: {name}", "optimal exit layer", name.split()[0])
    return finished(figure)


def agent_exits(frame: pd.DataFrame) -> Figure:
    """Fig. 6.4: the share of the agent's exits whose token is the last layer's, by exit layer.

    Lighter bars are layers where the agent leaves more often; the number of exits stands over every bar.

    Args:
        frame: `model`, `language`, `threshold`, `layer` (exit points and L), `exits` and `matches` (tokens).
    """
    need(frame, ["model", "language", "threshold", "layer", "exits", "matches"], "The agent's exits")
    settings = list(frame.groupby(["model", "language", "threshold"]))
    figure, axes = new_figure(1, len(settings), (5.2, 3.1), sharey=True)
    shades = PowerNorm(0.5, 0, float(frame["exits"].max()))
    for ax, ((model, language, threshold), rows) in zip(axes[0], settings, strict=True):
        rows = rows.sort_values("layer")
        share = (rows["matches"] / rows["exits"].where(rows["exits"] > 0)).to_numpy()
        positions = np.arange(len(rows))
        colours = colormaps["cividis"](shades(rows["exits"].to_numpy(float)))
        bars = ax.bar(positions, np.nan_to_num(share), color=colours)
        for bar, exits in zip(bars, rows["exits"], strict=True):
            ax.annotate(
                f"{exits:,}",
                (bar.get_x() + bar.get_width() / 2, bar.get_height()),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=style.SMALL - 0.5,
            )
        ax.set_xticks(positions, [str(layer) for layer in rows["layer"]])
        ax.set_ylim(0, 1.12)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        overall = rows["matches"].sum() / rows["exits"].sum()
        title = f"{model}, {LANGUAGES[language]}, T = {threshold:g}: {overall:.0%} of all exits match"
        label(ax, title, "exit layer", "exits matching the last layer" if ax is axes[0, 0] else "")
    bar = figure.colorbar(ScalarMappable(shades, colormaps["cividis"]), ax=list(axes[0]), pad=0.02)
    bar.set_label("exits", fontsize=style.NORMAL)
    bar.ax.tick_params(labelsize=style.SMALL)
    bar.ax.yaxis.set_major_formatter("{x:,.0f}")
    return finished(figure)


def calibration(frame: pd.DataFrame) -> Figure:
    """What a threshold promises and keeps: agreement of the tokens that leave early, and how many do; a panel a corpus.

    A calibrated policy's early tokens agree at least as often as its threshold says: they lie above the grey line.

    Args:
        frame: one row a setting and threshold: `model`, `language`, `threshold`, `early` (share of tokens that leave
            before the last layer), `agreement_early` (of these with the last layer; NaN if there are none).
    """
    need(frame, ["model", "language", "threshold", "early", "agreement_early"], "The calibration")
    languages = sorted(frame["language"].unique())
    colours = model_colours(frame["model"])
    figure, axes = new_figure(1, len(languages), (4.3, 2.9), sharey=True)
    entries = {}
    for ax, language in zip(axes[0], languages, strict=True):
        here = frame[frame["language"] == language]
        span = [here["threshold"].min(), here["threshold"].max()]
        ax.plot(span, span, color=style.GREY, linewidth=1)
        for model, rows in here.groupby("model"):
            rows = rows.sort_values("threshold")
            curve(
                ax,
                rows["threshold"],
                rows["agreement_early"],
                colours[model],
                f"{model}: early tokens that agree",
            )
            curve(
                ax,
                rows["threshold"],
                rows["early"],
                colours[model],
                f"{model}: tokens that leave early",
                ":",
                marker="",
            )
        label(
            ax, LANGUAGES[language], "threshold T", "of tokens that leave early" if ax is axes[0, 0] else ""
        )
        ax.set_ylim(0, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        entries |= entries_of(ax)
    outside_legend(figure, entries)
    return finished(figure)


def overhead(frame: pd.DataFrame) -> Figure:
    """Fig. 6.12: the agent's share of time and energy, of the full and of the early-exit model's.

    Args:
        frame: one row a setting of one corpus: `model`, `context_fraction` (a column of panels each),
            `thesis_context` ("50%", what it stands for in the thesis's figure, said where it is another),
            `threshold`, and shares in [0, 1] `of_full_time`, `of_exit_time`, `of_full_energy`,
            `of_exit_energy`; the last two NaN where energy was not measured.
    """
    series = {
        "of_exit_energy": ("energy, of the early-exit model's", style.VERMILLION, "-", "o"),
        "of_full_energy": ("energy, of the full model's", style.VERMILLION, "--", "s"),
        "of_exit_time": ("time, of the early-exit model's", style.BLUE, "-", "o"),
        "of_full_time": ("time, of the full model's", style.BLUE, "--", "s"),
    }
    key = ["model", "context_fraction", "threshold"]
    need(frame, [*key, "thesis_context", *series], "The overhead")
    if frame.duplicated(key).any():
        raise InputError("The overhead needs one row a model, context and threshold; the frame has several.")
    measured = frame[["of_full_energy", "of_exit_energy"]].notna().any(axis=None)
    models, contexts = sorted(frame["model"].unique()), sorted(frame["context_fraction"].unique())
    thresholds = sorted(frame["threshold"].unique())
    figure, axes = new_figure(len(models), len(contexts), (4.6, 2.6), sharey=True)
    for row, model in enumerate(models):
        for column, context in enumerate(contexts):
            ax = axes[row, column]
            rows = frame[(frame["model"] == model) & (frame["context_fraction"] == context)].sort_values(
                "threshold"
            )
            x = [thresholds.index(threshold) for threshold in rows["threshold"]]
            for name, (text, colour, line, marker) in series.items():
                if measured or "energy" not in name:
                    curve(ax, x, rows[name], colour, text, line, marker=marker, markersize=4)
            ax.set_xticks(range(len(thresholds)), [f"{threshold:g}" for threshold in thresholds])
            ax.set_xlim(-0.3, len(thresholds) - 0.7)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            title = f"{model}\ncontext {context:.0%}"
            thesis_context = only(rows, "thesis_context", "The overhead")
            if thesis_context != f"{context:.0%}":
                title += f" (the thesis: {thesis_context})"
            if not measured:
                title += f"\n({style.NOT_MEASURED})"
            label(ax, title, "threshold T", "overhead" if column == 0 else "")
    # A small overhead can be measured below zero; hiding that would hide the noise. All panels share the axis.
    axes[0, 0].set_ylim(bottom=min(0.0, 1.15 * np.nanmin(frame[list(series)].to_numpy())))
    for ax in axes.flat:
        ax.axhline(0, color=style.GREY, linewidth=0.8)
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def decision_cost(frame: pd.DataFrame) -> Figure:
    """Fig. 6.13: what one exit decision costs, in time and, where measured, energy.

    The axis is logarithmic, for a head over a whole vocabulary costs hundreds of times what an agent does: dots, for a bar has no zero
    to stand on there.

    Args:
        frame: `method` (e.g. "agent", "linear classifier", "norm + head + softmax"), `microseconds`, `joules`
            (NaN when not measured).
    """
    need(frame, ["method", "microseconds", "joules"], "The cost of a decision")
    measured = frame["joules"].notna().any()
    panels = {"microseconds": "time a decision [µs]"} | (
        {"joules": "energy a decision [J]"} if measured else {}
    )
    figure, axes = new_figure(1, len(panels), (5.0, 0.9 + 0.38 * len(frame)), sharey=True)
    positions = np.arange(len(frame))
    for ax, (column, name) in zip(axes[0], panels.items(), strict=True):
        colour = style.BLUE if column == "microseconds" else style.VERMILLION
        known = frame[column].notna()
        low, high = 0.6 * frame[column].min(), 3.5 * frame[column].max()  # room for the numbers
        ax.hlines(positions[known], low, frame.loc[known, column], color=colour, linewidth=1.3)
        ax.plot(frame[column], positions, "o", color=colour, markersize=6)
        for position, value in zip(positions, frame[column], strict=True):
            text = style.NOT_MEASURED.split(" on")[0] if np.isnan(value) else _short(value)
            ax.annotate(
                text,
                (low if np.isnan(value) else value, position),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=style.SMALL,
            )
        ax.set_yticks(positions, frame["method"])
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(LogLocator(10, numticks=6))
        ax.xaxis.set_minor_formatter(NullFormatter())
        if column == "microseconds":
            ax.xaxis.set_major_formatter("{x:,g}")
        ax.grid(False, axis="y")
        label(ax, "", name if measured else f"{name}\n({style.NOT_MEASURED})")
    axes[0, 0].set_ylim(len(frame) - 0.5, -0.5)
    return finished(figure)


def _short(value: float) -> str:
    """Three digits, and thousands written out."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
