"""Figures 1.1 and 4.6 to 4.10: what the aggregated loss is, how it trains, and what layers decode then."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import (
    LANGUAGES,
    curve,
    entries_of,
    finished,
    label,
    layer_axis,
    model_colours,
    need,
    new_figure,
    note,
    only,
    outside_legend,
    printable,
)

AGREES, DIFFERS, LAST = "#A6DBA0", "#FFFFFF", "#D9D9D9"
LONGEST_TOKEN = 12  # characters shown in a cell of the token grid
KINDS = {"base": "base model", "plain": "plainly fine-tuned", "aggregated": "aggregated loss"}


def token_grid(tokens_by_layer: list[list[str]], exit_points: list[int], total_layers: int) -> Figure:
    """Fig. 1.1: the token that each exit point predicts at each position; green if it is the last layer's.

    Args:
        tokens_by_layer: one list of decoded tokens a row: the exit points in order, then the last layer, all
            of one length.
        exit_points: layers counted from 1.
        total_layers: L.
    """
    layers = [*exit_points, total_layers]
    positions = {len(tokens) for tokens in tokens_by_layer}
    if len(tokens_by_layer) != len(layers) or len(positions) != 1 or 0 in positions:
        raise InputError(
            f"The token grid needs {len(layers)} rows of one length, for the layers {layers}; "
            f"it got {len(tokens_by_layer)} rows of length {sorted(positions)}."
        )
    count = positions.pop()
    figure, axes = new_figure(1, 1, (max(5.0, 0.6 + 0.86 * count), 0.9 + 0.3 * len(layers)))
    ax = axes[0, 0]
    last = tokens_by_layer[-1]
    for row, tokens in enumerate(tokens_by_layer):
        for column, token in enumerate(tokens):
            fill = LAST if row == len(layers) - 1 else AGREES if token == last[column] else DIFFERS
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor="#999999", linewidth=0.6))
            text = printable(token, "DejaVu Sans Mono")
            text = text if len(text) <= LONGEST_TOKEN else text[: LONGEST_TOKEN - 1] + "…"
            ax.text(
                column + 0.5,
                row + 0.5,
                text,
                ha="center",
                va="center",
                family="DejaVu Sans Mono",
                fontsize=style.NORMAL - 0.5 if len(text) <= 8 else style.SMALL - 1,
                parse_math=False,
            )
    ax.set(xlim=(0, count), ylim=(len(layers), 0))
    ax.set_xticks([i + 0.5 for i in range(count)], [str(i + 1) for i in range(count)])
    ax.set_yticks([i + 0.5 for i in range(len(layers))], [f"layer {layer}" for layer in layers])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    label(ax, "", "generated token")
    names = {"as the last layer": AGREES, "other token": DIFFERS, "last layer": LAST}
    patches = [Patch(facecolor=colour, edgecolor="#999999", label=name) for name, colour in names.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=3, fontsize=style.SMALL, frameon=False)
    return finished(figure)


def loss_weights(frame: pd.DataFrame) -> Figure:
    """Fig. 4.6: the weight of every exit point in the aggregated loss, a panel a model, a colour a half.

    Args:
        frame: `model`, `layer` (1..L), `weight`, `half` ("first", "second" or "last").
    """
    need(frame, ["model", "layer", "weight", "half"], "The loss weights")
    colours = {"first": style.GREEN, "second": style.BLUE, "last": style.GREY}
    names = {"first": "first half of the layers", "second": "second half of the layers", "last": "last layer"}
    models = sorted(frame["model"].unique())
    figure, axes = new_figure(1, len(models), (4.4, 3.0), sharey=True)
    for ax, model in zip(axes[0], models, strict=True):
        rows = frame[frame["model"] == model].sort_values("layer")
        ax.bar(
            [str(layer) for layer in rows["layer"]],
            rows["weight"],
            color=[colours[half] for half in rows["half"]],
        )
        label(ax, model, "layer", "weight" if ax is axes[0, 0] else "")
    axes[0, -1].legend(
        handles=[Patch(color=colours[half], label=names[half]) for half in colours],
        fontsize=style.SMALL,
        edgecolor="#CCCCCC",
    )
    return finished(figure)


def training_curves(frame: pd.DataFrame) -> Figure:
    """Fig. 4.7 a-d: aggregated loss (above) and gradient norm (below) over steps; a column a corpus.

    Args:
        frame: one row a logged step: `model`, `language`, `step`, `loss`, `grad_norm`.
    """
    need(frame, ["model", "language", "step", "loss", "grad_norm"], "The training curves")
    colours = model_colours(frame["model"])
    languages = sorted(frame["language"].unique())
    figure, axes = new_figure(2, len(languages), (4.2, 2.4), sharex="col")
    entries = {}
    for column, language in enumerate(languages):
        for row, (value, name) in enumerate({"loss": "training loss", "grad_norm": "gradient norm"}.items()):
            ax = axes[row, column]
            for model, steps in frame[frame["language"] == language].groupby("model"):
                steps = steps.sort_values("step")
                curve(ax, steps["step"], steps[value], colours[model], model, marker="")
            ax.set_ylim(bottom=0)
            title = f"({'abcd'[len(languages) * row + column]}) {LANGUAGES[language]}: {name}"
            label(ax, title, "step" if row else "", name)
            entries |= entries_of(ax)
    outside_legend(figure, entries)
    return finished(figure)


def tokens_seen(frame: pd.DataFrame) -> Figure:
    """Agreement with the last layer (above) and accuracy (below) over the tokens a fine-tuning has seen; a curve a layer.

    Args:
        frame: `kind`, `language`, `layer`, `tokens_seen`, `accuracy`, `agreement`; the aggregated fine-tuning is drawn, the
            last layer's accuracy by plain fine-tuning dashed where it is there.
    """
    need(
        frame,
        ["kind", "language", "layer", "tokens_seen", "accuracy", "agreement"],
        "The curve over tokens seen",
    )
    languages = sorted(frame["language"].unique())
    last = int(frame["layer"].max())
    layers = sorted(frame["layer"].unique())
    colours = {layer: colormaps["viridis"](0.9 * i / (len(layers) - 1)) for i, layer in enumerate(layers)}
    figure, axes = new_figure(2, len(languages), (4.2, 2.6), sharex="col")
    entries = {}
    main = "aggregated" if "aggregated" in set(frame["kind"]) else frame["kind"].iloc[0]
    for column, language in enumerate(languages):
        rows = frame[frame["language"] == language]
        for row, what in enumerate(("agreement", "accuracy")):
            ax = axes[row, column]
            for layer, points in rows[rows["kind"] == main].groupby("layer"):
                if what == "accuracy" or layer != last:
                    thousands = points["tokens_seen"] / 1e3
                    curve(ax, thousands, points[what], colours[layer], f"layer {layer}")
            plain = rows[(rows["kind"] == "plain") & (rows["layer"] == last)]
            if what == "accuracy" and len(plain):
                thousands = plain["tokens_seen"] / 1e3
                curve(ax, thousands, plain[what], style.GREY, f"layer {last}, plain", "--", marker="")
            ax.set_ylim(0, 1)
            name = {"agreement": "agreement with the last layer", "accuracy": "next-token accuracy"}[what]
            label(ax, LANGUAGES[language] if row == 0 else "", "thousand tokens seen" if row else "", name)
            entries |= entries_of(ax)
    outside_legend(figure, entries)
    return finished(figure)


def epoch_metrics(frame: pd.DataFrame) -> Figure:
    """Fig. 4.8: ROUGE-L and CodeBLEU when always leaving at a layer, a curve an epoch, the base in black.

    Args:
        frame: `epoch` (1, 2, ... or "base"), `layer` (1..L), `rouge_l`, `codebleu`.
    """
    need(frame, ["epoch", "layer", "rouge_l", "codebleu"], "The metrics by epoch")
    epochs = sorted({epoch for epoch in frame["epoch"] if epoch != "base"}, key=float)
    figure, axes = new_figure(1, 2, (4.3, 3.2))
    for ax, metric in zip(axes[0], ["rouge_l", "codebleu"], strict=True):
        for i, epoch in enumerate(epochs):
            rows = frame[frame["epoch"] == epoch].sort_values("layer")
            shade = colormaps["viridis"](0.9 * i / max(1, len(epochs) - 1))
            curve(ax, rows["layer"], rows[metric], shade, f"epoch {epoch}", linewidth=1)
        base = frame[frame["epoch"] == "base"].sort_values("layer")
        curve(ax, base["layer"], base[metric], style.BASE_COLOUR, "base model", linewidth=1.8)
        name = style.METRICS[metric][0]
        label(ax, name, "exit layer", name)
        layer_axis(ax, frame["layer"].max())
        ax.set_ylim(bottom=0)
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)


def layer_accuracy(frame: pd.DataFrame, exit_points: dict[str, list[int]]) -> Figure:
    """Fig. 4.9: what the next token decoded from each layer is worth, a row a model, a column a corpus.

    Solid: accuracy; dotted: agreement with the last layer. The base model is black, the plainly fine-tuned
    one grey, and the one with the aggregated loss has the model's colour. Exit points are the shaded layers.

    Args:
        frame: `model`, `language`, `kind` ("base", "plain", "aggregated"), `layer` (1..L), `accuracy` (the
            share equal to the reference; NaN where unknown), `agreement` (the share equal to the last layer's
            prediction).
        exit_points: layers counted from 1, by model.
    """
    need(frame, ["model", "language", "kind", "layer", "accuracy", "agreement"], "The accuracy by layer")
    models, languages = sorted(frame["model"].unique()), sorted(frame["language"].unique())
    colours = model_colours(models)
    figure, axes = new_figure(len(models), len(languages), (4.3, 2.6), sharey=True)
    entries = {}
    for row, model in enumerate(models):
        shades = {"base": style.BASE_COLOUR, "plain": style.GREY, "aggregated": colours[model]}
        for column, language in enumerate(languages):
            ax = axes[row, column]
            rows = frame[(frame["model"] == model) & (frame["language"] == language)].sort_values("layer")
            for kind, name in KINDS.items():
                of_kind = rows[rows["kind"] == kind]
                if of_kind.empty:
                    continue
                curve(ax, of_kind["layer"], of_kind["accuracy"], shades[kind], name)
                curve(ax, of_kind["layer"], of_kind["agreement"], shades[kind], "", ":", marker="")
                name = f"{name}, {model}" if kind == "aggregated" else name
                entries[name] = Line2D([], [], color=shades[kind], linewidth=1.5)
            for layer in exit_points[model]:
                ax.axvspan(layer - 0.35, layer + 0.35, color="#EEEEEE", zorder=0)
            label(ax, f"{model}, {LANGUAGES[language]}", "layer", "share of tokens" if column == 0 else "")
            ax.set_ylim(0, 1.02)
            layer_axis(ax, frame.loc[frame["model"] == model, "layer"].max())
            if rows.empty:
                note(ax, "no data")
    entries["solid: accuracy"] = Line2D([], [], color="#555555", marker="o", markersize=3)
    entries["dotted: agreement with the last layer"] = Line2D([], [], color="#555555", linestyle=":")
    outside_legend(figure, entries)
    return finished(figure)


def fixed_exit_metrics(frame: pd.DataFrame) -> Figure:
    """Fig. 4.10: metrics, time and energy over all samples when always leaving at one layer, a line a model.

    Where no energy was measured its panel shows FLOPs a token, and says so. A panel has the layers that are not NaN,
    and says so where these are not all.

    Args:
        frame: one row a model x layer of one corpus: `model`, `language`, `layer` (1..L), `rouge_l`,
            `codebleu`, `bleu`, `levenshtein` (characters), `time_s` (all samples), `energy_j` (all samples;
            NaN when not measured), and `flops` (a token) then.
    """
    exhibit = "The metrics by fixed exit"
    columns = [
        "model",
        "language",
        "layer",
        "rouge_l",
        "codebleu",
        "bleu",
        "levenshtein",
        "time_s",
        "energy_j",
    ]
    need(frame, columns, exhibit)
    language = only(frame, "language", exhibit)
    if frame.duplicated(["model", "layer"]).any():
        raise InputError(
            f"{exhibit} needs one row a model and layer; the frame has several (of several kinds?)."
        )
    measured = frame["energy_j"].notna().any()
    if measured:
        energy = ("energy_j", "energy [kJ]", 1e3)
    else:
        need(frame, ["flops"], exhibit)
        energy = ("flops", f"{style.NOT_MEASURED}\nGFLOPs a token", 1e9)
    panels = [
        ("rouge_l", "ROUGE-L", 1),
        ("codebleu", "CodeBLEU", 1),
        ("bleu", "BLEU", 1),
        ("levenshtein", "Levenshtein distance [characters]", 1),
        energy,
        ("time_s", "time [s]", 1),
    ]
    colours = model_colours(frame["model"])
    figure, axes = new_figure(2, 3, (3.2, 2.4))
    for ax, (column, name, unit) in zip(axes.flat, panels, strict=True):
        for model, rows in frame.groupby("model"):
            known = rows.dropna(subset=column).sort_values("layer")
            curve(ax, known["layer"], known[column] / unit, colours[model], f"{model}, {LANGUAGES[language]}")
        label(ax, name, "exit layer" if frame[column].notna().all() else "exit layer (exit points alone)")
        layer_axis(ax, frame["layer"].max())
        ax.set_ylim(bottom=0)
    outside_legend(figure, entries_of(axes[0, 0]))
    return finished(figure)
