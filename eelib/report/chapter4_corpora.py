"""Figures 4.2 to 4.4: the corpora, from the token lists of their files."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eelib.errors import InputError
from eelib.report import figures as style
from eelib.report.figures import LANGUAGES, finished, label, need, new_figure, printable

LONGEST_SHOWN = 5000  # tokens; the thesis cuts the axis there
MOST_FREQUENT = 20


def length_distribution(frame: pd.DataFrame, language: str) -> Figure:
    """Fig. 4.2 and 4.4a: how many whitespace tokens a file has, up to 5000, and which share has more.

    Args:
        frame: one row a file: `language`, `tokens` (count).
        language: "java" or "python".
    """
    need(frame, ["language", "tokens"], "The distribution of file lengths")
    tokens = frame.loc[frame["language"] == language, "tokens"].to_numpy()
    if len(tokens) == 0:
        raise InputError(f"The distribution of file lengths has no file of language {language!r}.")
    figure, axes = new_figure(1, 1, (5.6, 3.2))
    ax = axes[0, 0]
    ax.hist(tokens[tokens <= LONGEST_SHOWN], bins=np.arange(0, LONGEST_SHOWN + 1, 100), color=style.BLUE)
    ax.axvline(
        np.median(tokens),
        color=style.VERMILLION,
        linewidth=1.4,
        label=f"median {np.median(tokens):,.0f} tokens",
    )
    ax.set_xlim(0, LONGEST_SHOWN)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    longer = float(np.mean(tokens > LONGEST_SHOWN))
    label(
        ax, f"{LANGUAGES[language]}: length of {len(tokens):,} files", "whitespace tokens in a file", "files"
    )
    ax.legend(
        loc="upper right",
        title=f"{longer:.2%} longer than {LONGEST_SHOWN:,}",
        title_fontsize=style.SMALL,
        fontsize=style.SMALL,
        edgecolor="#CCCCCC",
    )
    return finished(figure)


def frequent_tokens(frame: pd.DataFrame, language: str) -> Figure:
    """Fig. 4.3a: the 20 most frequent tokens.

    Args:
        frame: one row a token: `token`, `count`; in any order, ties by token.
        language: "java" or "python", for the title.
    """
    need(frame, ["token", "count"], "The most frequent tokens")
    top = frame.sort_values(["count", "token"], ascending=[False, True]).head(MOST_FREQUENT)
    figure, axes = new_figure(1, 1, (5.6, 4.4))
    ax = axes[0, 0]
    positions = np.arange(len(top))
    ax.barh(positions, top["count"], color=style.BLUE)
    ax.set_yticks(positions, [printable(token, "DejaVu Sans Mono") for token in top["token"]])
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_fontfamily("DejaVu Sans Mono")
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.grid(True, axis="x", color="#DDDDDD", linewidth=0.6)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.locator_params(axis="x", nbins=6)
    label(ax, f"{LANGUAGES[language]}: the {len(top)} most frequent tokens", "occurrences")
    return finished(figure)


def import_share(frame: pd.DataFrame) -> Figure:
    """Fig. 4.3b and 4.4b: which share of a file's tokens its import and package statements are (mean).

    Args:
        frame: one row a file: `language`, `share` in [0, 1].
    """
    need(frame, ["language", "share"], "The share of import statements")
    languages = sorted(frame["language"].unique())
    figure, axes = new_figure(1, len(languages), (3.2, 3.0))
    for ax, language in zip(axes[0], languages, strict=True):
        shares = frame.loc[frame["language"] == language, "share"]
        mean = float(shares.mean())
        ax.pie(
            [mean, 1 - mean],
            startangle=90,
            counterclock=False,
            colors=[style.VERMILLION, style.SKY],
            wedgeprops={"width": 0.42, "edgecolor": "white"},
        )
        ax.text(
            0,
            0,
            f"{mean:.1%}\nimports",
            ha="center",
            va="center",
            fontsize=style.LARGE,
            color=style.VERMILLION,
        )
        label(
            ax,
            f"{LANGUAGES[language]} ({len(shares):,} files)",
            f"imports {mean:.1%}, other code {1 - mean:.1%}",
        )
    return finished(figure)
