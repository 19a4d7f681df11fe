"""Intervals: how far a mean, a difference or a slope could move had other samples been drawn."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from eelib.errors import InputError

# Resampled values held in memory at once by the bootstrap (float64, so 32 MiB).
_RESAMPLED_VALUES_AT_ONCE = 2**22


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


class LinearFit(NamedTuple):
    """`y = slope * x + intercept` by least squares, its coefficient of determination, and the slope's interval."""

    slope: float
    intercept: float
    r2: float
    slope_low: float
    slope_high: float


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` and its percentile bootstrap interval (`scipy.stats.bootstrap`), resampling groups of values.

    `groups` names each value's group, such as a file's project: files of one project resemble each other, so that whole
    projects are drawn again, not files (cluster bootstrap; Cameron, Gelbach & Miller 2008). Without them every value is a
    group. The percentile interval is what rliable reports, and it is defined for values of two levels (exact match) as well.
    The same arguments give the same interval.

    Degenerate cases, decided here and not by the resampling: one group says nothing about the spread, and both ends are
    NaN; equal values have an interval of no width.

    Raises:
        InputError: no value, a value that is not finite (leave unmeasured samples out before, and say how many), not as
            many groups as values, or a confidence outside (0, 1).
    """
    values = _checked_values("values", values)
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, expected a number between 0 and 1")
    groups = range(len(values)) if groups is None else list(groups)
    if len(groups) != len(values):
        raise InputError(f"groups has {len(groups)} names and values has {len(values)}, expected as many")
    place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    index = np.array([place[group] for group in groups])
    mean = float(values.mean())
    if len(place) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if np.all(values == values[0]):
        return Interval(*[float(values[0])] * 3)
    result = stats.bootstrap(
        (np.bincount(index, values), np.bincount(index)),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        n_resamples=n_resamples,
        batch=max(1, _RESAMPLED_VALUES_AT_ONCE // len(values)),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, result.confidence_interval)
    # Sums of values that cancel leave a rest of rounding, which must not tell an interval's end from 0.
    rounding = 1e-12 * np.abs(values).max()
    return Interval(mean, *(0.0 if abs(end) < rounding else end for end in (low, high)))


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` over pairs and its bootstrap interval, resampling groups of pairs.

    For two settings scored on the same samples, in the same order: what the samples have in common cancels, and the
    interval is narrower than the settings' own. A pair that differs by rounding alone is a tie. Degenerate cases and errors
    as in `bootstrap_interval`, and different lengths are an InputError.
    """
    a, b = _checked_pairs("a", a, "b", b)
    difference = np.where(np.isclose(a, b, rtol=1e-12, atol=0.0), 0.0, a - b)
    return bootstrap_interval(difference, groups, confidence, n_resamples, seed)


def linear_fit_interval(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> LinearFit:
    """Least-squares line through (x, y) and the slope's interval by Student's t (`scipy.stats.linregress`).

    Degenerate cases: two points fix the line and leave no residual, so that the slope's interval is NaN; equal `y` give
    slope 0 with an interval of no width, and r2 is NaN (there is no variance to explain).

    Raises:
        InputError: fewer than two points, different lengths, equal `x`, a value that is not finite, or a confidence
            outside (0, 1).
    """
    x, y = _checked_pairs("x", x, "y", y)
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, expected a number between 0 and 1")
    if len(x) < 2:
        raise InputError(f"a line needs at least two points, got {len(x)}")
    if np.all(x == x[0]):
        raise InputError(f"a line needs different x, all {len(x)} are {x[0]:g}")
    if np.all(y == y[0]):
        ends = (float("nan"), float("nan")) if len(x) == 2 else (0.0, 0.0)
        return LinearFit(0.0, float(y[0]), float("nan"), *ends)
    fit = stats.linregress(x, y)
    slope, intercept, r2 = float(fit.slope), float(fit.intercept), float(fit.rvalue**2)
    if len(x) == 2:
        return LinearFit(slope, intercept, r2, float("nan"), float("nan"))
    half_width = float(stats.t.ppf((1 + confidence) / 2, df=len(x) - 2) * fit.stderr)
    return LinearFit(slope, intercept, r2, slope - half_width, slope + half_width)


def _checked_values(name: str, values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} has shape {array.shape}, expected one dimension and at least one value")
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise InputError(f"{count} of the {len(array)} {name} are not finite, expected numbers only")
    return array


def _checked_pairs(
    first: str, first_values: Sequence[float], second: str, second_values: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    a, b = _checked_values(first, first_values), _checked_values(second, second_values)
    if len(a) != len(b):
        raise InputError(f"{first} has {len(a)} values and {second} has {len(b)}, expected pairs")
    return a, b
