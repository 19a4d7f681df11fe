"""The look of every figure, and how one is saved.

Figures are drawn from tidy frames and never compute a model. They are plain `matplotlib.figure.Figure`
objects outside pyplot's global state, so that they work in threads, and they display themselves as the last
value of a notebook cell.
"""

import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from numpy.typing import ArrayLike

from eelib.errors import InputError
from eelib.report.files import exhibit_path, write_whole

# The palette of Okabe and Ito: told apart by readers with any common colour blindness.
BLACK, GREY = "#000000", "#7F7F7F"
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
)
BASE_COLOUR, FULL_COLOUR = BLACK, GREY
METRICS = {  # column: (name, colour, marker)
    "codebleu": ("CodeBLEU", BLUE, "o"),
    "codebleu_syntax": ("syntax match", SKY, "s"),
    "codebleu_dataflow": ("dataflow match", ORANGE, "D"),
    "rouge_l": ("ROUGE-L", VERMILLION, "^"),
    "bleu": ("BLEU", GREEN, "v"),
}
LANGUAGES = {"java": "Java", "python": "Python"}
NOT_MEASURED = "energy not measured on this machine"

DPI = 150
FOOTER = 0.22  # inches kept free for the stamp
SMALL, NORMAL, LARGE = 7.5, 9, 10.5  # points


class Exhibit(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
        return buffer.getvalue()


def blank_figure(width: float, height: float) -> Exhibit:
    """An empty figure of that many inches, plus the footer's strip."""
    figure = Exhibit(figsize=(width, height + FOOTER), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    bottom = FOOTER / (height + FOOTER)
    figure.get_layout_engine().set(rect=(0, bottom, 1, 1 - bottom), w_pad=0.06, h_pad=0.06)
    return figure


def new_figure(rows: int, columns: int, panel: tuple[float, float], **subplots) -> tuple[Exhibit, np.ndarray]:
    """A figure of `rows` x `columns` panels of `panel` = (width, height) inches, and its axes (always 2-d)."""
    figure = blank_figure(columns * panel[0], rows * panel[1])
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for ax in axes.flat:
        dress(ax)
    return figure, axes


def dress(ax: Axes) -> None:
    """The house look of one panel."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=NORMAL - 0.5)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)


def finished(figure: Exhibit) -> Exhibit:
    """Lay the figure out once and for good: drawing it again, in a notebook or a file, cannot move anything.

    The constrained layout starts from where the last one ended, so that a second drawing would differ in a
    pixel here and there.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def label(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Title and axis names in the house sizes."""
    ax.set_title(title, fontsize=LARGE, loc="left")
    ax.set_xlabel(x, fontsize=NORMAL)
    ax.set_ylabel(y, fontsize=NORMAL)


def curve(ax: Axes, x: ArrayLike, y: ArrayLike, colour: str, name: str, line: str = "-", **look) -> None:
    """A labelled line with small markers; `look` overrides Matplotlib's properties of it."""
    look = {"marker": "o", "markersize": 3, "linewidth": 1.3} | look
    ax.plot(x, y, color=colour, linestyle=line, label=name, **look)


def legend(ax: Axes, **kwargs) -> None:
    """A small legend inside the axes."""
    ax.legend(fontsize=SMALL, frameon=True, framealpha=0.85, edgecolor="#CCCCCC", **kwargs)


def outside_legend(figure: Figure, entries: dict[str, Artist]) -> None:
    """One legend for the whole figure, above the panels: a text for each artist, in as many columns as fit."""
    widest = 0.55 + 0.065 * max(map(len, entries))  # inches, of the line and the text
    fitting = max(1, int(figure.get_figwidth() / widest))
    rows = math.ceil(len(entries) / fitting)
    columns = math.ceil(len(entries) / rows)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=columns,
        fontsize=SMALL + 0.5,
        columnspacing=1.5,
        frameon=False,
    )


def entries_of(ax: Axes) -> dict[str, Artist]:
    """The labelled artists of a panel, for `outside_legend`."""
    handles, texts = ax.get_legend_handles_labels()
    return dict(zip(texts, handles, strict=True))


def layer_axis(ax: Axes, total_layers: int) -> None:
    """An x-axis of layers 1..L, with a tick at the first and at every fourth one."""
    ax.set_xticks([1, *range(4, total_layers + 1, 4)])
    ax.set_xlim(0.2, total_layers + 0.8)


def note(ax: Axes, text: str) -> None:
    """A remark on the figure, in the panel's upper left corner, e.g. that energy was not measured."""
    ax.text(
        0.03,
        0.97,
        text,
        transform=ax.transAxes,
        va="top",
        fontsize=SMALL,
        style="italic",
        color=BLACK,
        bbox={"facecolor": "white", "edgecolor": "#CCCCCC", "boxstyle": "round,pad=0.25", "alpha": 0.9},
    )


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """One colour a model: blue for Llama, vermillion for OPT, whatever the size; others for others."""
    others = iter([GREEN, PURPLE, ORANGE, SKY])
    colours = {}
    for model in sorted(set(models)):
        name = model.rsplit("/", 1)[-1].lower()  # without the organisation
        if name.startswith("llama"):
            colours[model] = BLUE
        elif name.startswith("opt"):
            colours[model] = VERMILLION
        else:
            colours[model] = next(others)
    return colours


def need(frame: pd.DataFrame, columns: Sequence[str], exhibit: str) -> None:
    """Raise InputError unless the frame has rows and all these columns."""
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(
            f"{exhibit} needs the column(s) {', '.join(missing)}; the frame has {', '.join(map(str, frame))}."
        )
    if frame.empty:
        raise InputError(f"{exhibit} has nothing to draw: the frame is empty.")


def only(frame: pd.DataFrame, column: str, exhibit: str):
    """The one value that a column holds; InputError when it holds several."""
    values = list(frame[column].unique())
    if len(values) != 1:
        raise InputError(
            f"{exhibit} shows one {column} at a time; the frame holds {', '.join(map(str, values))}."
        )
    return values[0]


def printable(text: str, font: str = "DejaVu Sans") -> str:
    """Text as a reader can see it: blanks and line ends made visible, characters that the font lacks as
    escapes."""
    known = get_font(findfont(font)).get_charmap()
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    text = text.replace(" ", "\u2423") if not text.strip() else text.strip(" ")
    return "".join(c if ord(c) in known and c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def save_figure(figure: Figure, name: str, folder: Path | str, stamp: str) -> list[Path]:
    """Write `<folder>/<name>.png` (150 dpi) and `.pdf`, each whole or not at all; the same figure gives the
    same bytes.

    The stamp (e.g. "laptop profile · commit 1a2b3c4 · inputs 9f8e7d6c") stands small in the footer and in the
    metadata (PNG: Title, Description; PDF: Title, Subject). No file holds a date.

    Returns:
        The two paths, PNG first.
    """
    footer = figure.text(
        0.995, 0.06 / figure.get_figheight(), stamp, ha="right", va="bottom", fontsize=6.5, color="#555555"
    )
    footer.set_in_layout(False)
    footer.set_parse_math(False)
    formats = {
        "png": {"Software": None, "Title": name, "Description": stamp},
        "pdf": {"CreationDate": None, "Title": name, "Subject": stamp},
    }
    paths = []
    try:
        for suffix, metadata in formats.items():
            buffer = BytesIO()
            figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
            paths.append(write_whole(exhibit_path(folder, name, f".{suffix}"), buffer.getvalue()))
    finally:
        footer.remove()
    return paths
