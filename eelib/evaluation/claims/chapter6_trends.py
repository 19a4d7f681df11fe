"""Section 6.4: what moves quality and depth: threshold, context, language."""

import itertools

import pandas as pd

from eelib.evaluation.claims.chapter6_savings import STRICTEST, agent_rows, at_threshold, rouge_change
from eelib.evaluation.claims.claim import (
    NEGATIVE,
    POSITIVE,
    SCORE,
    Claim,
    Load,
    Reading,
    Region,
    at_least,
    quoted,
    reading,
)
from eelib.evaluation.claims.results import PER_LANGUAGE, PER_PROJECT, THEIRS, Results, named, where
from eelib.evaluation.jackknife import jackknife

NOT_WORSE = at_least(0.0, SCORE)


def monotone(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = agent_rows(results, model=model, language=language)
        if rows.empty:
            continue
        thresholds = sorted(rows["threshold"].unique())
        for low, high in itertools.pairwise(thresholds):
            pair = where(rows, threshold=[low, high])
            for name, column, region in (
                ("layers", "mean_layers", POSITIVE),
                ("ROUGE-L", "rouge_l", NOT_WORSE),
            ):

                def change(own: pd.DataFrame, high: float = high, column: str = column) -> float:
                    upper = own["threshold"] == high
                    return own.loc[upper, column].mean() - own.loc[~upper, column].mean()

                setting = named(model, language, f"T = {low:g} to {high:g}", name)
                found.append(reading(setting, jackknife(pair, change, PER_PROJECT), "project", region))
    return found


def monotone_published(load: Load) -> list[Reading]:
    found = []
    raw = load("raw_ctx20").dropna(subset="threshold")
    for (model, language), own in raw.groupby(["model", "language"], sort=False):
        steps = own.sort_values("threshold")[["mean_layers", "rouge_l"]].diff().iloc[1:].min()
        found.append(quoted(named(model, language, "least step, layers"), steps["mean_layers"], POSITIVE))
        found.append(quoted(named(model, language, "least step, ROUGE-L"), steps["rouge_l"], NOT_WORSE))
    return found


def python_leaves_earlier(results: Results) -> list[Reading]:
    found = []
    for model in results.models():
        rows = agent_rows(results, model=model)
        if len(rows) and rows["language"].nunique() == 2:

            def difference(own: pd.DataFrame) -> float:
                means = own.groupby("language")["mean_layers"].mean()
                return means["python"] - means["java"]

            estimate = jackknife(rows, difference, PER_LANGUAGE, "language")
            found.append(reading(f"{model}, Python less Java", estimate, "project", NEGATIVE))
    return found


def python_leaves_earlier_published(load: Load) -> list[Reading]:
    raw = load("raw_ctx20")
    raw = raw[raw["threshold"] <= STRICTEST]  # at 0.94 one corpus never exits
    means = raw.groupby(["model", "language"], sort=False)["mean_layers"].mean().unstack()
    return [
        quoted(f"{model}, Python less Java", own["python"] - own["java"], NEGATIVE)
        for model, own in means.iterrows()
    ]


CLOSE = at_least(-0.05)


def close(results: Results) -> list[Reading]:
    found = []
    for model, language in results.of("llama", "java"):
        rows = agent_rows(results, model=model, language=language, context_fraction=0.2)
        if len(rows):
            own, near = at_threshold(rows, STRICTEST)
            setting = named(model, language, f"T = {near:g}")
            found.append(reading(setting, jackknife(own, rouge_change, PER_PROJECT), "project", CLOSE))
    return found


def close_published(load: Load) -> list[Reading]:
    rouge = where(load("raw_ctx20"), model=THEIRS["llama"], language="java").set_index("label")["rouge_l"]
    return [quoted("llama-3.2-3b, Java, T = 0.92", rouge["0.92"] - rouge["full"], CLOSE)]


def larger_contexts(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        rows = agent_rows(results, model=model, language=language)
        if rows.empty or rows["context_fraction"].nunique() < 2:
            continue
        small, large = rows["context_fraction"].min(), rows["context_fraction"].max()

        def difference(own: pd.DataFrame, small: float = small, large: float = large) -> float:
            one, other = (rouge_change(where(own, context_fraction=value)) for value in (small, large))
            return other - one

        setting = named(model, language, f"context {large:g} less {small:g}")
        found.append(reading(setting, jackknife(rows, difference, PER_PROJECT), "project", NEGATIVE))
    return found


def larger_contexts_published(load: Load) -> list[Reading]:
    found = []
    for (model, language), own in load("savings").groupby(["model", "language"], sort=False):
        lost = own.groupby("context_fraction")["rouge_l_lost"].mean()
        found.append(quoted(named(model, language, "printed"), lost.iloc[0] - lost.iloc[-1], NEGATIVE))
    return found


SAME: Region = (-SCORE, SCORE)


def saturates(results: Results) -> list[Reading]:
    found = []
    for model, language in results.of("", "python"):
        rows = agent_rows(results, model=model, language=language, context_fraction=0.2)
        if rows.empty:
            continue
        (low, at_low), (high, at_high) = at_threshold(rows, 0.9), at_threshold(rows, STRICTEST)
        if at_high > at_low:

            def change(own: pd.DataFrame, at_high: float = at_high) -> float:
                upper = own["threshold"] == at_high
                return own.loc[upper, "rouge_l"].mean() - own.loc[~upper, "rouge_l"].mean()

            estimate = jackknife(pd.concat([low, high]), change, PER_PROJECT)
            setting = named(model, language, f"T = {at_low:g} to {at_high:g}")
            found.append(reading(setting, estimate, "project", SAME))
    return found


def saturates_published(load: Load) -> list[Reading]:
    found = []
    for model in THEIRS.values():
        rouge = where(load("raw_ctx20"), model=model, language="python").set_index("label")["rouge_l"]
        found.append(quoted(named(model, "python", "T = 0.9 to 0.92"), rouge["0.92"] - rouge["0.9"], SAME))
    return found


TRENDS = [
    Claim(
        "monotone", "5.3, 6.4", "The threshold trades depth for quality",
        "A higher threshold runs more layers and gives no worse completions.",
        "monotonous", "change of mean layers and of ROUGE-L from each threshold to the next",
        "layers above 0; ROUGE-L at least -0.02", "Figures 6.5 to 6.11 (notebook 05)", (1, 3, 4), monotone, monotone_published,
        "agents at several thresholds",
    ),
    Claim(
        "python-leaves-earlier", "6.4.2", "Python leaves earlier than Java",
        "At the same thresholds tokens leave at lower layers on Python than on Java.",
        "on average lower", "difference of mean layers over all thresholds and contexts", "below 0",
        "Tables 6.7 to 6.10 (notebook 05)", (1,), python_leaves_earlier, python_leaves_earlier_published,
        "both languages",
    ),
    Claim(
        "close", "6.4.1", "Llama on Java stays within 5 points",
        "On Java, context 20%, T = 0.92, Llama's scores are 1 to 5 points below the full model's.",
        "-0.01 to -0.05", "change of ROUGE-L against the full model", "at least -0.05", "Figure 6.5, Table 6.8 (notebook 05)",
        (4,), close, close_published, "a model of the Llama family",
    ),
    Claim(
        "larger-contexts", "6.4.1, 7.1", "Larger contexts lose more",
        "Early exit loses more against the full model where the context is larger.",
        "up to 0.1 at 60% (OPT)", "change of ROUGE-L at the largest context less that at the smallest, over all thresholds",
        "below 0", "Figures 6.5 to 6.8 (notebook 05)", (1, 4), larger_contexts, larger_contexts_published,
        "two contexts",
    ),
    Claim(
        "saturates", "6.4.2", "On Python quality saturates at T = 0.9",
        "On Python, context 20%, completions do not get better above T = 0.9.",
        "nearly unchanged", "change of ROUGE-L from T = 0.9 to 0.92", "within 0.02", "Tables 6.9, 6.10 (notebook 05)", (1, 4),
        saturates, saturates_published, "two thresholds from 0.9 on",
    ),
]  # fmt: skip
