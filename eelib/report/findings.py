"""What a run found, in a few sentences computed from its tidy datasets: for the README and the kept reference."""

from collections.abc import Mapping

import pandas as pd

from eelib.report.figures import LANGUAGES

SCORED = {"stopping": "optimal stopping", "probe": "probe", "agent": "PPO agent", "confidence": "confidence"}
NAMES = {**SCORED, "coin": "coin", "fixed": "fixed exit"}


def findings(equal_cost: pd.DataFrame, probe_data: pd.DataFrame, promises: pd.DataFrame) -> list[str]:
    """Sentences about the datasets of the same names (`docs/data.md`); none about what could not be computed."""
    return [*_at_equal_cost(equal_cost), *_by_data(probe_data), *_promised(promises)]


def _at_equal_cost(rows: pd.DataFrame) -> list[str]:
    known = rows.groupby(["model", "language"])["share"].transform("count") > 0
    settings = list(rows[known].groupby(["model", "language"], sort=False))
    if not settings:
        return []
    kept, won, ahead = [], [], dict.fromkeys(("agent", "probe", "confidence"), 0)
    for setting, own in settings:
        by = own.set_index("method")
        agreement = by["agreement_at_0.7"]
        kept.append(_of(setting) + ", ".join(f"{NAMES[name]} {agreement[name]:.2f}" for name in NAMES))
        won.append(_of(setting) + ", ".join(f"{SCORED[name]} {interval(by.loc[name])}" for name in SCORED))
        for rival in ahead:
            ahead[rival] += by.loc["stopping", f"over_{rival}_low"] > 0
    return [
        "**At 0.7 of the full model's cost**, every look charged, this share of the full model's tokens is kept. "
        + "; ".join(kept)
        + ".",
        "**Won of what an oracle wins over a coin** between two fixed exits, with 95% intervals over prompts. "
        + "; ".join(won)
        + ".",
        (
            f"Optimal stopping weighs leaving now against what going on is worth; it has the size and the price of the thesis's agent. Its interval is above PPO's in "
            f"{ahead['agent']} of {len(settings)} settings, above the probe's, a classifier of right and wrong, in {ahead['probe']}, and above that of softmax confidence, which looks at the "
            f"whole vocabulary, in {ahead['confidence']}."
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
            f"**A threshold can keep a promise**: for optimal stopping, chosen by Learn-then-Test on {most['prompts'].iloc[0]} prompts, at most {betting['broken'].max():.1%} of promises are "
            f"broken in any setting; chosen naively, up to {naive['broken'].max():.0%}. Where {strict['tolerated'].iloc[0]:.0%} of tokens may differ, a token runs this "
            f"share of the layers: {', '.join(depths)}."
        )
    ]
