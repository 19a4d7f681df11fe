"""The ledger of the thesis's claims, as a table and as one picture."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eelib.evaluation.claims.claim import Claim
from eelib.evaluation.claims.verdicts import FAILS, HOLDS, OPEN, UNMEASURED, VERDICTS
from eelib.report import figures as look
from eelib.report import thesis_numbers

COLOURS = {HOLDS: look.GREEN, FAILS: look.VERMILLION, OPEN: "#B5B5B5", UNMEASURED: "#E3E3E3"}
FURTHEST = 4.0  # half-widths that are drawn; what lies beyond is as clear
ROW = 0.178  # inches


def published(name: str) -> pd.DataFrame:
    """What the claims are held against: `thesis_numbers.load`, and the frames that are computed or read otherwise, by name."""
    others = {"exit_layers": thesis_numbers.load_exit_layers, "savings": thesis_numbers.savings}
    return others[name]() if name in others else thesis_numbers.load(name)


def short_number(value: float) -> str:
    """Three significant digits at most, without a tail of zeros; infinity as a sign."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{0.0 if abs(value) < 5e-4 else value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def with_interval(reading: Mapping[str, float]) -> str:
    """A reading's number with its interval, or that it has none."""
    if math.isnan(reading["low"]):
        return f"{short_number(reading['value'])} [no interval: {reading['unit']}]"
    ends = [short_number(reading[end]) for end in ("low", "high")]
    return f"{short_number(reading['value'])} [{ends[0]}, {ends[1]}]"


def ledger_table(claims: Mapping[str, Claim], ledger: pd.DataFrame, readings: pd.DataFrame) -> pd.DataFrame:
    """The ledger for a reader: a row a claim, with every number it was judged by."""
    rows = []
    for row in ledger.itertuples():
        claim, own = claims[row.key], readings[readings["key"] == row.key]
        numbers = "; ".join(
            f"{found.setting}: {with_interval(found._asdict())} ({found.unit})" for found in own.itertuples()
        )
        needed = f"needs {claim.needs}" if row.verdict == UNMEASURED else ""
        if row.verdict == OPEN:
            known = not math.isnan(row.detectable)
            needed = short_number(row.detectable) if known else "not known: one unit has no spread"
        rows.append(
            {
                "section": claim.section,
                "claim": claim.sentence,
                "verdict": row.verdict,
                "our number": claim.number,
                "is": numbers,
                "has to be": claim.tolerance,
                "p (Holm)": row.p,
                "could have been told": needed,
                "the thesis": claim.thesis,
                "the authors' numbers": f"{row.theirs}: {row.their_numbers}" if row.theirs else "",
                "exhibit": claim.exhibit,
            }
        )
    return pd.DataFrame(rows)


def counts(ledger: pd.DataFrame) -> dict[str, int]:
    """How many claims have each verdict."""
    found = ledger["verdict"].value_counts()
    return {verdict: int(found.get(verdict, 0)) for verdict in VERDICTS}


def picture(chapters: Mapping[str, list[Claim]], ledger: pd.DataFrame, readings: pd.DataFrame) -> Figure:
    """Every claim as a line: its verdict, and each of its numbers as a dot, by how far within the region it lies where the claim holds.

    The distance is in half-widths of the number's 95% interval: right of 1 it lies within beyond its interval, left of -1 out of it.
    """
    lines = sum(len(claims) + 1 for claims in chapters.values())
    figure = look.blank_figure(10.2, ROW * lines + 0.9)
    ax = figure.subplots()
    ax.axvspan(1, FURTHEST + 0.3, color=look.GREEN, alpha=0.09, linewidth=0)
    ax.axvspan(-FURTHEST - 0.3, -1, color=look.VERMILLION, alpha=0.09, linewidth=0)
    ax.axvline(0, color=look.GREY, linewidth=0.6)
    by, place = ledger.set_index("key"), 0
    for title, claims in chapters.items():
        ax.text(-11.6, place, title, fontsize=look.SMALL + 1, fontweight="bold", va="center")
        place += 1
        for claim in claims:
            row = by.loc[claim.key]
            own = readings[readings["key"] == claim.key]["margin"].dropna()
            colour = COLOURS[row["verdict"]]
            ax.text(-11.3, place, claim.short, fontsize=look.SMALL, va="center")
            ax.text(
                -5.4,
                place,
                claim.section.split(",")[0],
                fontsize=look.SMALL - 1,
                va="center",
                color=look.GREY,
            )
            ax.plot(-11.55, place, "s", color=colour, markersize=6, clip_on=False)
            ax.plot(
                own.clip(-FURTHEST, FURTHEST), np.full(len(own), place), "o", color=colour, markersize=4.2
            )
            theirs = {HOLDS: ("yes", look.GREEN), FAILS: ("no", look.VERMILLION)}.get(
                row["theirs"], ("", "black")
            )
            ax.text(FURTHEST + 0.6, place, theirs[0], fontsize=look.SMALL, va="center", color=theirs[1])
            ax.axhline(place + 0.5, color="#EEEEEE", linewidth=0.4, zorder=0)
            place += 1
    ax.set(xlim=(-11.8, FURTHEST + 1.6), ylim=(place - 0.4, -1.6), yticks=[], xticks=[-4, -1, 0, 1, 4])
    ax.set_xticklabels(["≤ -4", "-1", "0", "1", "≥ 4"], fontsize=look.SMALL)
    ax.spines[["left", "right", "top", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    heads = {-2.6: "against the claim", 0: "cannot be told", 2.6: "for the claim", FURTHEST + 0.9: "authors"}
    for x, text in heads.items():
        ax.text(x, -1.0, text, fontsize=look.SMALL, ha="center", color=look.GREY)
    ax.set_xlabel(
        "distance of each number from the edge of its region, in half-widths of its 95% interval; a line's colour is its verdict, "
        "corrected for the number of claims",
        fontsize=look.SMALL, loc="right",
    )  # fmt: skip
    marks = {
        f"{verdict}: {number}": Line2D([], [], marker="s", linestyle="", color=COLOURS[verdict])
        for verdict, number in counts(ledger).items()
    }
    look.outside_legend(figure, marks)
    return look.finished(figure)


def contradicted(claims: Mapping[str, Claim], ledger: pd.DataFrame) -> str:
    """Claims that the authors' own numbers do not bear out, with these numbers, as a list."""
    own = ledger[ledger["theirs"] == FAILS]
    spoken = (ledger["theirs"] != "").sum()
    lines = [
        f"- {claims[row.key].sentence} ({claims[row.key].section}; {claims[row.key].number}, {claims[row.key].tolerance}): {row.their_numbers}."
        for row in own.itertuples()
    ]
    head = f"The authors' numbers speak to {spoken} claims. In {len(own)} a number lies outside the region"
    return "\n".join([head + (":\n" if lines else "."), *lines])
