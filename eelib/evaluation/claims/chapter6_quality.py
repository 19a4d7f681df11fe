"""Section 6.4: the quality of completions, by threshold, context, metric and cache."""

from collections.abc import Callable

import pandas as pd

from eelib.evaluation.claims.chapter6_savings import STRICTEST, at_threshold
from eelib.evaluation.claims.claim import (
    NEGATIVE,
    POSITIVE,
    SCORE,
    Claim,
    Load,
    Reading,
    Region,
    about,
    at_most,
    quoted,
    reading,
)
from eelib.evaluation.claims.results import PER_PROJECT, THEIRS, Results, named, nearest, where
from eelib.evaluation.jackknife import jackknife
from eelib.evaluation.metrics import corpus_metrics

SAME: Region = (-SCORE, SCORE)


# --- scores of a corpus ---


def _score(rows: pd.DataFrame, language: str, score: str) -> float:
    return corpus_metrics(rows["prediction"].tolist(), rows["reference"].tolist(), language)[score]


def _difference(
    one: pd.DataFrame, other: pd.DataFrame, language: str, score: str
) -> tuple[pd.DataFrame, Callable]:
    """Rows and statistic of a corpus's score of `one` less that of `other`."""
    rows = pd.concat([one.assign(side="one"), other.assign(side="other")], ignore_index=True)

    def difference(own: pd.DataFrame) -> float:
        sides = [own[own["side"] == side] for side in ("one", "other")]
        return _score(sides[0], language, score) - _score(sides[1], language, score)

    return rows, difference


def _syntax(results: Results, upper: float, lower: float, score: str, region: Region) -> list[Reading]:
    """Change of a component of CodeBLEU between two thresholds of the first agent, Llama on Java."""
    found = []
    for model, language in results.of("llama", "java"):
        place = {"model": model, "language": language, "context_fraction": 0.2}
        rows = where(results.scored, node="agent_predictions", seed=0, **place)
        if rows.empty:
            continue
        (one, at_one), (other, at_other) = at_threshold(rows, upper), at_threshold(rows, lower)
        if at_one != at_other:
            estimate = jackknife(*_difference(one, other, language, score), PER_PROJECT)
            what = {"codebleu_syntax": "syntax", "codebleu_dataflow": "data flow"}[score]
            setting = named(model, language, f"T = {at_other:g} to {at_one:g}", what)
            found.append(reading(setting, estimate, "project", region))
    return found


def syntax_level(results: Results) -> list[Reading]:
    return [
        *_syntax(results, STRICTEST, 0.9, "codebleu_syntax", SAME),
        *_syntax(results, 0.9, 0.6, "codebleu_dataflow", NEGATIVE),
    ]


def syntax_level_published(load: Load) -> list[Reading]:
    by = where(load("raw_ctx20"), model=THEIRS["llama"], language="java").set_index("label")
    syntax, flow = by["codebleu_syntax"], by["codebleu_dataflow"]
    return [
        quoted("llama-3.2-3b, Java, T = 0.9 to 0.92, syntax", syntax["0.92"] - syntax["0.9"], SAME),
        quoted("llama-3.2-3b, Java, T = 0.6 to 0.9, data flow", flow["0.9"] - flow["0.6"], NEGATIVE),
    ]


CODEBLEU_STAYS: Region = (-0.03, 0.03)
BLEU_FALLS = about(0.25 - 0.29, 0.03)
SKIPPED_STAYS: Region = (-0.05, 0.05)


def _with_and_without_cache(
    results: Results, model: str, language: str
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """The first agent's completions with propagation and exact ones, at the threshold nearest to 0.9, and that threshold."""
    cached = where(
        results.scored,
        node="cached_predictions",
        model=model,
        language=language,
        criterion="agent",
        cache="propagate",
    )
    exact = where(results.scored, node="agent_predictions", model=model, language=language, seed=0)
    if cached.empty or exact.empty:
        return pd.DataFrame(), pd.DataFrame(), 0.0
    near = nearest(cached["threshold"].unique().tolist(), 0.9)
    exact = where(exact, context_fraction=cached["context_fraction"].min(), threshold=near)
    return where(cached, threshold=near, context_fraction=cached["context_fraction"].min()), exact, near


def propagation(results: Results) -> list[Reading]:
    found = []
    for family, score, region in (
        ("llama", "codebleu", CODEBLEU_STAYS),
        ("opt", "codebleu", CODEBLEU_STAYS),
        ("opt", "bleu", BLEU_FALLS),
    ):
        for model, language in results.of(family, "java"):
            cached, exact, near = _with_and_without_cache(results, model, language)
            if len(cached):
                estimate = jackknife(*_difference(cached, exact, language, score), PER_PROJECT)
                name = {"codebleu": "CodeBLEU", "bleu": "BLEU"}[score]
                setting = named(model, language, f"T = {near:g}", name)
                found.append(reading(setting, estimate, "project", region))
    return found


def propagation_depth(results: Results) -> list[Reading]:
    found = []
    for model, language in results.settings:
        cached, exact, near = _with_and_without_cache(results, model, language)
        if len(cached):
            rows = pd.concat([cached.assign(sign=1), exact.assign(sign=-1)])

            def change(own: pd.DataFrame) -> float:
                shares = own["mean_layers"] / own["last"]
                return shares[own["sign"] < 0].mean() - shares[own["sign"] > 0].mean()

            setting = named(model, language, f"T = {near:g}")
            found.append(reading(setting, jackknife(rows, change, PER_PROJECT), "project", SKIPPED_STAYS))
    return found


# --- against other models ---

LOW = at_most(0.17, 0.03)


def exact_match(results: Results) -> list[Reading]:
    rows = where(results.scored, node="full_predictions", kind="aggregated")
    groups = rows.groupby(["model", "language", "context_fraction"], sort=False) if len(rows) else ()
    return [
        reading(
            named(model, language, f"context {context:g}"),
            jackknife(own, lambda part: part["exact_match"].mean(), PER_PROJECT),
            "project", LOW,
        )
        for (model, language, context), own in groups
    ]  # fmt: skip


def exact_match_published(load: Load) -> list[Reading]:
    return [quoted("printed, the highest", load("results")["exact_match"].max(), LOW)]


def _kinds(
    results: Results, kinds: tuple[str, str], scores: dict[str, Region], family: str = "", language: str = ""
):
    """Scores of one kind of full model less those of another, context 20%."""
    found = []
    for model, corpus in results.of(family, language):
        full = where(
            results.scored, node="full_predictions", model=model, language=corpus, context_fraction=0.2
        )
        sides = [where(full, kind=kind) for kind in kinds]
        if any(side.empty for side in sides):
            continue
        for score, region in scores.items():
            if score == "codebleu":
                estimate = jackknife(*_difference(*sides, corpus, score), PER_PROJECT)
            else:
                both = sides[0].merge(sides[1][["sample", score]], on="sample", suffixes=("", "_other"))
                both["by"] = both[score] - both[f"{score}_other"]
                estimate = jackknife(both, lambda own: own["by"].mean(), PER_PROJECT)
            name = {
                "rouge_l": "ROUGE-L",
                "chrf": "ChrF",
                "levenshtein": "edit distance",
                "codebleu": "CodeBLEU",
            }[score]
            found.append(reading(named(model, corpus, name), estimate, "project", region))
    return found


BASE_AHEAD = {"rouge_l": POSITIVE, "chrf": POSITIVE, "levenshtein": NEGATIVE, "codebleu": NEGATIVE}


def base_ahead(results: Results) -> list[Reading]:
    return _kinds(results, ("base", "aggregated"), BASE_AHEAD, "llama", "java")


def base_ahead_published(load: Load) -> list[Reading]:
    by = where(load("raw_ctx20"), model=THEIRS["llama"], language="java").set_index("label")
    return [
        quoted(f"llama-3.2-3b, Java, {s}", by.loc["base", s] - by.loc["full", s], region)
        for s, region in BASE_AHEAD.items()
    ]


def plain_ahead(results: Results) -> list[Reading]:
    return _kinds(results, ("plain", "base"), {"rouge_l": POSITIVE})


QUALITY = [
    Claim(
        "syntax-level", "6.4.1", "Syntax stays level, data flow dips",
        "On Java, context 20%, Llama's syntax match plateaus at high thresholds, and its data-flow match dips between low and high ones.",
        "plateau; drop", "change of the match between two thresholds, first agent",
        "syntax within 0.02; data flow below 0", "Figure 6.5 (notebook 05)", (1,), syntax_level, syntax_level_published,
        "a model of the Llama family",
    ),
    Claim(
        "propagation", "6.4.4", "Propagation leaves CodeBLEU, costs OPT BLEU",
        "On Java, context 20%, KV propagation leaves CodeBLEU unchanged and lowers OPT's BLEU from 0.29 to 0.25.",
        "unchanged; -0.04", "score with propagation less that of the exact decoder, first agent, T = 0.9",
        "CodeBLEU within 0.03; BLEU -0.07 to -0.01", "Figure 6.14 (notebook 07)", (3,), propagation,
        needs="completions with a cache",
    ),
    Claim(
        "propagation-depth", "6.4.4", "Propagation skips the same layers",
        "The share of layers that are skipped is the same with KV propagation.",
        "align closely", "share of layers skipped with propagation less that without, first agent, T = 0.9", "within 0.05",
        "Figure 6.15 (notebook 07)", (3,), propagation_depth, needs="completions with a cache",
    ),
    Claim(
        "exact-match", "6.4.2", "Exact match never passes 17%",
        "No more than 17% of the full model's completions match exactly, in any setting.",
        "at most 17%", "share of the full model's completions that match exactly", "at most 0.20",
        "Tables 6.7 to 6.10 (notebook 05)", (4,), exact_match, exact_match_published, "full completions",
    ),
    Claim(
        "base-ahead", "6.4.1", "The base model beats the fine-tuned one",
        "On Java, context 20%, the base model beats the fine-tuned Llama on all metrics but CodeBLEU.",
        "slightly better", "score of the base model less that of the fine-tuned one",
        "ROUGE-L, ChrF above 0, edit distance below 0, CodeBLEU below 0", "Figure 6.5 (notebook 05)", (3, 4), base_ahead,
        base_ahead_published, "a model of the Llama family",
    ),
    Claim(
        "plain-ahead", "6.4.2", "Plain fine-tuning would do better still",
        "A model fine-tuned in the standard way beats the base model, so that the full model loses even more against it.",
        "supposed, not measured", "ROUGE-L of the plainly fine-tuned model less the base model's, context 20%", "above 0",
        "Tables 6.7 to 6.10 (notebook 05)", (3, 4), plain_ahead, needs="a plainly fine-tuned model",
    ),
]  # fmt: skip
