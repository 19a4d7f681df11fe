"""Section 4.4.1: training longer, what an exit layer costs, and whole completions from a fixed layer."""

import numpy as np
import pandas as pd

from eelib.evaluation.claims.chapter4_layers import SHALLOW
from eelib.evaluation.claims.claim import NEGATIVE, POSITIVE, Claim, Load, Reading, Region, quoted, reading
from eelib.evaluation.claims.results import PER_PROJECT, PER_PROMPT, THEIRS, Results, named, where
from eelib.evaluation.jackknife import jackknife
from eelib.models.exits import exit_points

# --- longer training ---


def _gains(rows: pd.DataFrame, layers: list[int]) -> pd.DataFrame:
    """A row a sample: ROUGE-L of some layers at the end of training less that at the first snapshot."""
    steps = sorted(step for step in rows["step"].unique() if step > 0)
    chosen = where(rows, threshold=[float(layer) for layer in layers], step=[steps[0], steps[-1]])
    means = chosen.groupby(["project", "sample", "step"])["rouge_l"].mean().unstack()
    return (means[steps[-1]] - means[steps[0]]).rename("gain").reset_index()


def longer_training(results: Results) -> list[Reading]:
    rows = where(results.scored, node="epoch_predictions")
    if rows.empty or (rows["step"] > 0).sum() == 0 or rows.loc[rows["step"] > 0, "step"].nunique() < 2:
        return []
    found = []
    for (model, language), own in rows.groupby(["model", "language"], sort=False):
        last = int(own["threshold"].max())
        trained = [*exit_points(last), last]
        halves = {
            "trained layers of the first half": ([n for n in trained if n <= last / 2], POSITIVE),
            "of the second half": ([n for n in trained if n > last / 2], NEGATIVE),
        }
        for name, (layers, region) in halves.items():
            gains = _gains(own, layers)
            estimate = jackknife(gains, lambda part: part["gain"].mean(), PER_PROJECT)
            found.append(reading(named(model, language, name), estimate, "project", region))
    return found


# --- what a layer costs ---

STRAIGHT: Region = (-0.05, 0.05)


def bend(cost: pd.Series) -> float:
    """Mean distance of the costs of inner layers from the straight line between the first and the last one's, as a share of the last's."""
    cost = cost.sort_index()
    line = np.interp(cost.index, [cost.index[0], cost.index[-1]], [cost.iloc[0], cost.iloc[-1]])
    return float((cost - line).iloc[1:-1].mean() / cost.iloc[-1])


def _linear(results: Results, column: str) -> list[Reading]:
    rows = where(results["timings"], node="fixed_exit_timings")
    if rows.empty or rows[column].isna().all():
        return []
    means = rows.groupby([*PER_PROMPT, "threshold"], sort=False)[column].mean()
    bends = means.groupby(list(PER_PROMPT), sort=False).apply(lambda own: bend(own.droplevel(PER_PROMPT)))
    estimate = jackknife(bends.rename("bend").reset_index(), lambda own: own["bend"].mean(), PER_PROMPT)
    return [reading("all settings", estimate, "timed prompt", STRAIGHT)]


def time_linear(results: Results) -> list[Reading]:
    return _linear(results, "seconds")


def energy_linear(results: Results) -> list[Reading]:
    return _linear(results, "joules")


def _linear_published(load: Load, column: str) -> list[Reading]:
    rows = where(load("fixed_exits"), kind="aggregated")
    return [
        quoted(named(model, language, "with a cache"), bend(own.set_index("layer")[column].loc[4:]), STRAIGHT)
        for (model, language), own in rows.groupby(["model", "language"], sort=False)
    ]


def time_linear_published(load: Load) -> list[Reading]:
    return _linear_published(load, "time_s")


def energy_linear_published(load: Load) -> list[Reading]:
    return _linear_published(load, "energy_j")


# --- whole completions ---


def _losses(rows: pd.DataFrame) -> float:
    """Share of ROUGE-L that an early exit loses, less the share of next-token accuracy."""
    means = rows[["rouge_early", "rouge_last", "accuracy_early", "accuracy_last"]].mean()
    with np.errstate(divide="ignore", invalid="ignore"):  # a model that is never right has no share to lose
        return means["accuracy_early"] / means["accuracy_last"] - means["rouge_early"] / means["rouge_last"]


def sequences_lose_more(results: Results) -> list[Reading]:
    decoded = where(results.scored, node="fixed_exit_predictions")
    found = []
    for model, language in results.settings:
        one = where(decoded, model=model, language=language)
        single = where(results["layers"], model=model, language=language, kind="aggregated")
        if one.empty or single.empty:
            continue
        last, parts = int(single["layer"].max()), []
        for name, layer in {"early": SHALLOW, "last": last}.items():
            rouge = where(one, threshold=float(layer)).set_index(["project", "sample"])["rouge_l"]
            accuracy = where(single, layer=layer).set_index(["project", "sample"])["accuracy"]
            parts += [rouge.rename(f"rouge_{name}"), accuracy.rename(f"accuracy_{name}")]
        rows = pd.concat(parts, axis=1, join="inner").reset_index()
        estimate = jackknife(rows, _losses, PER_PROJECT)
        found.append(reading(named(model, language, f"layer {SHALLOW}"), estimate, "project", POSITIVE))
    return found


def sequences_lose_more_published(load: Load) -> list[Reading]:
    decoded, single = (where(load(name), kind="aggregated") for name in ("fixed_exits", "layer_accuracy"))
    found = []
    for model in THEIRS.values():
        for language in ("java", "python"):
            one, other = (where(rows, model=model, language=language) for rows in (decoded, single))
            if len(one) and len(other):
                rouge, accuracy = one.set_index("layer")["rouge_l"], other.set_index("layer")["accuracy"]
                last = rouge.index.max()
                difference = accuracy[SHALLOW] / accuracy[last] - rouge[SHALLOW] / rouge[last]
                found.append(quoted(named(model, language), difference, POSITIVE))
    return found


EXITS = [
    Claim(
        "longer-training", "4.4.1, Fig. 4.8", "Longer training shifts quality to early layers",
        "Training longer with the aggregated loss lifts early layers and lowers late ones.",
        "early up, late down", "ROUGE-L at the end of training less that at its first snapshot, by half of the model",
        "first half above 0, second half below 0", "Figure 4.8 (notebook 02)", (1, 3), longer_training,
        needs="snapshots of a fine-tuning",
    ),
    Claim(
        "time-linear", "4.4.1", "Time is linear in layers",
        "The time of a completion grows in proportion to the layers that run.",
        "linear", "mean distance from a straight line through the first and the last exit, as a share of the full time",
        "within 0.05", "Figure 4.10 (notebook 03)", (1, 4), time_linear, time_linear_published, "timed fixed exits",
    ),
    Claim(
        "energy-linear", "4.4.1", "Energy is linear in layers",
        "The energy of a completion grows in proportion to the layers that run.",
        "linear", "mean distance from a straight line through the first and the last exit, as a share of the full energy",
        "within 0.05", "Figure 4.10 (notebook 03)", (1, 4), energy_linear, energy_linear_published,
        "an energy counter, NVML or RAPL (gpu profile)",
    ),
    Claim(
        "sequences-lose-more", "4.4.1", "Completions lose more than single tokens",
        "Leaving early costs a larger share of ROUGE-L than of next-token accuracy.",
        "0.35 against 0.50 ROUGE-L (Llama, Python), 10 to 15 points of accuracy",
        "share of ROUGE-L lost at layer 6 less the share of accuracy lost", "above 0",
        "Figures 4.9, 4.10 (notebook 03)", (1,), sequences_lose_more, sequences_lose_more_published,
        "completions from fixed layers",
    ),
]  # fmt: skip
