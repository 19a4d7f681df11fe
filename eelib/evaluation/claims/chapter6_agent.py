"""Sections 5.2 and 6.3: where tokens could leave, how the agents learnt, and whether their exits are right."""

import numpy as np
import pandas as pd

from eelib.evaluation.claims.chapter4_layers import SHALLOW
from eelib.evaluation.claims.claim import (
    NEGATIVE,
    POSITIVE,
    SHARE,
    Claim,
    Load,
    Reading,
    Region,
    about,
    at_least,
    quoted,
    reading,
)
from eelib.evaluation.claims.results import PER_PROJECT, THEIRS, Results, named, nearest, where
from eelib.evaluation.jackknife import jackknife

PER_RECORDED = ("prompt",)  # recorded prompts do not name their project
PER_AGENT = ("model", "language", "seed")
FIRST_LAYERS = 5
SETTLED = 2500  # episodes

# --- where tokens could leave ---


def _optimal_within(
    results: Results, layers: int, regions: dict[str, Region], language: str = ""
) -> list[Reading]:
    found = []
    for family, region in regions.items():
        for model, corpus in results.of(family, language):
            rows = where(results["optimal"], model=model, language=corpus)
            if len(rows):
                rows = rows.assign(within=rows["layer"] <= layers)
                estimate = jackknife(rows, lambda own: own["within"].mean(), PER_RECORDED)
                found.append(reading(named(model, corpus), estimate, "recorded prompt", region))
    return found


HALF: Region = (0.5, np.inf)


def few_layers(results: Results) -> list[Reading]:
    return _optimal_within(results, SHALLOW, {"": HALF})


def few_layers_published(load: Load) -> list[Reading]:
    rows = where(load("layer_accuracy"), kind="aggregated", layer=SHALLOW)
    return [quoted(named(row.model, row.language), row.agreement, HALF) for row in rows.itertuples()]


FIRST_FIVE = {"llama": about(0.59), "opt": about(0.50)}


def first_five(results: Results) -> list[Reading]:
    return _optimal_within(results, FIRST_LAYERS, FIRST_FIVE, "java")


def llama_leaves_earlier(results: Results) -> list[Reading]:
    found = []
    for llama in results.models("llama"):
        for opt in results.models("opt"):
            rows = where(results["optimal"], model=[llama, opt], language="java")
            if len(rows):
                rows = rows.assign(within=rows["layer"] <= FIRST_LAYERS)

                def difference(own: pd.DataFrame, llama: str = llama, opt: str = opt) -> float:
                    shares = own.groupby("model")["within"].mean()
                    return shares[llama] - shares[opt]

                estimate = jackknife(rows, difference, ("model", "prompt"), "model")
                found.append(reading(f"{llama} less {opt}, Java", estimate, "recorded prompt", POSITIVE))
    return found


# --- learning ---


def _tenths(rewards: pd.Series) -> list[np.ndarray]:
    return np.array_split(rewards.to_numpy(), 10)


def late_gain(rewards: pd.Series) -> float:
    """Share of the whole gain in reward that comes late: from the tenth of the episodes that ends with number `SETTLED`, or where
    training is shorter from the last but one, to the last."""
    tenths = _tenths(rewards)
    before = min(len(rewards) - len(tenths[-1]), SETTLED)
    settled = rewards.iloc[max(0, before - len(tenths[-1])) : before].mean()
    return float((tenths[-1].mean() - settled) / (tenths[-1].mean() - tenths[0].mean()))


STILL: Region = (-0.1, 0.1)


def _agents(results: Results, of) -> pd.DataFrame:
    """A row an agent: `value`, `of` its rewards in the order of episodes."""
    groups = results["episodes"].sort_values("episode").groupby(list(PER_AGENT), sort=False)["reward"]
    return groups.apply(of).rename("value").reset_index()


def converges(results: Results) -> list[Reading]:
    if results["episodes"].empty:
        return []
    estimate = jackknife(_agents(results, late_gain), lambda own: own["value"].mean(), PER_AGENT)
    return [reading("all settings", estimate, "agent", STILL)]


def _families(results: Results, of, region: Region) -> list[Reading]:
    """`of` the rewards of Llama's agents less that of OPT's, on each language."""
    if results["episodes"].empty:
        return []
    agents, found = _agents(results, of), []
    agents = agents.assign(family=agents["model"].map(results.families))
    for language, own in agents.groupby("language", sort=False):
        if own["family"].nunique() == 2:

            def difference(rows: pd.DataFrame) -> float:
                means = rows.groupby("family")["value"].mean()
                return means["llama"] - means["opt"]

            estimate = jackknife(own, difference, PER_AGENT, "family")
            found.append(reading(named("Llama less OPT", language), estimate, "agent", region))
    return found


def llama_earns_more(results: Results) -> list[Reading]:
    return _families(results, lambda rewards: _tenths(rewards)[-1].mean(), POSITIVE)


def llama_steadier(results: Results) -> list[Reading]:
    return _families(results, lambda rewards: np.concatenate(_tenths(rewards)[-2:]).std(ddof=1), NEGATIVE)


# --- are exits right ---


def _exits(results: Results, language: str, threshold: float) -> tuple[str, pd.DataFrame, float]:
    """For a model of the Llama family: its name, the completions of all its agents at the nearest threshold, that threshold."""
    for model, corpus in results.of("llama", language):
        rows = where(results.scored, node="agent_predictions", model=model, language=corpus)
        if len(rows):
            near = nearest(rows["threshold"].unique().tolist(), threshold)
            return model, where(rows, threshold=near), near
    return "", pd.DataFrame(), threshold


def _right(rows: pd.DataFrame) -> float:
    early = rows["early"].sum()
    return rows["early_right"].sum() / early if early else float("nan")


def _exits_right(results: Results, language: str, threshold: float, region: Region) -> list[Reading]:
    model, rows, near = _exits(results, language, threshold)
    if rows.empty:
        return []
    estimate = jackknife(rows, _right, PER_PROJECT)
    return [reading(named(model, language, f"T = {near:g}"), estimate, "project", region)]


def java_exits_right(results: Results) -> list[Reading]:
    return _exits_right(results, "java", 0.6, at_least(0.8, SHARE))


def python_exits_right(results: Results) -> list[Reading]:
    return _exits_right(results, "python", 0.94, at_least(0.9, SHARE))


def first_or_last(results: Results) -> list[Reading]:
    model, rows, near = _exits(results, "python", 0.94)
    if rows.empty:
        return []
    ends = {4, int(rows["last"].max())}
    rows = rows.assign(at_ends=[sum(layer in ends for layer in layers) for layers in rows["exit_layers"]])
    estimate = jackknife(rows, lambda own: own["at_ends"].sum() / own["count"].sum(), PER_PROJECT)
    return [reading(f"{model}, Python, T = {near:g}", estimate, "project", HALF)]


def first_or_last_published(load: Load) -> list[Reading]:
    rows = where(load("exit_layers"), model=THEIRS["llama"], language="python", threshold=0.94)
    return [quoted("llama-3.2-3b, Python, T = 0.94", rows["layer"].isin([4, 28]).mean(), HALF)]


AGENT = [
    Claim(
        "few-layers", "5.2", "Few layers settle half of the tokens",
        "More than half of the tokens can be predicted with a few layers.",
        "often over 50%", f"share of tokens whose optimal exit is layer {SHALLOW} or before", "above 0.5",
        "Figure 6.3 (notebook 04)", (1,), few_layers, few_layers_published, "recorded completions",
    ),
    Claim(
        "first-five", "6.3, Fig. 6.3", "59% (Llama) and 50% (OPT) could leave at once",
        "On Java the optimal exit lies in the first five layers for 59% of Llama's tokens and 50% of OPT's.",
        "0.59; 0.50", "share of tokens whose optimal exit is in the first five layers", "within 0.10",
        "Figure 6.3 (notebook 04)", (1, 3), first_five, needs="recorded completions on Java",
    ),
    Claim(
        "llama-leaves-earlier", "6.3", "More of Llama's tokens could leave at once",
        "On Java the optimal exit lies in the first five layers more often with Llama than with OPT.",
        "0.59 against 0.50", "difference of the shares", "above 0", "Figure 6.3 (notebook 04)", (1,),
        llama_leaves_earlier, needs="recorded completions on Java of both families",
    ),
    Claim(
        "converges", "6.3, Fig. 6.2", "PPO settles by 2,500 episodes",
        "PPO converges within 2,000 to 2,500 episodes.",
        "2,000 to 2,500", f"share of the gain in reward that comes after episode {SETTLED:,}, or in the last tenth of a shorter training",
        "within 0.1", "Figure 6.2 (notebook 04)", (3,), converges, needs="the agents' logs",
    ),
    Claim(
        "llama-earns-more", "6.3", "Llama's agents earn more",
        "Agents earn a higher reward on Llama than on OPT.",
        "consistently higher", "difference of the mean rewards a step in the last tenth of training", "above 0",
        "Figure 6.2 (notebook 04)", (3,), llama_earns_more, needs="agents of both families",
    ),
    Claim(
        "llama-steadier", "6.3", "Llama's agents are steadier",
        "Rewards fluctuate less on Llama than on OPT.",
        "fewer fluctuations", "difference of the standard deviations of episodes' rewards in the last fifth of training",
        "below 0", "Figure 6.2 (notebook 04)", (3,), llama_steadier, needs="agents of both families",
    ),
    Claim(
        "java-exits-right", "6.3, Fig. 6.4a", "On Java 80% of exits are right",
        "On Java at T = 0.6 about 80% of the agent's exits say what the last layer says.",
        "about 0.80", "share of early exits whose token is the last layer's; full depth does not count",
        "at least 0.80, less 0.10", "Figure 6.4 (notebook 04)", (2, 3), java_exits_right,
        needs="a model of the Llama family",
    ),
    Claim(
        "python-exits-right", "6.3, Fig. 6.4b", "On Python 90% of exits are right",
        "On Python at T = 0.94 about 90% of the agent's exits say what the last layer says.",
        "0.90", "share of early exits whose token is the last layer's; full depth does not count",
        "at least 0.90, less 0.10", "Figure 6.4 (notebook 04)", (2, 3), python_exits_right,
        needs="a model of the Llama family",
    ),
    Claim(
        "first-or-last", "6.3, Fig. 6.4b", "Tokens leave first or last",
        "On Python at T = 0.94 most tokens leave at the first exit point or at the last layer.",
        "most", "share of tokens that do", "above 0.5", "Figure 6.4 (notebook 04)", (3,), first_or_last,
        first_or_last_published, "a model of the Llama family",
    ),
]  # fmt: skip
