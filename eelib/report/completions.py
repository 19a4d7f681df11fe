"""Listings 6 and 7, with what they lack: a completion beside the truth, every token coloured by the layer it left at."""

import textwrap

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eelib.report.figures import GREY, VERMILLION, finished, new_figure, printable

WIDTH = 96  # characters of a line
FONT, SIZE = "DejaVu Sans Mono", 7.5
CHARACTER = 0.66 * SIZE / 72  # inches: that font's advance, 0.602 of its size, and air
LABELS = 12  # characters kept for the names of the lines
SHADES = colormaps["GnBu"]


def shade(layer: int, total_layers: int) -> tuple[float, ...]:
    """The colour of an exit: the deeper, the darker, and never too dark for black text."""
    return SHADES(0.05 + 0.6 * layer / total_layers)


def lines_of(tokens: list[str]) -> list[list[int]]:
    """Places of the tokens by line, none longer than `WIDTH` characters unless a token is."""
    lines, used = [[]], 0
    for place, token in enumerate(tokens):
        length = box_width(token)
        if used + length > WIDTH and lines[-1]:
            lines.append([])
            used = 0
        lines[-1].append(place)
        used += length
    return lines


def box_width(token: str) -> int:
    """Characters that a token's box takes: its text, or the two digits below it."""
    return max(len(token), 2) + 1


def side_by_side(frame: pd.DataFrame, total_layers: int) -> Figure:
    """Context, truth and completion of some samples, the completion's tokens coloured by exit layer.

    Args:
        frame: rows of `evaluation.completions.token_rows`. A token that is not the last layer's has a red edge.
        total_layers: L.
    """
    blocks = [(sample, rows.reset_index(drop=True)) for sample, rows in frame.groupby("sample", sort=False)]
    texts = []
    for sample, rows in blocks:
        context, truth = (_wrapped(rows.loc[0, name]) for name in ("context", "truth"))
        tokens = [printable(token, FONT) for token in rows["token"]]
        texts.append((sample, context, truth, tokens, lines_of(tokens), rows))
    heights = [1.6 + len(context) + len(truth) + 2.1 * len(lines) for _, context, truth, _, lines, _ in texts]
    figure, axes = new_figure(1, 1, ((WIDTH + LABELS + 4) * CHARACTER, 0.17 * sum(heights) + 0.2))
    ax = axes[0, 0]
    y = 0.0
    for (sample, context, truth, tokens, lines, rows), height in zip(texts, heights, strict=True):
        _text(ax, 0, y, sample[-(WIDTH + LABELS) :], color=GREY)
        for name, block, start in (("context", context, 1), ("truth", truth, 1 + len(context))):
            _text(ax, 0, y + start, name, color=GREY)
            for line, text in enumerate(block):
                _text(ax, LABELS, y + start + line, text)
        start = y + 1.1 + len(context) + len(truth)
        _text(ax, 0, start, "completion", color=GREY)
        for line, places in enumerate(lines):
            x = float(LABELS)
            for place in places:
                width = box_width(tokens[place])
                _token(ax, x, start + 2.1 * line, width, tokens[place], rows.loc[place], total_layers)
                x += width
        y += height
    ax.set(xlim=(0, WIDTH + LABELS + 2), ylim=(y, -0.7))
    ax.set_axis_off()
    return finished(figure)


def _token(ax: Axes, x: float, y: float, width: float, text: str, row: pd.Series, total_layers: int) -> None:
    edge, line = ("#999999", 0.4) if row["agrees"] else (VERMILLION, 1.2)
    colour = shade(row["exit_layer"], total_layers)
    ax.add_patch(Rectangle((x, y - 0.5), width - 0.2, 1.0, facecolor=colour, edgecolor=edge, linewidth=line))
    _text(ax, x + 0.4, y, text)
    _text(ax, x + 0.4, y + 0.95, str(row["exit_layer"]), color=GREY, fontsize=SIZE - 2)


def _text(ax: Axes, x: float, y: float, text: str, **look: object) -> None:
    look = {"fontsize": SIZE, "va": "center", "family": FONT, "parse_math": False} | look
    ax.text(x, y, text, **look)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text, FONT), WIDTH) or [""]
