"""The settings along the x-axis of the threshold figures, and the metric lines over them.

A *setting* is a row with a `label`: a reference ("base", "plain", "full", "full_cached") or a threshold of
the agent (0.6 or "0.6").
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import METRICS, curve

REFERENCES = {  # label: (name on the axis, colour)
    "base": ("base", style.BASE_COLOUR),
    "plain": ("plain", "#4D4D4D"),
    "full": ("full", style.FULL_COLOUR),
    "full_cached": ("full,\ncached", "#BFBFBF"),
}


def by_label(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows indexed by their label as text, in the order of the axis: the references, then rising
    thresholds.

    Raises:
        InputError: when a label is neither a reference nor a threshold in [0, 1], or occurs twice.
    """
    labels = [_label(value) for value in rows["label"]]
    if len(set(labels)) != len(labels):
        raise InputError(
            "A sweep needs one row a setting; a label occurs twice (several seeds, caches or contexts?)."
        )
    return rows.set_axis(labels, axis="index").loc[in_order(labels)]


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels as the axis shows them, each once."""
    present = set(labels)
    return [name for name in REFERENCES if name in present] + sorted(present - set(REFERENCES), key=float)


def setting_names(labels: Sequence[str]) -> list[str]:
    """What stands under the axis: "full", "T=0.6"."""
    return [REFERENCES[text][0] if text in REFERENCES else f"T={text}" for text in labels]


def draw_metrics(
    ax: Axes,
    rows: pd.DataFrame,
    order: Sequence[str],
    metrics: Sequence[str],
    line: str = "-",
    suffix: str = "",
) -> None:
    """Lines over the thresholds; unconnected markers for the references left of them, and the full model's
    level dotted.

    Args:
        rows: from `by_label`; `<metric>_low` and `<metric>_high` are drawn as error bars where they are
            columns.
        order: the labels along the axis, at least those of the rows.
        line: the style of the lines; markers are hollow unless it is "-".
    """
    x = np.array([order.index(text) for text in rows.index])
    references = np.array([text in REFERENCES for text in rows.index])
    for metric in metrics:
        name, colour, marker = METRICS[metric]
        values = rows[metric].to_numpy(float)
        face = colour if line == "-" else "white"
        look = {"marker": marker, "markerfacecolor": face, "markersize": 4.5}
        curve(ax, x[~references], values[~references], colour, name + suffix, line, **look)
        ax.plot(x[references], values[references], linestyle="none", color=colour, **look)
        if f"{metric}_low" in rows:
            errors = [values - rows[f"{metric}_low"], rows[f"{metric}_high"] - values]
            ax.errorbar(x, values, yerr=errors, linestyle="none", color=colour, elinewidth=0.8, capsize=2)
        if "full" in rows.index and line == "-":
            ax.axhline(rows.loc["full", metric], color=colour, linestyle=":", linewidth=0.8, alpha=0.7)
    if references.any() and line == "-":
        ax.axvline(sum(text in REFERENCES for text in order) - 0.5, color="#999999", linewidth=0.8)
    ax.set_xticks(range(len(order)), setting_names(order))


def _label(value: object) -> str:
    if value in REFERENCES:
        return str(value)
    try:
        threshold = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A setting is one of {', '.join(REFERENCES)} or a threshold in [0, 1]; {value!r} is neither."
        ) from error
    if not 0 <= threshold <= 1:
        raise InputError(f"A setting's threshold lies in [0, 1]; {value!r} does not.")
    return f"{threshold:g}"
