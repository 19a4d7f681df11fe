"""Figures 6.5 to 6.11 and the trade-off: what is lost and what is saved, by threshold."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import (
    LANGUAGES,
    METRICS,
    blank_figure,
    curve,
    dress,
    entries_of,
    finished,
    label,
    model_colours,
    need,
    new_figure,
    note,
    only,
    outside_legend,
)
from eelib.report.settings import REFERENCES, by_label, draw_metrics, in_order, setting_names

RESOURCES = {  # column: (name, unit divisor)
    "energy_wh": ("energy [Wh]", 1),
    "time_s": ("time [s]", 1),
    "throughput": ("throughput [tokens/s]", 1),
    "mean_layers": ("mean layers a token", 1),
    "flops": ("GFLOPs a token", 1e9),
}
CRITERIA = {
    "agent": style.VERMILLION,
    "fixed": style.BLUE,
    "confidence": style.GREEN,
    "entropy": style.ORANGE,
    "saturation": style.PURPLE,
    "classifier": style.SKY,
    "oracle": style.BLACK,
}
OTHER_CRITERIA = ["#882255", "#999933", "#44AA99", "#332288"]  # from Paul Tol's muted palette
AXIS_NAMES = {
    "mean_layers": "mean layers a token",
    "time_s": "time [s]",
    "energy_wh": "energy [Wh]",
    "flops": "FLOPs a token",
    "cost": "cost of a token, share of the full model's with its cache",
    "agreement": "agreement with the last layer",
    "rouge_l": "ROUGE-L",
    "codebleu": "CodeBLEU",
    "bleu": "BLEU",
}


def results_by_threshold(*sweeps: pd.DataFrame) -> Figure:
    """Fig. 6.5 to 6.8, 6.10, 6.11: (a) metrics and (b) resources by threshold, the baselines at the left.

    Several sweeps stand beside each other, e.g. this run's and the thesis's
    (`thesis_numbers.load("raw_ctx20")`); each has its own axes. Dotted lines repeat the full model's score.
    Where a sweep has no measured energy, FLOPs take the place of its panel, and it says so.

    Args:
        sweeps: one row a setting (see `settings`) of one model, corpus and context: `model`, `language`,
            `context_fraction`, `label`; the metrics `codebleu`, `codebleu_syntax`, `codebleu_dataflow`,
            `rouge_l`, `bleu` in [0, 1], with `<metric>_low` and `<metric>_high` drawn as error bars where
            they are columns; `energy_wh` and `time_s` (all samples; energy NaN when not measured),
            `throughput` (tokens a second), `mean_layers` (1..L), and `flops` (a token) when energy was not
            measured. Where `agents` of a threshold are more than its `timed_agents`, the figure says what is
            of which.
    """
    if not sweeps:
        raise InputError("The results by threshold need at least one sweep.")
    figure = blank_figure(5.4 * len(sweeps), 6.2)
    grid = figure.add_gridspec(3, 2 * len(sweeps), height_ratios=[1.5, 1, 1])
    for i, sweep in enumerate(sweeps):
        left = 2 * i
        metrics_ax = figure.add_subplot(grid[0, left : left + 2])
        _draw_sweep(metrics_ax, [figure.add_subplot(grid[1 + k // 2, left + k % 2]) for k in range(4)], sweep)
    outside_legend(figure, entries_of(figure.axes[0]))
    return finished(figure)


def _draw_sweep(metrics_ax: Axes, resource_axes: list[Axes], sweep: pd.DataFrame) -> None:
    exhibit = "The results by threshold"
    need(sweep, ["model", "language", "context_fraction", "label", *METRICS, *list(RESOURCES)[:4]], exhibit)
    measured = sweep["energy_wh"].notna().any()
    resources = [name for name in RESOURCES if name != ("flops" if measured else "energy_wh")]
    need(sweep, resources, exhibit)
    model, language, context = (
        only(sweep, column, exhibit) for column in ("model", "language", "context_fraction")
    )
    rows = by_label(sweep)
    order = list(rows.index)
    for ax in [metrics_ax, *resource_axes]:
        dress(ax)
    draw_metrics(metrics_ax, rows, order, list(METRICS))
    metrics_ax.set_ylim(0, 1.05 * metrics_ax.get_ylim()[1])
    label(
        metrics_ax,
        f"{model}, {LANGUAGES[language]}, context {context:.0%}\n(a) accuracy metrics",
        _of_which_agents(sweep),
        "score",
    )
    fills = [REFERENCES[text][1] if text in REFERENCES else model_colours([model])[model] for text in order]
    for k, (ax, column) in enumerate(zip(resource_axes, resources, strict=True)):
        name, unit = RESOURCES[column]
        values = rows[column].to_numpy(float) / unit
        ax.bar(range(len(order)), np.nan_to_num(values), color=fills, width=0.75)
        if np.isnan(values).all():
            ax.set_yticks([])
            note(ax, "not measured at this context")
        for position in np.flatnonzero(np.isnan(values) & ~np.isnan(values).all()):
            ax.text(position, 0, " not measured", rotation=90, ha="center", va="bottom", fontsize=style.SMALL)
        names = [text.replace("\n", " ") for text in setting_names(order)] if k >= 2 else [""] * len(order)
        ax.set_xticks(range(len(order)), names, rotation=90, fontsize=style.SMALL)
        ax.set_title(f"(b) {name}" if k == 0 else name, fontsize=style.NORMAL, loc="left")
    if not measured:
        resource_axes[0].set_title(f"(b) {style.NOT_MEASURED}\ntime [s]", fontsize=style.NORMAL, loc="left")


def _of_which_agents(sweep: pd.DataFrame) -> str:
    """What is a mean over agents and what is the first one's, where they differ."""
    if "agents" not in sweep or not (sweep["agents"] > sweep["timed_agents"]).any():
        return ""
    return (
        f"of a threshold: scores, layers and FLOPs are means over {sweep['agents'].max():.0f} agents,\n"
        "time, energy and throughput are the first agent's"
    )


def chrf_levenshtein(frame: pd.DataFrame) -> Figure:
    """Fig. 6.9: ChrF and mean Levenshtein distance by threshold; a row a context.

    Every model has a line, and its full model a dashed one in the same colour.

    Args:
        frame: one row a setting (see `settings`) of one corpus: `model`, `language`, `context_fraction`,
            `label`, `chrf` in [0, 100], `levenshtein` (characters). References other than "full" are not
            drawn.
    """
    exhibit = "ChrF and Levenshtein distance"
    need(frame, ["model", "language", "context_fraction", "label", "chrf", "levenshtein"], exhibit)
    language = only(frame, "language", exhibit)
    colours = model_colours(frame["model"])
    contexts = sorted(frame["context_fraction"].unique())
    figure, axes = new_figure(len(contexts), 2, (4.0, 2.5))
    for row, context in enumerate(contexts):
        here = frame[frame["context_fraction"] == context]
        sweeps = {model: by_label(rows) for model, rows in here.groupby("model")}
        order = [
            text
            for text in in_order(t for rows in sweeps.values() for t in rows.index)
            if text not in REFERENCES
        ]
        for ax, column, name in zip(
            axes[row], ["chrf", "levenshtein"], ["ChrF", "Levenshtein distance"], strict=True
        ):
            for model, rows in sweeps.items():
                agent = rows[rows.index.isin(order)]
                curve(ax, [order.index(text) for text in agent.index], agent[column], colours[model], model)
                if "full" in rows.index:
                    ax.axhline(
                        rows.loc["full", column],
                        color=colours[model],
                        linestyle="--",
                        linewidth=1,
                        label=f"{model}, full model",
                    )
            ax.set_xticks(range(len(order)), order)
            label(ax, f"{LANGUAGES[language]}, context {context:.0%}", "threshold T", name)
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def tradeoff(frame: pd.DataFrame, x: str, y: str) -> Figure:
    """Quality against cost, a curve an exit criterion; a row a model, a column a corpus.

    Args:
        frame: one row a setting: `model`, `language`, `criterion` ("full" for the full model), and the
            columns `x` and `y`; `<y>_low` and `<y>_high` are drawn as error bars where they are columns.
        x: the cost, e.g. "mean_layers" or "time_s".
        y: the quality, e.g. "agreement" or "rouge_l".
    """
    need(frame, ["model", "language", "criterion", x, y], "The trade-off")
    models, languages = sorted(frame["model"].unique()), sorted(frame["language"].unique())
    criteria = sorted(set(frame["criterion"]) - {"full"})
    others = [name for name in criteria if name not in CRITERIA]
    if len(others) > len(OTHER_CRITERIA):
        raise InputError(
            f"The trade-off has colours for {len(OTHER_CRITERIA)} further criteria; got {', '.join(others)}."
        )
    colours = CRITERIA | dict(zip(others, OTHER_CRITERIA, strict=False))
    markers = dict(zip(criteria, "osD^vP*Xh<>", strict=False))
    figure, axes = new_figure(len(models), len(languages), (4.3, 3.0))
    entries = {}
    for row, model in enumerate(models):
        for column, language in enumerate(languages):
            ax = axes[row, column]
            here = frame[(frame["model"] == model) & (frame["language"] == language)]
            for criterion, rows in here.groupby("criterion"):
                rows = rows.sort_values(x)
                if criterion == "full":
                    ax.axhline(rows[y].iloc[0], color=style.FULL_COLOUR, linestyle="--", linewidth=1)
                    entries["full model"] = ax.plot(
                        rows[x], rows[y], "X", color=style.FULL_COLOUR, markersize=7
                    )[0]
                    continue
                look = {
                    "color": colours[criterion],
                    "marker": markers[criterion],
                    "markersize": 4,
                    "linewidth": 1.3,
                }
                errors = (
                    [rows[y] - rows[f"{y}_low"], rows[f"{y}_high"] - rows[y]] if f"{y}_low" in rows else None
                )
                entries[criterion] = ax.errorbar(
                    rows[x], rows[y], yerr=errors, capsize=2, elinewidth=0.8, **look
                )
            ax.grid(True, axis="x", color="#DDDDDD", linewidth=0.6)
            ax.xaxis.set_major_locator(MaxNLocator(6))
            label(ax, f"{model}, {LANGUAGES[language]}", AXIS_NAMES.get(x, x), AXIS_NAMES.get(y, y))
            if here.empty:
                note(ax, "no data")
    outside_legend(figure, dict(sorted(entries.items())))
    return finished(figure)
