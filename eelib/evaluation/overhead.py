"""What deciding costs: end to end, and alone (Figures 6.12, 6.13)."""

from collections.abc import Callable

import pandas as pd
from torch import Tensor, nn

from eelib.decoding.policy import ExitPolicy
from eelib.evaluation import decisions as measured
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.sweep import summarise_timings
from eelib.models.loading import CodeModel
from eelib.models.parts import ModelParts

THESIS_CONTEXTS = (0.2, 0.5)  # of Figure 6.12


def thesis_contexts(timed_fractions: list[float]) -> dict[float, list[float]]:
    """The timed context fractions that stand for those of Figure 6.12, each with the thesis's that it is nearest to."""
    drawn: dict[float, list[float]] = {}
    for wanted in THESIS_CONTEXTS:
        nearest = min(timed_fractions, key=lambda fraction: abs(fraction - wanted))
        drawn.setdefault(nearest, []).append(wanted)
    return drawn


def overhead_frame(rows: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """An agent's cost as shares of the full model's and of the early-exit model's time and energy, a row a `threshold` (Figure 6.12).

    What deciding takes is the difference between an agent's completions with a cache and the same exits without the agent. The
    thesis's shares are of completions without a cache; `of_cached_full_time` is of the full model's with one. `aa_of_full_time`
    is the share that two models of the same cost differ by, measured in the same way: what lies below it is noise.
    `windows_of_exit_time` is the share of the early-exit model's time by another measure: the number of decisions times
    what one takes alone, as one gets by windows around decisions.

    Parameters
    ----------
    rows: of `timed.setting_timings`, of one model, language and context.
    alone: rows of `decision_cost` of the same model and language.
    """
    keys = ["kind", "criterion", "cache"]
    costs = dict(list(summarise_timings(rows, [*keys, "threshold"]).groupby(keys)))
    full, cached_full, again = (
        costs[kind, "full", cache].iloc[0]
        for kind, cache in (("aggregated", "none"), ("aggregated", "propagate"), ("base", "propagate"))
    )
    uncached, cached, replayed = (
        costs["aggregated", *way].set_index("threshold")
        for way in (("agent", "none"), ("agent", "propagate"), ("scripted", "propagate"))
    )
    made = rows[rows["criterion"] == "scripted"].drop_duplicates(["threshold", "sample"])
    decisions = made.groupby("threshold")["decisions"].sum()
    one = alone.set_index("method").loc["agent", "microseconds"] / 1e6
    table = []
    for threshold in made["threshold"].unique():
        difference = (
            cached.loc[threshold, ["seconds", "joules"]] - replayed.loc[threshold, ["seconds", "joules"]]
        )
        exit = uncached.loc[threshold]
        entry = {"threshold": threshold, "windows_of_exit_time": decisions[threshold] * one / exit["seconds"]}
        for column, name in (("seconds", "time"), ("joules", "energy")):
            entry[f"of_full_{name}"] = difference[column] / full[column]
            entry[f"of_exit_{name}"] = difference[column] / exit[column]
        entry["of_cached_full_time"] = difference["seconds"] / cached_full["seconds"]
        entry["aa_of_full_time"] = abs(again["seconds"] - cached_full["seconds"]) / full["seconds"]
        table.append(entry)
    return pd.DataFrame(table)


def never_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """What an agent that decides at every exit point and never leaves adds to the full model's time and energy, with its cache.

    Returns
    -------
    `model`, `language`, `context_fraction`, `time` and `energy`, each a ratio to the full model's.
    """
    keys = ["model", "language", "context_fraction"]
    rows = rows[(rows["kind"] == "aggregated") & (rows["cache"] == "propagate")]
    rows = rows[rows["criterion"].isin(["full", "never"])]
    costs = summarise_timings(rows, [*keys, "criterion"]).set_index([*keys, "criterion"])
    costs = costs[["seconds", "joules"]]
    ratios = costs.xs("never", level="criterion") / costs.xs("full", level="criterion")
    return ratios.rename(columns={"seconds": "time", "joules": "energy"}).reset_index()


def decision_cost(tuned: CodeModel, agent: ExitPolicy, decisions: int) -> pd.DataFrame:
    """Time and energy of one decision on random states, for four kinds of criterion: rows of `decisions.costs` (Figure 6.13)."""
    parts = tuned.parts
    methods = decision_methods(parts, agent)
    return measured.costs(methods, parts.width, decisions, EnergyMonitor(), parts.device, parts.model.dtype)


def decision_methods(parts: ModelParts, policy: ExitPolicy) -> dict[str, Callable[[Tensor], bool]]:
    """How long a decision takes is measured as the decoder takes it: on one (1, D) state, up to a Python bool.

    "agent" decides by its margin, as it does here; the others are the three of Figure 6.13, each ending in a softmax
    (Section 6.4.3).
    """
    classifier = nn.Linear(parts.width, 2).to(parts.device, parts.model.dtype)

    return {
        "agent": lambda state: bool(policy.margin(state) > 1.0),
        "agent with softmax": lambda state: bool(policy.logits(state).softmax(-1)[0, 1] > 0.9),
        "linear classifier": lambda state: bool(classifier(state).softmax(-1)[0, 1] > 0.9),
        "norm + head + softmax": lambda state: bool(parts.logits(state).softmax(-1).amax() > 0.9),
    }
