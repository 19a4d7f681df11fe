"""How sure a number is when a whole unit of what it is computed from, such as a project, is left out in turn.

Scores of a corpus (BLEU, CodeBLEU) and ratios are no means over samples, so that there are no values to draw again; but they can be
computed without a project. With P projects and P numbers so computed, the squared standard error is (P - 1) / P times the sum
of their squared distances from the number itself, and Student's t with P - 1 degrees of freedom gives interval and test (the
cluster jackknife, CV3 of MacKinnon, Nielsen & Webb 2023). With a dozen projects it is more careful than a percentile
bootstrap, and it has tails, which a correction for many tests needs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Estimate(NamedTuple):
    """A number, its standard error (NaN where it is not known), the degrees of freedom, and how many units it stands on."""

    value: float
    error: float
    freedom: float
    units: int


def jackknife(
    rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], units: Sequence[str], strata: str = ""
) -> Estimate:
    """`statistic(rows)` and its standard error, leaving out one unit of rows in turn.

    Parameters
    ----------
    units: columns that together name a row's unit.
    strata: a column whose values were drawn apart from each other, such as two languages that are compared; the degrees of
        freedom are then those of the smallest stratum.

    A single unit in any stratum says nothing about the spread, and neither does a statistic that is not known without some unit:
    the error is then NaN.
    """
    value = float(statistic(rows))
    names = rows.groupby(list(units), sort=False).ngroup()
    groups = rows[strata] if strata else pd.Series(0, index=rows.index)
    variance, smallest = 0.0, np.inf
    for group in groups.unique():
        own = names[groups == group].unique()
        smallest = min(smallest, len(own) - 1)
        if len(own) > 1:
            left_out = [statistic(rows[~((groups == group) & (names == unit))]) for unit in own]
            variance += (len(own) - 1) / len(own) * np.sum((np.array(left_out) - value) ** 2)
    error = float(np.sqrt(variance)) if smallest > 0 else float("nan")
    # Numbers that differ by rounding alone have no spread.
    error = 0.0 if error < 1e-12 * max(1.0, abs(value)) else error
    return Estimate(value, error, float(smallest), names.nunique())
