"""Section 6.4 and the abstract: what early exit saves, and what that costs in quality.

The thesis compares energy without a key-value cache on either side, which no one would run. What is saved here is counted against
the full model *with* its cache: the layers that run, the filling of the cache, and every decision (`cost.py`), as a share of the
full model's token. One claim keeps the thesis's own comparison.
"""

import pandas as pd

from eelib.evaluation.claims.claim import (
    SAVED,
    SCORE,
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
from eelib.evaluation.claims.results import (
    PER_LANGUAGE,
    PER_PROJECT,
    PER_PROMPT,
    THEIRS,
    Results,
    named,
    nearest,
    where,
)
from eelib.evaluation.jackknife import jackknife

SAMPLE = ["model", "language", "context_fraction", "sample"]
MEASURED = ["project", "threshold", "seed", "rouge_l", "mean_layers", "count", "cost", "decisions", "flops"]
STRICTEST = 0.92  # the highest threshold of the thesis's tables


def agent_rows(results: Results, **wanted: object) -> pd.DataFrame:
    """Scores of all agents' completions beside the full model's of the same sample: `rouge_l_full`, `flops_full`."""
    agents = where(results.scored, node="agent_predictions", **wanted)
    full = where(results.scored, node="full_predictions", kind="aggregated", **wanted)
    if agents.empty:
        return agents
    agents = agents[[*SAMPLE, *MEASURED]]
    return agents.merge(
        full[[*SAMPLE, "rouge_l", "flops"]], on=SAMPLE, suffixes=("", "_full"), validate="many_to_one"
    )


def at_threshold(rows: pd.DataFrame, wanted: float) -> tuple[pd.DataFrame, float]:
    """Rows of the threshold that ran nearest to the thesis's, and that threshold."""
    near = nearest(rows["threshold"].unique().tolist(), wanted)
    return where(rows, threshold=near), near


def saved(rows: pd.DataFrame) -> float:
    """Share of the cached full model's cost that a token saves."""
    return 1 - rows["cost"].sum() / rows["count"].sum()


def rouge_change(rows: pd.DataFrame) -> float:
    """ROUGE-L less the full model's on the same samples."""
    return (rows["rouge_l"] - rows["rouge_l_full"]).mean()


def _saved_at(results: Results, family: str, language: str, regions: dict[float, Region]) -> list[Reading]:
    found = []
    for model, corpus in results.of(family, language):
        rows = agent_rows(results, model=model, language=corpus, context_fraction=0.2)
        for threshold, region in regions.items() if len(rows) else ():
            own, near = at_threshold(rows, threshold)
            setting = named(model, corpus, f"T = {near:g}")
            found.append(reading(setting, jackknife(own, saved, PER_PROJECT), "project", region))
    return found


def _saved_published(load: Load, family: str, language: str, regions: dict[float, Region]) -> list[Reading]:
    rows = where(load("raw_ctx20"), model=THEIRS[family], language=language).set_index("label")["energy_wh"]
    return [
        quoted(
            named(THEIRS[family], language, f"T = {T:g}", "both uncached"),
            1 - rows[f"{T:g}"] / rows["full"],
            region,
        )
        for T, region in regions.items()
    ]


LLAMA_JAVA = {0.92: at_least(0.23, SAVED), 0.9: at_least(0.32, SAVED), 0.6: at_least(0.50, SAVED)}


def llama_java_saves(results: Results) -> list[Reading]:
    return _saved_at(results, "llama", "java", LLAMA_JAVA)


def llama_java_saves_published(load: Load) -> list[Reading]:
    return _saved_published(load, "llama", "java", LLAMA_JAVA)


PYTHON = {"opt": {STRICTEST: about(0.40)}, "llama": {STRICTEST: about(0.30)}}


def python_saves(results: Results) -> list[Reading]:
    return [found for family, at in PYTHON.items() for found in _saved_at(results, family, "python", at)]


def python_saves_published(load: Load) -> list[Reading]:
    return [found for family, at in PYTHON.items() for found in _saved_published(load, family, "python", at)]


ON_AVERAGE: Region = (0.20 - SAVED, 0.50 + SAVED)
MODERATE = at_least(-0.2, SCORE)


def average_uncached(results: Results) -> list[Reading]:
    rows = agent_rows(results)
    if rows.empty or not results.decision_flops:
        return []
    decided = rows["decisions"] * rows["model"].map(results.decision_flops)
    rows = rows.assign(saved=1 - (rows["flops"] + decided) / rows["flops_full"])
    estimate = jackknife(rows, lambda own: own["saved"].mean(), PER_LANGUAGE)
    change = jackknife(rows, rouge_change, PER_LANGUAGE)
    return [
        reading("all settings, saved", estimate, "project", ON_AVERAGE),
        reading("all settings, ROUGE-L", change, "project", MODERATE),
    ]


def average_uncached_published(load: Load) -> list[Reading]:
    rows = load("savings")
    return [
        quoted("printed, energy saved, both uncached", rows["energy_saved"].mean(), ON_AVERAGE),
        quoted("printed, ROUGE-L", -rows["rouge_l_lost"].mean(), MODERATE),
    ]


def average_cached(results: Results) -> list[Reading]:
    rows = agent_rows(results)
    if rows.empty or not results.prices:
        return []
    return [reading("all settings", jackknife(rows, saved, PER_LANGUAGE), "project", ON_AVERAGE)]


def average_cached_published(load: Load) -> list[Reading]:
    """Printed early exits at context 0.3, uncached, against the fixed exits at the last layer, which ran with a cache."""
    printed, fixed = load("results"), load("fixed_exits")
    exits = printed[
        (printed["context_fraction"] == 0.3) & printed["threshold"].notna() & (printed["remark"] == "")
    ]
    cached = fixed[fixed["kind"] == "aggregated"].sort_values("layer").groupby(["model", "language"]).last()
    full = [cached.loc[key, "energy_j"] / 3600 for key in zip(exits["model"], exits["language"], strict=True)]
    value = (1 - exits["energy_wh"] / full).mean()
    return [quoted("printed, context 0.3, uncached exits against the cached full model", value, ON_AVERAGE)]


OPT_SAVES = {STRICTEST: at_least(0.27, SAVED)}
EQUAL = at_least(0.0, SCORE)


def opt_java_equals(results: Results) -> list[Reading]:
    found = _saved_at(results, "opt", "java", OPT_SAVES)
    for model, language in results.of("opt", "java"):
        rows = agent_rows(results, model=model, language=language, context_fraction=0.2)
        if len(rows):
            own, near = at_threshold(rows, STRICTEST)
            setting = named(model, language, f"T = {near:g}", "ROUGE-L")
            found.append(reading(setting, jackknife(own, rouge_change, PER_PROJECT), "project", EQUAL))
    return found


def opt_java_equals_published(load: Load) -> list[Reading]:
    rouge = where(load("raw_ctx20"), model=THEIRS["opt"], language="java").set_index("label")["rouge_l"]
    quality = quoted("opt-2.7b, Java, T = 0.92, ROUGE-L", rouge["0.92"] - rouge["full"], EQUAL)
    return [*_saved_published(load, "opt", "java", OPT_SAVES), quality]


FASTER = at_least(18 / 13, SHARE)


def throughput(results: Results) -> list[Reading]:
    rows = where(results["timings"], node="timings", kind="aggregated", cache="propagate")
    rows = rows.assign(rate=rows["tokens"] / rows["seconds"]) if len(rows) else rows
    if rows.empty:
        return []
    agents, near = at_threshold(where(rows, criterion="agent"), STRICTEST)
    rates = [own.groupby(list(PER_PROMPT))["rate"].mean() for own in (agents, where(rows, criterion="full"))]
    ratios = (rates[0] / rates[1]).rename("ratio").reset_index()
    estimate = jackknife(ratios, lambda own: own["ratio"].mean(), PER_PROMPT)
    return [reading(f"all settings, T = {near:g}", estimate, "timed prompt", FASTER)]


def throughput_published(load: Load) -> list[Reading]:
    rate = where(load("raw_ctx20"), model=THEIRS["llama"], language="java").set_index("label")["throughput"]
    return [quoted("llama-3.2-3b, Java, T = 0.92, both uncached", rate["0.92"] / rate["full"], FASTER)]


SAVINGS = [
    Claim(
        "llama-java-saves", "6.4.1", "Llama on Java saves 23, 32, 50%",
        "On Java, context 20%, Llama saves at least 23% of the energy at T = 0.92, 32% at 0.9 and more than 50% at 0.6.",
        "23%, 32%, over 50%, both sides uncached", "share of the cached full model's cost saved", "at least these, less 0.05",
        "Figure 6.5, Table 6.8 (notebook 05)", (4,), llama_java_saves, llama_java_saves_published,
        "a model of the Llama family",
    ),
    Claim(
        "average-uncached", "Abstract, 6.4", "20 to 50% is saved, no caches",
        "Against a full model without a cache, 20 to 50% is saved on average, and metrics lose 0.02 to 0.2.",
        "20 to 50%; -0.02 to -0.2", "share of the uncached full model's FLOPs saved; change of ROUGE-L",
        "0.15 to 0.55; at least -0.22", "Tables 6.7 to 6.10 (notebook 05)", (4,), average_uncached,
        average_uncached_published, "agents' completions",
    ),
    Claim(
        "average-cached", "Abstract, 6.4", "20 to 50% is saved, with caches",
        "Against the full model with its cache, 20 to 50% is saved on average.",
        "20 to 50%, both sides uncached", "share of the cached full model's cost saved", "0.15 to 0.55",
        "Tables 6.7 to 6.10 (notebook 05), trade-off (notebook 07)", (4,), average_cached, average_cached_published,
        "agents' completions",
    ),
    Claim(
        "opt-java-equals", "6.4.1", "OPT on Java saves 27% for nothing",
        "On Java, context 20%, T = 0.92, OPT is as good as the full model and saves 27%.",
        "equal ROUGE-L and BLEU; 27%, both sides uncached", "share of the cached full model's cost saved; change of ROUGE-L",
        "at least 0.22; at least -0.02", "Figure 6.7, Table 6.7 (notebook 05)", (4,), opt_java_equals,
        opt_java_equals_published, "a model of the OPT family",
    ),
    Claim(
        "python-saves", "6.4.2", "Python: OPT saves 40%, Llama 30%",
        "On Python, context 20%, T = 0.92, OPT saves about 40% and Llama about 30%.",
        "40%; 30%, both sides uncached", "share of the cached full model's cost saved", "within 0.10",
        "Figures 6.10, 6.11, Tables 6.9, 6.10 (notebook 05)", (4,), python_saves, python_saves_published,
        "Python corpora",
    ),
    Claim(
        "throughput", "6.4.1", "Throughput rises by two fifths",
        "Early exit at T = 0.92 raises throughput from 13 to 18 tokens a second.",
        "13 to 18, both sides uncached", "ratio of tokens a second to the full model's, both with a cache",
        f"at least {18 / 13:.2f}, less 0.10", "Figure 6.5 (notebook 05), table_kv_propagation (notebook 07)", (4,), throughput,
        throughput_published, "timed completions with a cache",
    ),
]  # fmt: skip
