"""Sections 1.1, 5.4, 6.4.3, 7.1: what deciding costs, and whether learning to decide by rewards is better than its rivals."""

import math

import numpy as np
import pandas as pd

from eelib.evaluation.claims.chapter6_savings import agent_rows, at_threshold
from eelib.evaluation.claims.claim import (
    NEGATIVE,
    POSITIVE,
    SCORE,
    Claim,
    Load,
    Reading,
    at_least,
    at_most,
    quoted,
    reading,
    told,
)
from eelib.evaluation.claims.results import PER_PROJECT, PER_PROMPT, THEIRS, Results, named, where
from eelib.evaluation.jackknife import jackknife

# --- overhead ---

EIGHT = at_most(0.08, SCORE)
TWENTY = at_most(0.20)


def _seconds(results: Results) -> pd.DataFrame:
    """Seconds by timed prompt and threshold: of the full model without a cache (`full`) and with one (`cached`), and, with one, of an
    agent, of its exits again without it, and of one that never leaves."""
    rows = where(results["timings"], node="timings", kind="aggregated")
    if rows.empty:
        return rows
    uncached, full = rows["cache"] == "none", rows["criterion"] == "full"
    rows = rows[(rows["cache"] == "propagate") | uncached & full]
    rows = rows.assign(criterion=rows["criterion"].where(~full | uncached, "cached"))
    keys = [*PER_PROMPT, "context_fraction", "threshold", "criterion"]
    return rows.groupby(keys, dropna=False, sort=False)["seconds"].mean().unstack("criterion").reset_index()


def overhead_time(results: Results) -> list[Reading]:
    rows = _seconds(results)
    if rows.empty:
        return []
    keys = [*PER_PROMPT, "context_fraction"]
    full = rows.dropna(subset="full")[[*keys, "full"]]
    exits = rows.dropna(subset="agent")[[*keys, "agent", "scripted"]].merge(full, on=keys)
    exits["share"] = (exits["agent"] - exits["scripted"]) / exits["full"]
    estimate = jackknife(exits, lambda own: own["share"].mean(), PER_PROMPT)
    return [reading("all settings", estimate, "timed prompt", EIGHT)]


def overhead_published(load: Load) -> list[Reading]:
    rows = where(load("overhead"), model=THEIRS["llama"], language="python")
    return [quoted("llama-3.2-3b, Python, energy, the highest", rows["of_full_energy"].max(), EIGHT)]


def overhead_contexts(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = agent_rows(results, model=model, language=language)
        if rows.empty or rows["context_fraction"].nunique() < 2 or model not in results.decision_flops:
            continue
        ends = rows["context_fraction"].min(), rows["context_fraction"].max()

        def difference(
            own: pd.DataFrame, ends: tuple[float, float] = ends, one: int = results.decision_flops[model]
        ) -> float:
            sums = own.groupby("context_fraction")[["decisions", "flops_full"]].sum()
            shares = one * sums["decisions"] / sums["flops_full"]
            return shares[ends[1]] - shares[ends[0]]

        setting = named(model, language, f"context {ends[1]:g} less {ends[0]:g}")
        found.append(reading(setting, jackknife(rows, difference, PER_PROJECT), "project", NEGATIVE))
    return found


def overhead_cached(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = agent_rows(results, model=model, language=language)
        if rows.empty or model not in results.decision_prices:
            continue
        own, near = at_threshold(rows, 0.9)
        price = results.decision_prices[model]
        estimate = jackknife(
            own, lambda part, price=price: price * part["decisions"].sum() / part["cost"].sum(), PER_PROJECT
        )
        found.append(reading(named(model, language, f"T = {near:g}, by count"), estimate, "project", TWENTY))
    rows = _seconds(results)
    if len(rows):
        rows = rows.assign(share=rows["never"] / rows["cached"] - 1).dropna(subset="share")
        estimate = jackknife(rows, lambda own: own["share"].mean(), PER_PROMPT)
        found.append(reading("never leaving, time", estimate, "timed prompt", TWENTY))
    return found


def overhead_cached_published(load: Load) -> list[Reading]:
    return [quoted("both uncached, the highest", load("overhead")["of_exit_energy"].max(), TWENTY)]


SIMILAR, DEARER = at_most(math.log(2)), at_least(math.log(2))


def decision(results: Results) -> list[Reading]:
    rows = where(results["decisions"], node="decision_cost")
    if rows.empty:
        return []
    wide = rows.pivot(index=["model", "language"], columns="method", values="microseconds").reset_index()
    agent = np.log(wide["agent with softmax"])
    wide["classifier"] = agent - np.log(wide["linear classifier"])
    wide["head"] = np.log(wide["norm + head + softmax"]) - agent
    return [
        reading(
            name,
            jackknife(wide, lambda own, c=column: own[c].mean(), ("model", "language")),
            "setting",
            region,
        )
        for name, column, region in (
            ("agent over linear classifier", "classifier", SIMILAR),
            ("head over agent", "head", DEARER),
        )
    ]


# --- against rivals, at equal cost first, then at equal depth ---


def _equal_cost(results: Results, method: str, column: str) -> list[Reading]:
    rows = where(results["equal_cost"], method=method)
    rows = rows.dropna(subset=column) if len(rows) else rows
    return [told(named(row["model"], row["language"]), row, column, POSITIVE) for _, row in rows.iterrows()]


def over_fixed(results: Results) -> list[Reading]:
    return _equal_cost(results, "agent", "share")


def over_confidence(results: Results) -> list[Reading]:
    return _equal_cost(results, "agent", "over_confidence")


def over_classifier(results: Results) -> list[Reading]:
    rows = where(results["equal_cost"], method="probe")
    rows = rows.dropna(subset="over_agent") if len(rows) else rows
    # The dataset holds the probe less the agent; the claim is of the agent.
    return [
        told(named(row["model"], row["language"], "probe less agent"), row, "over_agent", NEGATIVE)
        for _, row in rows.iterrows()
    ]


def over_confidence_by_depth(results: Results) -> list[Reading]:
    rows = where(results["agents"], over="all depths", against="coin between fixed exits")
    found = []
    for (model, language), own in rows.groupby(["model", "language"], sort=False) if len(rows) else ():
        by = own.set_index("method")
        one, other = (told("", by.loc[name], "share", POSITIVE) for name in ("agent", "confidence"))
        # On the same prompts, so that the error of the difference is at most this.
        error = math.hypot(one.error, other.error)
        found.append(
            Reading(named(model, language), one.value - other.value, error, math.inf, "prompts", POSITIVE)
        )
    return found


def endpoint(results: Results) -> list[Reading]:
    rows = where(results["serving"], measured="sweep")
    rows = rows[rows["threshold"] < 1] if len(rows) else rows
    if rows.empty or rows["threshold"].nunique() < 2:
        return []
    ends = [rows["threshold"].min(), rows["threshold"].max()]
    means = (
        where(rows, threshold=ends)
        .groupby(["model", "language", "prompt", "threshold"])["mean_layers"]
        .mean()
    )
    wide = means.unstack().reset_index()
    wide["more"] = wide[ends[1]] - wide[ends[0]]
    estimate = jackknife(wide, lambda own: own["more"].mean(), ("prompt",))
    return [reading(f"T = {ends[0]:g} to {ends[1]:g}", estimate, "prompt", POSITIVE)]


COST = [
    Claim(
        "overhead", "6.4.3, Fig. 6.12", "The agent costs at most 8%",
        "Without a cache the agent costs 3 to 8% of the full model's energy at context 20%.",
        "0.03 to 0.08", "time of the agent's decisions as a share of the full model's time, without a cache",
        "at most 0.10", "Figure 6.12 (notebook 06)", (3, 4), overhead_time, overhead_published,
        "timed completions with and without the agent",
    ),
    Claim(
        "overhead-contexts", "6.4.3", "The agent's share falls with the context",
        "The agent's share of the cost is smaller in larger contexts.",
        "0.02 to 0.06 at 50%, 0.03 to 0.08 at 20%",
        "FLOPs of the decisions as a share of the uncached full model's, at the largest context less that at the smallest",
        "below 0", "Figure 6.12 (notebook 06)", (1, 3), overhead_contexts, needs="two contexts",
    ),
    Claim(
        "overhead-cached", "7.1", "Overhead is at most 20%, with a cache",
        "Deciding costs 5 to 20% of the early-exit model; with a cache, where a token is cheaper, as well.",
        "0.05 to 0.20, both sides uncached",
        "decisions as a share of the cached early-exit model's cost by count; extra time of an agent that never leaves",
        "at most 0.20", "table_never_exit (notebook 06)", (3, 4), overhead_cached, overhead_cached_published,
        "completions and what a decision costs",
    ),
    Claim(
        "decision", "6.4.3, Fig. 6.13", "A decision is as cheap as a classifier's",
        "A decision costs about as much as a linear classifier's and far less than one by the model's head.",
        "slightly worse; significantly better", "logarithm of the ratio of times, mean over settings",
        f"agent over classifier at most {math.log(2):.2f} (twice), head over agent at least that", "Figure 6.13 (notebook 06)",
        (2, 3), decision, needs="decisions timed alone",
    ),
    Claim(
        "over-fixed", "4.4.1", "Dynamic exits beat fixed ones",
        "A learnt dynamic exit keeps more than fixed exits of the same cost.",
        "highlights the need", "share won by the agents of what an oracle wins over a coin between fixed exits, at equal cost",
        "above 0", "fig_equal_cost, table_equal_cost (notebook 04)", (2,), over_fixed, needs="criteria at equal cost",
    ),
    Claim(
        "over-confidence", "1.1", "RL beats confidence at equal cost",
        "Reinforcement learning exits better than softmax confidence of the same cost.",
        "more flexible, greater potential", "share won by the agents less that by confidence, at equal cost", "above 0",
        "fig_equal_cost, table_equal_cost (notebook 04)", (2, 4), over_confidence, needs="criteria at equal cost",
    ),
    Claim(
        "over-confidence-depth", "1.1", "RL beats confidence at equal depth",
        "Reinforcement learning exits better than softmax confidence at the same mean depth.",
        "more flexible, greater potential", "share won by the agents less that by confidence, at equal depth", "above 0",
        "table_recovered (notebook 04)", (2, 4), over_confidence_by_depth, needs="criteria at equal depth",
    ),
    Claim(
        "over-classifier", "1.1", "RL beats a classifier of its size",
        "Reinforcement learning exits better than a trained classifier of the same cost.",
        "more flexible, greater potential", "share won by the probes less that by the agents, at equal cost", "below 0",
        "fig_equal_cost, table_equal_cost (notebook 04)", (2, 4), over_classifier, needs="criteria at equal cost",
    ),
    Claim(
        "endpoint", "5.4", "A request chooses the trade-off",
        "A request to the endpoint chooses by its threshold how many layers are run.",
        "specify the trade-off", "layers a token at the highest threshold of the sweep less those at the lowest", "above 0",
        "fig_deployment_thresholds (notebook 09)", (3,), endpoint, needs="requests to the endpoint",
    ),
]  # fmt: skip
