"""What a run found, in a few sentences computed from its tidy datasets: for the README and the kept reference."""

from collections.abc import Mapping

import pandas as pd

from eelib.report.figures import LANGUAGES

SCORED = {"probe": "probe", "agent": "PPO agent", "confidence": "confidence"}
NAMES = {**SCORED, "coin": "coin", "fixed": "fixed exit"}


def findings(equal_cost: pd.DataFrame, probe_data: pd.DataFrame, promises: pd.DataFrame) -> list[str]:
    """Sentences about the datasets of the same names (`docs/data.md`); none about what could not be computed."""
    return [*_at_equal_cost(equal_cost), *_by_data(probe_data), *_promised(promises)]


def _at_equal_cost(rows: pd.DataFrame) -> list[str]:
    known = rows.groupby(["model", "language"])["share"].transform("count") > 0
    settings = list(rows[known].groupby(["model", "language"], sort=False))
    if not settings:
        return []
    kept, won, over_agent, over_confidence = [], [], 0, 0
    for setting, own in settings:
        by = own.set_index("method")
        agreement = by["agreement_at_0.7"]
        kept.append(_of(setting) + ", ".join(f"{NAMES[name]} {agreement[name]:.2f}" for name in NAMES))
        won.append(_of(setting) + ", ".join(f"{SCORED[name]} {interval(by.loc[name])}" for name in SCORED))
        over_agent += by.loc["probe", "over_agent_low"] > 0
        over_confidence += by.loc["probe", "over_confidence_low"] > 0
    return [
        "**At 0.7 of the full model's cost**, every look charged, this share of the full model's tokens is kept. "
        + "; ".join(kept)
        + ".",
        "**Won of what an oracle wins over a coin** between two fixed exits, with 95% intervals over prompts. "
        + "; ".join(won)
        + ".",
        (
            f"The probe, a supervised classifier of the agent's size and price, is ahead of PPO with its interval above 0 in {over_agent} of "
            f"{len(settings)} settings, and of softmax confidence, which looks at the whole vocabulary, in {over_confidence}."
        ),
    ]


def _of(setting: tuple[str, str]) -> str:
    return f"{setting[0]} on {LANGUAGES[setting[1]]}: "


def interval(row: Mapping[str, float]) -> str:
    """A share with its interval."""
    return f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _by_data(rows: pd.DataFrame) -> list[str]:
    if rows["share"].isna().any():
        return []
    by = rows.set_index("learnt_from")
    completions, text = by.loc["completions"], by.loc["real text"].iloc[-1]
    return [
        (
            f"**A probe learns from real text** ({completions['model']}, {LANGUAGES[completions['language']]}): {completions['tokens']:,} tokens of the "
            f"full model's completions give a share of {interval(completions)}, {text['tokens']:,} of real text {interval(text)}."
        )
    ]


def _promised(rows: pd.DataFrame) -> list[str]:
    most = rows[rows["prompts"] == rows["prompts"].max()]
    betting, naive = (most[most["method"] == name] for name in ("Learn-then-Test, betting", "naive"))
    strict = betting[betting["tolerated"] == betting["tolerated"].min()]
    depths = [f"{row.model} on {LANGUAGES[row.language]} {row.depth:.2f}" for row in strict.itertuples()]
    return [
        (
            f"**A threshold can keep a promise**: chosen by Learn-then-Test on {most['prompts'].iloc[0]} prompts, at most {betting['broken'].max():.1%} of promises are "
            f"broken in any setting; chosen naively, up to {naive['broken'].max():.0%}. Where {strict['tolerated'].iloc[0]:.0%} of tokens may differ, a token runs this "
            f"share of the layers: {', '.join(depths)}."
        )
    ]
