"""How near exits come to an oracle's: agreement with the last layer at equal mean price, on recorded rollouts.

All curves are of agreement (share of tokens equal to the last layer's) against the mean price of a token: its layers, or what it
costs with all that a criterion looks at (`cost.py`). Between the *best fixed exit* of a price and the *oracle* lies what a criterion
can win there; the *recovered share* is how much of it one does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from eelib.evaluation.statistics import Interval
from eelib.rl.rollouts import Rollouts

DEPTHS = 200  # at which areas between curves are summed
QUANTILES = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Curve:
    """Exits of a criterion at K thresholds, prompt by prompt, so that prompts can be drawn anew.

    Attributes
    ----------
    prices, agreement: (N, K) float64, means over a prompt's tokens; mean prices do not fall with K.
    """

    prices: np.ndarray
    agreement: np.ndarray

    def points(self, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean price and agreement (K,) over some prompts, given by index (with repetition)."""
        return self.prices[prompts].mean(0), self.agreement[prompts].mean(0)


def first_above(scores: np.ndarray, threshold: float) -> np.ndarray:
    """(N, T) index of the first stop whose score is above the threshold; scores are (N, T, E), the last stop takes the rest."""
    above = scores > threshold
    return np.where(above.any(-1), above.argmax(-1), scores.shape[-1])


def at_every_stop(correct: np.ndarray) -> np.ndarray:
    """(..., E + 1) bool: where exits are right (..., E), and the last stop, which always is."""
    return np.concatenate([correct, np.ones((*correct.shape[:-1], 1), dtype=bool)], -1)


def outcome(exits: Iterable[np.ndarray], prices: np.ndarray, correct: np.ndarray) -> Curve:
    """What exits, each (N, T) indices of stops, pay and agree prompt by prompt.

    Parameters
    ----------
    prices: (E + 1,) of the stops.
    correct: (N, T, E + 1) bool, as of `at_every_stop`.
    """
    paid, agreement = [], []
    for index in exits:
        paid.append(prices[index].mean(1))
        agreement.append(np.take_along_axis(correct, index[..., None], -1)[..., 0].mean(1))
    return Curve(np.stack(paid, 1), np.stack(agreement, 1))


class Frontier:
    """Fixed exits, oracle and criteria on the same rollouts.

    Parameters
    ----------
    prices: (E + 1,) of leaving at each stop without looking at anything; its layers by default.
    """

    def __init__(self, rollouts: Rollouts, prices: np.ndarray | None = None):
        self.stops = rollouts.stops
        self.prices = rollouts.stops if prices is None else prices
        self.correct = at_every_stop(rollouts.correct)
        self.fixed = self.correct.mean(1)  # (N, E + 1) agreement of leaving at each stop
        optimal = np.searchsorted(self.stops, rollouts.optimal_exits)
        self.optimal = np.stack([(optimal == stop).mean(1) for stop in range(len(self.stops))], -1)

    @cached_property
    def prompts(self) -> np.ndarray:
        """All prompts, by index."""
        return np.arange(len(self.correct))

    def curve(
        self, scores: np.ndarray, thresholds: Sequence[float], prices: np.ndarray | None = None
    ) -> Curve:
        """Price and agreement at each of some thresholds, in rising order; `prices` (E + 1,) are the criterion's own."""
        return self.curve_of((first_above(scores, threshold) for threshold in thresholds), prices)

    def curve_of(self, exits: Iterable[np.ndarray], prices: np.ndarray | None = None) -> Curve:
        """The same of given exits, each (N, T) indices of stops."""
        return outcome(exits, self.prices if prices is None else prices, self.correct)

    def whole_curve(self, scores: np.ndarray, prices: np.ndarray | None = None) -> Curve:
        """From always leaving at the first exit point to full depth, by quantiles of the scores.

        An exit point whose scores are all -inf is never looked at.
        """
        finite = scores[np.isfinite(scores)]
        return self.curve(scores, [np.finfo(np.float32).min, *np.quantile(finite, QUANTILES), np.inf], prices)

    def best_fixed(self, depths: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Agreement of the best fixed exit not deeper than each depth, straight between neighbouring ones."""
        best = np.maximum.accumulate(self.fixed[prompts].mean(0))
        return np.interp(depths, self.prices, best)

    def mixed_fixed(self, depths: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Agreement of the best coin between two fixed exits at each mean depth: the upper concave hull of all.

        Stricter than `best_fixed`: a coin between a good middle layer and full depth needs no look at the state either.
        """
        hull: list[tuple[float, float]] = []
        for x, y in zip(self.prices, self.fixed[prompts].mean(0), strict=True):
            while len(hull) > 1:
                (x1, y1), (x2, y2) = hull[-2:]
                if (y2 - y1) * (x - x1) > (y - y1) * (x2 - x1):
                    break
                hull.pop()
            hull.append((x, y))
        return np.interp(depths, *zip(*hull, strict=True))

    def oracle(self, depths: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Most agreement that any exits reach at each mean depth: tokens that are right soonest are waited for first."""
        shares = self.optimal[prompts].mean(0)
        cost = self.prices[0] + np.cumsum(shares * (self.prices - self.prices[0]))
        return np.interp(depths, cost, np.cumsum(shares))

    def recovered(self, depths: np.ndarray, agreement: np.ndarray, prompts: np.ndarray, fixed) -> float:
        """Sum over depths of what is won over `fixed` (`best_fixed` or `mixed_fixed`), over the sum of what the oracle wins.

        NaN where the oracle wins nothing, so that there is nothing to recover.
        """
        base = fixed(depths, prompts)
        gap = (self.oracle(depths, prompts) - base).sum()
        return (agreement - base).sum() / gap if gap > 0 else np.nan

    def recovered_area(self, curves: Sequence[Curve], prompts: np.ndarray, fixed) -> float:
        """`recovered` over all depths from the first exit point to L, mean over the curves (one an agent)."""
        depths = np.linspace(self.prices[0], self.prices[-1], DEPTHS)
        lines = [np.interp(depths, *curve.points(prompts)) for curve in curves]
        return float(np.mean([self.recovered(depths, line, prompts, fixed) for line in lines]))

    def recovered_at(self, curves: Sequence[Curve], prompts: np.ndarray, fixed) -> float:
        """`recovered` over the curves' own thresholds, each at the depth it led to; mean over the curves."""
        points = [curve.points(prompts) for curve in curves]
        return float(np.mean([self.recovered(*point, prompts, fixed) for point in points]))

    def over_random(self, curves: Sequence[Curve], scores: Sequence[np.ndarray], thresholds) -> float:
        """Mean gain in agreement over the same exits dealt out to tokens at random: same layers, no look at the state."""
        gains = []
        for curve, score in zip(curves, scores, strict=True):
            for column, threshold in enumerate(thresholds):
                index = first_above(score, threshold)
                shares = np.bincount(index.ravel(), minlength=len(self.stops)) / index.size
                gains.append(curve.agreement[:, column].mean() - shares @ self.fixed.mean(0))
        return float(np.mean(gains))

    def interval(self, statistic, confidence: float = 0.95, resamples: int = 400) -> Interval:
        """`statistic(prompts)` on all prompts, and its percentile bootstrap interval over prompts; NaN if it is not known."""
        if np.isnan(mean := statistic(self.prompts)):
            return Interval(mean, np.nan, np.nan)
        result = stats.bootstrap(
            (self.prompts,),
            lambda prompts: statistic(prompts.astype(int)),
            n_resamples=resamples,
            vectorized=False,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        return Interval(mean, *map(float, result.confidence_interval))
