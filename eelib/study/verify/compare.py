"""`./run_all.sh --compare`: this machine's run beside what is kept in `reference/`, cell by cell.

Untimed cells must be equal: the same code, seeds and threads give the same numbers, up to rounding. Times and energies are within noise
up to a ratio, one a cache mode, that follows from work that is timed twice in one of the two runs: the base and the tuned model at full
depth, which cost the same, and repeats. The ratio is what 95% of these pairs stay below, so that a single slow completion does not
widen it, raised to a power for the number of cells: were logarithms of ratios normal, no cell of a whole run would leave it with a
chance of 95% (Bonferroni). It is at least `LEAST_NOISE`, and where nothing was timed twice that, or the largest of the modes'.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from eelib import paths
from eelib.errors import InputError
from eelib.study.datasets import DATASETS
from eelib.study.verify.allowed import CROSSED
from eelib.study.verify.finding import Place
from eelib.study.verify.kept import read_datasets

TIMED = ("seconds", "joules", "microseconds", "milliseconds", "energy_j")
LEAST_NOISE = 1.5  # times: what a shared machine does to a second timing of the same work
USUAL = 0.95  # share of the pairs of the same work that noise covers, and chance that all cells are within it
OTHERS = ""  # what is timed in no cache mode
ROUNDING = 1e-9
FILE = "compare.csv"


def compare(profile: str, root: Path | None = None) -> int:
    """Print how a run and the reference differ, by dataset, write the cells that do, and give the exit code."""
    run, kept = Place.of_run(profile, root), Place.of_reference(profile, root)
    for place in (run, kept):
        if not place.results.exists():
            raise InputError(
                f"{paths.shown(place.results)} does not exist: a comparison needs a run and what is kept of one."
            )
    here, there = (read_datasets(place.results, place.suffix) for place in (run, kept))
    noise = noise_ratios(here, there)
    cells = compared(here, there, noise)
    table = counted(cells)
    print(table.to_string(index=False))
    told = ", ".join(f"{ratio:.2f} ({cache or 'others'})" for cache, ratio in noise.items())
    print(f"Times are within noise up to so many times, by cache: {told}.")
    target = run.results / FILE
    cells[cells["verdict"] != "equal"].to_csv(target, index=False)
    print(f"What is not equal, cell by cell: {paths.shown(target)}.")
    return int(table[["different", "missing here", "missing there"]].to_numpy().sum() > 0)


def noise_ratios(*runs: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Up to which ratio two times are within noise, by cache mode, and for what has none (`OTHERS`) the largest of these."""
    cells = max(
        sum(int(rows[name].notna().sum()) for rows in run.values() for name in TIMED if name in rows)
        for run in runs
    )
    wider = stats.norm.ppf(1 - (1 - USUAL) / (2 * max(1, cells))) / stats.norm.ppf((1 + USUAL) / 2)
    twice = [_ratios(run["timings"]) for run in runs if "timings" in run]
    found = {}
    if twice:
        usual = pd.concat(twice).groupby(level="cache").quantile(USUAL)
        found = {cache: max(LEAST_NOISE, float(ratio**wider)) for cache, ratio in usual.items()}
    return found | {OTHERS: max([LEAST_NOISE, *found.values()])}


def _ratios(timings: pd.DataFrame) -> pd.Series:
    """The largest over the least time of the same work, where it is timed more than once."""
    full = timings[timings["criterion"] == "full"]
    times = full.groupby(["model", "language", "context_fraction", "cache", "sample"], dropna=False)[
        "seconds"
    ]
    return (times.max() / times.min())[times.count() > 1]


def compared(
    here: dict[str, pd.DataFrame], there: dict[str, pd.DataFrame], noise: Mapping[str, float]
) -> pd.DataFrame:
    """One row a cell: `dataset`, `row` (what tells it from others), `column`, `reference`, `here`, `verdict`.

    Verdicts are "equal", "within noise", "different", "missing here" and "missing there"; a row that is missing is one cell.
    """
    cells = []
    for dataset in DATASETS:
        places, crossed = CROSSED[dataset]
        keys = [*dict.fromkeys([*places, *(column for group in crossed for column in group)])]
        sides = []
        for data in (there, here):
            rows = data.get(dataset, pd.DataFrame(columns=list(DATASETS[dataset])))
            names = [_name(row) for row in rows[keys].itertuples(index=False, name=None)]
            sides.append(dict(zip(names, rows.to_dict("records"), strict=True)))
        kept, own = sides
        for name in [*kept, *(name for name in own if name not in kept)]:
            if name not in own or name not in kept:
                verdict = "missing here" if name not in own else "missing there"
                cells.append((dataset, name, "", "", "", verdict))
                continue
            ratio = noise.get(kept[name].get("cache"), noise[OTHERS])
            for column in DATASETS[dataset]:
                if column not in keys:
                    one, other = kept[name].get(column), own[name].get(column)
                    cells.append((dataset, name, column, one, other, verdict_of(column, one, other, ratio)))
    return pd.DataFrame(cells, columns=["dataset", "row", "column", "reference", "here", "verdict"])


def _name(row: tuple) -> str:
    """What tells a row from others, as text: numbers alike whether they were counts or not."""
    told = [
        f"{value:g}" if isinstance(value, int | float) else str(value) for value in row if not _missing(value)
    ]
    return " ".join(told)


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def verdict_of(column: str, one: object, other: object, noise: float) -> str:
    """Whether two values of a column are "equal", "within noise" or "different"."""
    if _missing(one) or _missing(other):
        return "equal" if _missing(one) and _missing(other) else "different"
    if isinstance(one, str) or not np.isscalar(one):
        return "equal" if np.array_equal(one, other) else "different"
    if abs(one - other) <= ROUNDING * max(1.0, abs(one), abs(other)):
        return "equal"
    if column in TIMED and 1 / noise <= one / other <= noise:
        return "within noise"
    return "different"


def counted(cells: pd.DataFrame) -> pd.DataFrame:
    """How many cells of each dataset are what."""
    verdicts = ["equal", "within noise", "different", "missing here", "missing there"]
    table = cells.groupby("dataset", sort=False)["verdict"].value_counts().unstack(fill_value=0)
    return table.reindex(columns=verdicts, fill_value=0).rename_axis(columns=None).reset_index()
