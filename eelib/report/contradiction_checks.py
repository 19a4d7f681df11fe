"""The number behind each computed contradiction of the thesis: from its tables of results, raw results and pictures.

A function here belongs to the entry of that id in `thesis/contradictions.yaml`, and returns the number that its `{found}`
stands for, in the entry's `unit`. It says nothing about what is right; the entry's `allowed` does. `formula_checks.py` adds
those that need no results.
"""

from collections.abc import Callable

import pandas as pd

from eelib.models.exits import exit_points
from eelib.report.thesis_numbers import PRINTED_SCORES, load, load_exit_layers, savings

OPT, LLAMA = "opt-2.7b", "llama-3.2-3b"
LAYERS = {OPT: 32, LLAMA: 28}
CHECKS: dict[str, Callable[[], float]] = {}


def computes(name: str) -> Callable:
    """Make a function the check of the entry `name`."""

    def keep(function: Callable[[], float]) -> Callable[[], float]:
        CHECKS[name] = function
        return function

    return keep


def _printed(table: str, context: float, threshold: float | None) -> pd.Series:
    """A row of Tables 6.7 to 6.10; no threshold is the full model."""
    rows = load("results").query("origin == @table and context_fraction == @context")
    of = rows["threshold"].isna() if threshold is None else rows["threshold"] == threshold
    return rows[of].squeeze()


def _raw(model: str, language: str, label: str) -> pd.Series:
    """A row of the raw results of context 0.2; the label is a threshold, "base" or "full"."""
    return load("raw_ctx20").query("model == @model and language == @language and label == @label").squeeze()


def _raw_lost(model: str, language: str, label: str, score: str) -> float:
    """What a score falls by against the full model."""
    return _raw(model, language, "full")[score] - _raw(model, language, label)[score]


def _overhead(language: str) -> pd.DataFrame:
    """Llama's overhead runs at context 0.2, by threshold."""
    rows = load("overhead").query("model == @LLAMA and language == @language and context_fraction == 0.2")
    return rows.set_index("threshold")


def _picture(quantity: str, **where: str) -> pd.Series:
    """What was read from published pictures, by place on the x-axis."""
    rows = load("pictures")
    for column, value in ({"quantity": quantity} | where).items():
        rows = rows[rows[column] == value]
    return rows.set_index("at")["reading"]


def _most_saved(*tables: str) -> float:
    rows = savings()
    return 100 * rows.loc[rows["origin"].isin(tables), "energy_saved"].max()


# --- what is saved and lost ---

CHECKS["savings-java"] = lambda: _most_saved("Table 6.7", "Table 6.8")
CHECKS["savings-python"] = lambda: _most_saved("Table 6.9", "Table 6.10")
CHECKS["savings-at-most"] = lambda: _most_saved("Table 6.7", "Table 6.8", "Table 6.9", "Table 6.10")


def _saved(table: str, threshold: float) -> float:
    return 100 * (1 - _printed(table, 0.2, threshold)["energy_wh"] / _printed(table, 0.2, None)["energy_wh"])


CHECKS["savings-llama-java"] = lambda: _saved("Table 6.8", 0.6)
CHECKS["opt-27"] = lambda: _saved("Table 6.7", 0.92)


@computes("savings-on-average")
def _savings_on_average() -> float:
    return 100 * savings().groupby("threshold")["energy_saved"].mean().max()


CHECKS["loss-of-012"] = lambda: _raw_lost(LLAMA, "java", "0.6", "rouge_l")
CHECKS["no-accuracy-losses"] = lambda: _raw_lost(OPT, "java", "0.92", "codebleu_syntax")


@computes("deviation-of-002")
def _deviation() -> float:
    return _printed("Table 6.8", 0.5, None)["codebleu"] - _printed("Table 6.8", 0.5, 0.92)["codebleu"]


@computes("no-compromise")
def _settings_that_lose() -> float:
    lost = [
        _raw_lost(model, language, "0.92", "rouge_l") for model in LAYERS for language in ("java", "python")
    ]
    return sum(loss > 0.01 for loss in lost)


@computes("rouge-of-050")
def _full_where_early_exit_has_046() -> float:
    rows = load("results").query(
        "rouge_l == 0.46 and threshold.notna() and not remark.str.startswith('repeats')"
    )
    ((table, context),) = set(zip(rows["origin"], rows["context_fraction"], strict=True))
    return _printed(table, context, None)["rouge_l"]


CHECKS["rouge-of-044"] = lambda: _printed("Table 6.9", 0.2, 0.92)["rouge_l"]


@computes("larger-contexts")
def _chrf_of_larger_context() -> float:
    return _printed("Table 6.8", 0.5, None)["chrf"] - _printed("Table 6.8", 0.2, None)["chrf"]


@computes("three-layers")
def _layers_from_09() -> float:
    return _printed("Table 6.9", 0.2, 0.92)["mean_layers"] - _printed("Table 6.9", 0.2, 0.9)["mean_layers"]


CHECKS["throughput-18"] = lambda: _raw(LLAMA, "java", "0.92")["throughput_of_totals"]


@computes("codebleu-lowest")
def _bars_above_bleu() -> float:
    rows = load("raw_ctx20").query("language == 'python'")
    rows = rows[
        rows["label"].isin(["base", "full", "0.6", "0.8", "0.9", "0.91", "0.92"])
    ]  # Figures 6.10, 6.11
    return (rows["codebleu"] > rows["bleu"]).sum()


@computes("codebleu-029")
def _last_layer_codebleu() -> float:
    rows = load("fixed_exits").query(
        "model == @OPT and language == 'python' and kind == 'aggregated' and layer == 32"
    )
    return rows["codebleu"].item()


# --- tables and raw results against each other ---


def _equal_cells(first: pd.Series, second: pd.Series) -> int:
    return (first[PRINTED_SCORES] == second[PRINTED_SCORES]).sum()


CHECKS["copied-row-69"] = lambda: _equal_cells(
    _printed("Table 6.9", 0.3, 0.6), _printed("Table 6.7", 0.3, 0.6)
)
CHECKS["copied-row-610"] = lambda: _equal_cells(
    _printed("Table 6.10", 0.3, 0.9), _printed("Table 6.9", 0.3, 0.9)
)


@computes("context-05-06")
def _contexts_without_full_model() -> float:
    rows = load("results").query("origin == 'Table 6.9'")
    full = rows["threshold"].isna()
    return len(set(rows.loc[~full, "context_fraction"]) - set(rows.loc[full, "context_fraction"]))


@computes("opt-mean-layers")
def _too_many_layers() -> float:
    rows = load("results").query("model == @OPT and context_fraction == 0.2 and threshold.notna()")
    raw = load("raw_ctx20")
    both = rows.merge(raw, on=["model", "language", "threshold"], suffixes=("", "_raw"))
    return (both["mean_layers"] - both["mean_layers_raw"]).max()


CHECKS["samples-1000"] = lambda: load("raw_ctx20").query("language == 'python'")["samples"].unique().item()


@computes("cached-fixed-exits")
def _table_time_over_cached() -> float:
    fixed = load("fixed_exits").query("kind == 'aggregated'")
    last = fixed[fixed["layer"] == fixed["model"].map(LAYERS)]
    full = load("results").query("threshold.isna() and context_fraction == 0.3")
    both = full.merge(last, on=["model", "language"], suffixes=("", "_cached"))
    return (both["time_s"] / both["time_s_cached"]).min()


@computes("opt-python-files")
def _samples_of_files_named_java() -> float:
    rows = load("raw_ctx20")
    return rows.loc[rows["remark"].str.startswith("the file is named java"), "samples"].unique().item()


@computes("base-run-twice")
def _layers_scored_alike() -> float:
    base = load("fixed_exits").query("model == @OPT and kind == 'base'")
    scores = base.pivot(index="layer", columns="language", values="levenshtein")
    return ((scores["java"] - scores["python"]).abs() < 0.01).sum()


@computes("base-references")
def _reference_lengths() -> float:
    base, full = (_raw(LLAMA, "python", label)["reference_length"] for label in ("base", "full"))
    return base / full


@computes("python-extremes")
def _share_at_both_ends() -> float:
    rows = load_exit_layers().query("model == @LLAMA and language == 'python' and threshold == 0.94")
    return 100 * rows["layer"].isin([exit_points(28)[0], 28]).mean()


# --- overhead ---


def _thresholds_of_the_tables(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.index <= 0.92]


CHECKS["overhead-5-to-20"] = lambda: 100 * load("overhead")["of_exit_energy"].max()


@computes("overhead-3-to-8")
def _overhead_at_most() -> float:
    return 100 * _thresholds_of_the_tables(_overhead("python"))["of_full_time"].max()


@computes("overhead-nearly-constant")
def _overhead_grows() -> float:
    shares = _overhead("python")["of_full_energy"]
    return shares[0.92] / shares[0.6]


@computes("energy-above-time")
def _thresholds_with_less_energy() -> float:
    rows = _overhead("python")
    return (rows["of_full_energy"] < rows["of_full_time"]).sum()


@computes("overhead-power")
def _power_of_the_overhead_run() -> float:
    run, table = _overhead("python").loc[0.92], _printed("Table 6.9", 0.2, 0.92)
    return run["energy_wh"] / run["time_s"] / (table["energy_wh"] / table["time_s"])


@computes("overhead-without-exits")
def _energy_from_09_to_094() -> float:
    energy = _overhead("java")["energy_wh"]
    return energy[0.9] / energy[0.94]


@computes("overhead-difference")
def _windows_over_difference() -> float:
    difference = _raw(LLAMA, "java", "0.94")["time_s"] - _raw(LLAMA, "java", "full")["time_s"]
    return _overhead("java").loc[0.94, "agent_time_s"] / difference


# --- read from pictures ---


@computes("optimal-exits-of-steps")
def _optimal_exits_a_step() -> float:
    steps = int(load("table_6_6").set_index("hyperparameter").loc["steps", "value"])
    return min(_picture("occurrences of the optimal exit", model=model).sum() / steps for model in LAYERS)


@computes("cached-codebleu")
def _codebleu_lost_by_caching() -> float:
    cached = _picture("codebleu with KV propagation", model=LLAMA)
    return _raw(LLAMA, "java", "0.8")["codebleu"] - cached[0.8]


CHECKS["loss-towards-zero"] = lambda: _picture("training loss, last", model=OPT, language="python").item()


@computes("loss-starts-higher")
def _first_loss() -> float:
    python, java = (
        _picture("training loss, first", model=LLAMA, language=name) for name in ("python", "java")
    )
    return python.item() - java.item()
