"""From claims and results to the ledger: readings, verdicts corrected for their number, and what could have been told."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from eelib.evaluation.claims.claim import Claim, Load, Reading
from eelib.evaluation.claims.results import Results

HOLDS, FAILS, OPEN, UNMEASURED = "holds", "does not hold", "cannot be told at this size", "not measured here"
VERDICTS = (HOLDS, FAILS, OPEN, UNMEASURED)
LEVEL = 0.05  # chance that any verdict of a ledger on what is measured is false


def readings_frame(claims: Mapping[str, Claim], results: Results) -> pd.DataFrame:
    """Every reading of every claim: `key`, `setting`, `value`, `low`, `high` (95%, of the number alone), `region_low`, `region_high`, `unit`,
    `margin` (`Reading.margin`), and the reading itself, `reading`."""
    rows = []
    for key, claim in claims.items():
        for found in claim.check(results):
            low, high = found.interval
            row = {"key": key, "setting": found.setting, "value": found.value, "low": low, "high": high}
            row |= {"region_low": found.region[0], "region_high": found.region[1], "unit": found.unit}
            rows.append(row | {"margin": found.margin, "reading": found})
    columns = [
        "key",
        "setting",
        "value",
        "low",
        "high",
        "region_low",
        "region_high",
        "unit",
        "margin",
        "reading",
    ]
    return pd.DataFrame(rows, columns=columns)


def chances(readings: list[Reading]) -> tuple[float, float]:
    """(p that a claim that is called holding does not, p that one that is called failing holds).

    A claim holds if all its numbers lie in their regions, so the worst of them decides (intersection-union test, Berger 1982); it fails
    if any lies outside, so the best decides, times their number (Bonferroni).
    """
    holding = max(found.inside for found in readings)
    failing = min(1.0, len(readings) * min(found.outside for found in readings))
    return holding, failing


def least_sure(readings: list[Reading]) -> Reading:
    """The reading that keeps a claim from holding, or is nearest to it."""
    return max(readings, key=lambda found: found.inside)


def holm(chances: pd.Series) -> pd.Series:
    """p-values adjusted for their number, step by step from the smallest (Holm 1979)."""
    ordered = chances.sort_values()
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1.0)[chances.index]


def ledger(claims: Mapping[str, Claim], results: Results, load: Load) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ledger and its readings (`readings_frame`).

    The ledger has one row a claim: `key`, `verdict`, `p` (two directions, adjusted by Holm over the claims measured; NaN where nothing is),
    `detectable` (how far within its region the least sure number would have to lie to be told with a power of 0.8, whatever the other
    claims say), `theirs` (what the authors' numbers say, "holds" or "does not hold", without an interval, or empty) and
    `their_numbers`.
    """
    readings = readings_frame(claims, results)
    by = readings.groupby("key", sort=False)["reading"].agg(list)
    both = pd.DataFrame([chances(own) for own in by], columns=["holding", "failing"], index=by.index)
    adjusted = holm((2 * both.min(axis=1)).clip(upper=1.0))
    rows = []
    for key, claim in claims.items():
        row = {"key": key, "verdict": UNMEASURED, "p": math.nan, "detectable": math.nan}
        if key in by.index:
            row["p"] = adjusted[key]
            told = both.loc[key, "holding"] < both.loc[key, "failing"]
            row["verdict"] = OPEN if row["p"] > LEVEL else HOLDS if told else FAILS
            level = LEVEL / 2 / len(by)
            row["detectable"] = least_sure(by[key]).detectable(level)
        theirs = [
            found
            for found in (claim.published(load) if claim.published else [])
            if found.value == found.value
        ]
        row["theirs"] = _point_verdict(theirs)
        row["their_numbers"] = "; ".join(f"{round(found.value, 9):.3g} ({found.setting})" for found in theirs)
        rows.append(row)
    return pd.DataFrame(rows), readings


def _point_verdict(readings: list[Reading]) -> str:
    if not readings:
        return ""
    inside = all(found.region[0] <= found.value <= found.region[1] for found in readings)
    return HOLDS if inside else FAILS
