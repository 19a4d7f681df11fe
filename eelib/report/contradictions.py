"""Where the thesis contradicts itself or its authors' raw results: the list, and what is computed of it.

`thesis/contradictions.yaml` holds the entries and says what their fields mean; `contradiction_checks.py` and `formula_checks.py` compute the numbers.
"""

from functools import cache

import pandas as pd
import yaml
from matplotlib.figure import Figure

from eelib.report.figures import BLUE, GREY, VERMILLION, finished, label, new_figure
from eelib.report.formula_checks import CHECKS
from eelib.report.thesis_numbers import FOLDER, load, savings

KINDS = ("arithmetic", "text-text", "text-table", "text-figure", "formula", "citation", "raw data")
SHOWN = ["where", "says", "against", "there", "right", "how"]


@cache
def _file() -> dict:
    return yaml.safe_load((FOLDER / "contradictions.yaml").read_text(encoding="utf-8"))


def conclusions() -> dict[str, str]:
    """The thesis's conclusions that contradictions may touch, by short name."""
    return dict(_file()["conclusions"])


def contradictions() -> pd.DataFrame:
    """Every contradiction, a row each, by kind in the order of `KINDS`.

    Columns: `id`, `kind`, `where`, `says`, `against`, `there`, `right`, `how`; `touches`, a list of short names of conclusions;
    for those computed `found`, the number of their check, `low` and `high`, what it may be if the thesis is right (NaN: no
    bound), and `unit`. `found` is NaN for the others. The number is written into `says` and `there`.
    """
    frame = pd.DataFrame(_file()["contradictions"])
    frame["found"] = [float(CHECKS[name]()) if name in CHECKS else float("nan") for name in frame["id"]]
    bounds = [allowed if isinstance(allowed, list) else [None, None] for allowed in frame.pop("allowed")]
    frame["low"], frame["high"] = (pd.Series(side, dtype=float) for side in zip(*bounds, strict=True))
    for column in ("says", "there"):
        frame[column] = [
            text.format(found=found) for text, found in zip(frame[column], frame["found"], strict=True)
        ]
    frame["unit"] = frame["unit"].fillna("")
    return frame.sort_values(
        "kind", key=lambda kinds: kinds.map(KINDS.index), kind="stable", ignore_index=True
    )


def holds(frame: pd.DataFrame) -> pd.Series:
    """Whether the number that was found is one that the thesis's sentence allows: then there is no contradiction."""
    return ~((frame["found"] < frame["low"]) | (frame["found"] > frame["high"]))


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many contradictions there are of each kind, and how many are computed: `kind`, `contradictions`, `computed`."""
    by_kind = frame.groupby("kind", sort=False)["found"].agg(contradictions="size", computed="count")
    return by_kind.reset_index()


def touched(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a conclusion of the thesis: `conclusion`, `contradictions` that touch it, and `which`, their places."""
    rows = []
    for name, sentence in conclusions().items():
        own = frame[[name in names for names in frame["touches"]]]
        places = "; ".join(dict.fromkeys(own["where"]))
        rows.append({"conclusion": sentence, "contradictions": len(own), "which": places})
    return pd.DataFrame(rows)


def printed_and_found(frame: pd.DataFrame) -> Figure:
    """What the thesis's sentences allow, and what its own tables and raw results give, where both are shares in percent."""
    rows = frame[frame["unit"].str.startswith("%")].iloc[::-1]
    figure, axes = new_figure(1, 1, (9, 0.32 * len(rows) + 0.9))
    ax = axes[0, 0]
    for place, row in enumerate(rows.itertuples()):
        low, high = (0 if pd.isna(row.low) else row.low), (100 if pd.isna(row.high) else row.high)
        ax.barh(place, high - low, left=low, height=0.55, color=GREY, alpha=0.35, lw=0)
        ax.plot(row.found, place, "o", color=VERMILLION, ms=5)
        nearest = min(max(row.found, low), high)
        ax.plot([nearest, row.found], [place, place], color=BLUE, lw=1)
    ax.set_yticks(range(len(rows)), [f"{row.where} ({row.unit[2:]})" for row in rows.itertuples()])
    ax.set_xlim(0, 100)
    label(ax, x="%: allowed by the sentence (grey), found (dot)")
    return finished(figure)


def answer(frame: pd.DataFrame) -> list[str]:
    """Two to five sentences: which of the thesis's conclusions the contradictions touch, and which they leave."""
    saved = savings()["energy_saved"].dropna()
    over = touched(frame)
    untouched = over.loc[over["contradictions"] == 0, "conclusion"]
    raw = load("raw_ctx20").set_index(["model", "language", "label"])["rouge_l"].unstack()
    lost = raw["full"] - raw["0.92"]
    windows = load("overhead")[["of_exit_time", "of_exit_energy", "of_full_time", "of_full_energy"]]
    fixed = load("fixed_exits").query("kind == 'aggregated'").groupby(["model", "language"])
    cached = fixed["energy_j"].last().rename("cached_wh") / 3600
    exits = load("results").query("threshold.notna() and context_fraction == 0.3")
    exits = exits[~exits["remark"].str.startswith("repeats")].join(cached, on=["model", "language"])
    return [
        f"The thesis contradicts itself or its raw results in {len(frame)} places; {frame['found'].notna().sum()} of them are recomputed here, and touch {(over['contradictions'] > 0).sum()} of the {len(over)} conclusions listed.",
        f"**Savings stand in direction and not in size**: all {len(saved)} printed settings save energy against the uncached full model, {saved.min():.0%} to {saved.max():.0%} and {saved.mean():.0%} on average, so that the printed 20 to 50% is too low at its upper end; against the full model *with* a cache, which the authors' own fixed exits timed, {(exits['energy_wh'] < exits['cached_wh']).sum()} of {len(exits)} printed early exits at context 0.3 save energy.",
        f"**Small losses stand, no losses do not**: at T = 0.92 and context 0.2 ROUGE-L changes by {-lost.max():+.3f} to {-lost.min():+.3f} and falls in {(lost > 0).sum()} of {len(lost)} settings.",
        f"**The overhead is not established**: the published windows give {windows.min(axis=None):.0%} to {windows.max(axis=None):.0%}, by runs that disagree with those of the tables in time, energy and exits.",
        f"No contradiction touches these: {'; '.join(untouched)}.",
    ]
