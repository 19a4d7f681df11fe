"""What a claim of the thesis is here: a sentence, the thesis's numbers, what is computed, and where the number has to lie.

The tolerances below were fixed, and committed, before any check had run on measured results.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from eelib.evaluation.claims.results import Results
from eelib.evaluation.jackknife import Estimate

Region = tuple[float, float]  # where a number has to lie for the claim to hold
Load = Callable[[str], pd.DataFrame]  # one file of the thesis's numbers by name

# Tolerances, in the unit of the number.
SHARE = 0.10  # of "about" a share of tokens, or a saving
SAVED = 0.05  # of "at least" a saving
SCORE = 0.02  # of "the same" ROUGE-L or accuracy: what Section 6.4.1 calls a deviation of its best setting
POSITIVE: Region = (0.0, math.inf)
NEGATIVE: Region = (-math.inf, 0.0)


def about(value: float, tolerance: float = SHARE) -> Region:
    """Within a tolerance on both sides."""
    return value - tolerance, value + tolerance


def at_least(value: float, tolerance: float = 0.0) -> Region:
    """Not below a value less its tolerance."""
    return value - tolerance, math.inf


def at_most(value: float, tolerance: float = 0.0) -> Region:
    """Not above a value and its tolerance."""
    return -math.inf, value + tolerance


@dataclass(frozen=True)
class Reading:
    """One number that a claim is judged by.

    Attributes
    ----------
    setting: which one, such as "smollm2-135m, Java, T = 0.9".
    error: its standard error; NaN where none is known. 0 where leaving out any unit changes nothing, which is not certainty: were
        the number another by d, it being a share or a score, at least d of the units would have to differ.
    freedom: degrees of freedom of the error.
    unit: what was left out in turn, with its number, such as "14 projects".
    region: where the number has to lie.
    """

    setting: str
    value: float
    error: float
    freedom: float
    unit: str
    region: Region

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval, of this number alone."""
        if self._unvaried:
            return self.value - self._differing(0.025), self.value + self._differing(0.025)
        half = self._quantile(0.975) * self.error
        return self.value - half, self.value + half

    @property
    def inside(self) -> float:
        """p of "it lies outside the region", the smaller the surer that it lies inside: the worse of both edges."""
        low, high = self.region
        return max(self._tail(self.value - low), self._tail(high - self.value))

    @property
    def outside(self) -> float:
        """p of "it lies inside the region": the better of both edges, doubled where there are two."""
        low, high = self.region
        best = min(self._tail(low - self.value), self._tail(self.value - high))
        return min(1.0, best * (2 if math.isfinite(low) and math.isfinite(high) else 1))

    def detectable(self, level: float, power: float = 0.8) -> float:
        """How far from an edge of the region the number would have to lie to be told, at a level, with some power."""
        if self._unvaried:
            return self._differing(level)
        return (self._quantile(1 - level) + self._quantile(power)) * self.error

    @property
    def margin(self) -> float:
        """Distance to the nearer edge in half-widths of the 95% interval: above 1 within the region, below -1 out of it."""
        low, high = self.region
        distance = min(self.value - low, high - self.value)
        ends = self.interval
        half = self.value - ends[0] if distance == self.value - low else ends[1] - self.value
        if half == 0:
            return math.copysign(math.inf, distance)
        return distance / half

    @property
    def _unvaried(self) -> bool:
        return self.error == 0 and math.isfinite(self.freedom)

    def _differing(self, chance: float) -> float:
        """Share of all units that may differ, though none of these did, but for a chance."""
        return 1 - chance ** (1 / (self.freedom + 1))

    def _quantile(self, p: float) -> float:
        if math.isnan(self.error) or self.freedom <= 0:
            return math.nan
        return float(stats.t.ppf(p, self.freedom))

    def _tail(self, distance: float) -> float:
        """p that a number lies this far within an edge by chance; 1 where no spread is known."""
        if distance == math.inf:
            return 0.0
        if distance == -math.inf or math.isnan(self.error) or math.isnan(distance):
            return 1.0
        if self._unvaried:
            # All of n units say the same: were the edge true, each would with probability 1 - distance at most.
            return float((1 - min(distance, 1.0)) ** (self.freedom + 1)) if distance > 0 else 1.0
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(stats.t.sf(distance / self.error, self.freedom))


def reading(setting: str, estimate: Estimate, unit: str, region: Region, share: bool = False) -> Reading:
    """A reading of an estimate by the jackknife; `unit` in the singular."""
    named = f"{estimate.units} {unit}{'' if estimate.units == 1 else 's'}"
    return Reading(setting, estimate.value, estimate.error, estimate.freedom, named, region)


def told(
    setting: str, row: Mapping[str, float], column: str, region: Region, unit: str = "prompts"
) -> Reading:
    """A reading of a number whose 95% bootstrap interval a dataset holds, as `<column>`, `<column>_low` and `<column>_high`."""
    low, high = (row[f"{column}_{end}" if column != "share" else end] for end in ("low", "high"))
    error = (high - low) / (2 * stats.norm.ppf(0.975))
    return Reading(setting, float(row[column]), float(error), math.inf, unit, region)


def quoted(setting: str, value: float, region: Region) -> Reading:
    """A number of the authors' own, which comes without its samples and so without an error."""
    return Reading(setting, float(value), math.nan, math.nan, "", region)


@dataclass(frozen=True)
class Claim:
    """One claim of the thesis.

    Attributes
    ----------
    key: a short name without spaces.
    section: where it stands.
    short: it in at most seven words.
    sentence: it in one testable sentence.
    thesis: the thesis's numbers.
    number: what is computed here, with its unit.
    tolerance: where the number has to lie, in words.
    exhibit: the figures or tables of this study that show it.
    questions: the research questions it bears on, 1 to 4.
    check: results -> readings; none where it is not measured here. It holds if every one lies in its region.
    published: the same of the authors' published raw results, or of the thesis's tables where the setting's name says "printed".
    needs: what would measure it.
    """

    key: str
    section: str
    short: str
    sentence: str
    thesis: str
    number: str
    tolerance: str
    exhibit: str
    questions: tuple[int, ...]
    check: Callable[[Results], list[Reading]]
    published: Callable[[Load], list[Reading]] | None = None
    needs: str = ""
