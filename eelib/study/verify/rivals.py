"""What must hold between criteria at equal cost, agents, probes and promises, each with its reason."""

import numpy as np
import pandas as pd

from eelib.evaluation.equal_cost import RIVALS
from eelib.evaluation.promises import DRAWS
from eelib.study.verify.completions import Broken
from eelib.study.verify.relations import NEAR, SETTING, Datasets
from eelib.systems.fitted import POLICIES
from eelib.systems.judged import OVER


def _away(one: pd.Series, other: pd.Series, least: float = NEAR) -> pd.Series:
    """Where two columns differ, or one of them alone is missing."""
    return ((one - other).abs() > least) | (one.isna() != other.isna())


def intervals(data: Datasets) -> Broken:
    """A mean lies in its interval, or next to it: a bootstrap's ends are quantiles of the same mean drawn anew."""
    for dataset, triples in {
        "agents": [("share", "low", "high")],
        "equal_cost": [
            (mean, f"{mean}_low", f"{mean}_high") for mean in (f"over_{rival}" for rival in RIVALS)
        ]
        + [("share", "low", "high")],
        "probe_data": [("share", "low", "high")],
        "reward_audit": [("share", "low", "high")],
        "variants": [("share", "low", "high")],
    }.items():
        rows = data.get(dataset)
        for mean, low, high in triples if rows is not None else ():
            width = rows[high] - rows[low]
            out = (
                (width < -NEAR)
                | (rows[mean] < rows[low] - width / 2 - NEAR)
                | (rows[mean] > rows[high] + width / 2 + NEAR)
            )
            yield f"{dataset}: {mean} lies in its interval", rows[out]
            wide = width > max(0.2, 4 * width.median())
            yield f"{dataset}: intervals of {mean}, over as many prompts, are about as wide", rows[wide]
            gap = (rows[mean].isna() & rows[low].notna()) | (rows[low].isna() != rows[high].isna())
            yield f"{dataset}: {mean} is known where its interval is, with both ends", rows[gap]


def single_agents(data: Datasets) -> Broken:
    """A mean over agents lies between them."""
    rows = data["agents"]
    outside = (rows["share"] < rows["least"] - NEAR) | (rows["share"] > rows["most"] + NEAR)
    yield "a mean over agents lies between the least and the most of them", rows[outside]
    alone = rows[rows["method"] == "confidence"]
    yield (
        "confidence is one criterion, and its own least and most",
        alone[_away(alone["least"], alone["most"])],
    )
    by = rows.pivot_table(index=[*SETTING, "over", "method"], columns="against", values="share").reset_index()
    coin, fixed = by["coin between fixed exits"], by["best fixed exit"]
    yield "a coin between fixed exits is the stricter rival", by[coin > fixed + NEAR]
    if "variants" in data:
        usual = data["variants"].query("variant == 'as configured'")
        of_it = rows.query("against == 'best fixed exit' and over == 'all depths' and method == 'agent'")
        both = usual.merge(of_it, on=SETTING, suffixes=("", "_of_agents"))
        yield (
            "the variant as configured is an agent of the study",
            both[(both["share"] < both["least"] - 1e-6) | (both["share"] > both["most"] + 1e-6)],
        )


def equal_costs(data: Datasets) -> Broken:
    """What criteria win over each other are differences of their shares, and shares are areas between the drawn curves."""
    rows, curves = data["equal_cost"], data.get("cost_curves")
    scored = rows["method"].isin([*RIVALS, "stopping"])
    strange = rows[~scored & rows[["share", "over_agent", "over_confidence"]].notna().any(axis=1)]
    yield "a fixed exit, a coin and an oracle have no share", strange
    for rival in RIVALS:
        theirs = rows[rows["method"] == rival].set_index(SETTING)["share"]
        of_rival = theirs.reindex(pd.MultiIndex.from_frame(rows[SETTING])).to_numpy()
        apart = scored & ((rows["share"] - of_rival - rows[f"over_{rival}"]).abs() > NEAR)
        yield f"what is won over {rival} is the difference of shares", rows[apart]
        itself = rows[
            (rows["method"] == rival)
            & (rows[[f"over_{rival}", f"over_{rival}_low", f"over_{rival}_high"]].abs() > NEAR).any(axis=1)
        ]
        yield f"{rival} wins nothing over itself", itself
    agent, other = (rows[rows["method"] == name] for name in ("agent", "confidence"))
    both = agent.merge(other, on=SETTING, suffixes=("", "_other"))
    mirrored = [
        ("over_confidence_low", "over_agent_high_other"),
        ("over_confidence_high", "over_agent_low_other"),
    ]
    for one, mirror in mirrored:
        yield (
            "the interval of a difference is mirrored when its sides are exchanged",
            both[(both[one] + both[mirror]).abs() > 1e-6],
        )
    yield (
        "a criterion agrees more at more cost",
        rows[rows["agreement_at_0.7"] > rows["agreement_at_0.8"] + 0.1],
    )
    if curves is None:
        return
    for names, own in curves.groupby(SETTING):
        setting = rows[(rows["model"] == names[0]) & (rows["language"] == names[1])]
        by = own.pivot_table(index="cost", columns="method", values="agreement")
        steps = np.diff(by.index.to_numpy())
        yield (
            "curves are drawn at equal distances of cost, up to the full model's",
            own.head(int(steps.max() - steps.min() > 1e-6 or abs(by.index[-1] - 1) > NEAR)),
        )
        for line in ("fixed", "coin", "oracle"):
            falls = by[line].diff() < -NEAR
            yield (
                f"{line}: who pays more agrees no less",
                own[(own["method"] == line) & own["cost"].isin(by.index[falls])],
            )
        for below, above in {
            "fixed": "coin",
            "coin": "oracle",
            "agent": "oracle",
            "probe": "oracle",
            "stopping": "oracle",
            "confidence": "oracle",
        }.items():
            crossing = by[below] > by[above] + NEAR
            yield (
                f"{below} is nowhere above {above}",
                own[(own["method"] == below) & own["cost"].isin(by.index[crossing])],
            )
        for line in ("coin", "fixed", "oracle"):
            whole = own[(own["method"] == line) & (own["cost"] > 1 - NEAR) & (own["agreement"] < 1 - NEAR)]
            yield "the full model's cost buys the full model's tokens", whole
        # A criterion's own curve is a line between chosen points: neighbours are near.
        usual = by.drop(columns="fixed").diff().abs().median().median()
        for method in (*RIVALS, "stopping", "coin"):
            bent = (by[method] - (by[method].shift(1) + by[method].shift(-1)) / 2).abs() > max(
                0.06, 6 * usual
            )
            yield (
                f"{method}: a curve has no single point off its neighbours",
                own[(own["method"] == method) & own["cost"].isin(by.index[bent])],
            )
        for cost in (0.7, 0.8):
            near = by.iloc[np.argsort(np.abs(by.index.to_numpy() - cost))[:2]]
            low, high = near.min() - 0.02, near.max() + 0.02
            told = setting.set_index("method")[f"agreement_at_{cost:g}"]
            out = [name for name in told.index if name in by and not low[name] <= told[name] <= high[name]]
            yield (
                f"agreement at {cost:g} of the cost is that of its curve",
                setting[setting["method"].isin(out)],
            )
        gap = np.trapezoid(by["oracle"] - by["coin"], by.index)
        if gap > 0.01:
            area = {
                name: np.trapezoid(by[name] - by["coin"], by.index) / gap for name in (*RIVALS, "stopping")
            }
            off = [
                name
                for name, value in area.items()
                if abs(setting.set_index("method")["share"].get(name, value) - value) > 0.06
            ]
            yield (
                "a share is the area between coin and criterion, of that between coin and oracle",
                setting[setting["method"].isin(off)],
            )


def promised(data: Datasets) -> Broken:
    """Promises are shares of drawn calibrations, and a larger tolerance promises more."""
    yield from _promised(data["promises"], SETTING)


def promised_across(data: Datasets) -> Broken:
    """So they are where another language is decoded than calibrated, which does not change what is promised."""
    rows, keys = data["promises_across"], [*SETTING, "tolerated", "prompts", "method"]
    yield from _promised(rows, [*SETTING, "tested_on"])
    if "promises" in data:
        at_home = rows.merge(data["promises"], on=keys, suffixes=("", "_at_home"))
        apart = at_home[(at_home["early"] - at_home["early_at_home"]).abs() > NEAR]
        yield "what is promised is chosen at home", apart


def _promised(rows: pd.DataFrame, place: list[str]) -> Broken:
    for column in ("broken", "early"):
        draws = rows[column] * DRAWS
        yield f"{column} is a number of draws of {DRAWS}", rows[(draws - draws.round()).abs() > 1e-6]
    yield "only a promised exit can break its promise", rows[rows["broken"] > rows["early"] + NEAR]
    never = rows["early"] == 0
    yield "without early exits all layers run", rows[never & ((rows["depth"] - 1).abs() > NEAR)]
    ordered = rows.sort_values("tolerated").groupby([*place, "prompts", "method"])
    yield (
        "who tolerates more promises no fewer exits",
        rows.loc[ordered["early"].diff().reindex(rows.index) < -NEAR],
    )
    yield (
        "who tolerates more runs no more layers",
        rows.loc[ordered["depth"].diff().reindex(rows.index) > NEAR],
    )
    by = rows.pivot_table(index=[*place, "tolerated", "prompts"], columns="method", values=["early", "depth"])
    if {"naive", "conformal risk control"} <= set(by.columns.get_level_values(1)):
        early = by["early"]["naive"] < by["early"]["conformal risk control"] - NEAR
        depth = by["depth"]["naive"] > by["depth"]["conformal risk control"] + NEAR
        yield (
            "naive thresholds are no more careful than controlled ones",
            by[early | depth].reset_index().droplevel(1, axis=1),
        )


def probes(data: Datasets) -> Broken:
    """Data sets add up, and the probe of both is one of those compared at equal cost."""
    rows = data["probe_data"]
    tokens = rows.set_index("learnt_from")["tokens"]
    if {"completions", "real text", "both"} <= set(tokens.index):
        whole = tokens["completions"] + np.max(tokens["real text"])
        yield (
            "both is completions and all of the real text",
            rows[(rows["learnt_from"] == "both") & (rows["tokens"] != whole)],
        )
        text = rows[rows["learnt_from"] == "real text"].reset_index(drop=True)
        parts = text["tokens"] / text["tokens"].max()
        yield (
            "real text is a quarter, a half and all",
            text[(parts - np.array([0.25, 0.5, 1.0])[: len(text)]).abs() > 0.01],
        )
    if "equal_cost" in data:
        compared = data["equal_cost"].query("method == 'probe'")
        both = rows[rows["learnt_from"] == "both"].merge(
            compared, on=SETTING, suffixes=("", "_at_equal_cost")
        )
        yield (
            "the probe of both is one of those compared at equal cost",
            both[(both["share"] - both["share_at_equal_cost"]).abs() > 0.15],
        )


def other_systems(data: Datasets) -> Broken:
    """Other systems are judged by the account of the study's own criteria, which both harnesses compute."""
    rows = data["systems"]
    for rival in OVER:
        theirs = rows[rows["method"] == rival].set_index(SETTING)["share"]
        of_rival = theirs.reindex(pd.MultiIndex.from_frame(rows[SETTING])).to_numpy()
        apart = (rows["share"] - of_rival - rows[f"over_{rival}"]).abs() > NEAR
        yield f"what a system wins over {rival} is the difference of shares", rows[apart]
    if "equal_cost" in data:
        named = rows.assign(method=rows["method"].replace({"softmax confidence": "confidence"}))
        both = named.merge(data["equal_cost"], on=[*SETTING, "method"], suffixes=("", "_at_equal_cost"))
        yield (
            "a criterion wins the same beside other systems as at equal cost",
            both[(both["share"] - both["share_at_equal_cost"]).abs() > 1e-6],
        )
    lines = data.get("system_curves")
    if lines is not None:
        above = lines.pivot_table(index=[*SETTING, "cost"], columns="method", values="agreement")
        own = above[list(POLICIES)].gt(above["oracle"] + NEAR, axis=0)
        yield "no policy is above the oracle", above[own.any(axis=1)].reset_index()


# A relation and the datasets that it needs.
RELATIONS = {
    intervals: (),
    single_agents: ("agents",),
    equal_costs: ("equal_cost",),
    promised: ("promises",),
    promised_across: ("promises_across",),
    probes: ("probe_data",),
    other_systems: ("systems",),
}
