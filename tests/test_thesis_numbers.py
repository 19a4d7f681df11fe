"""The thesis's numbers: cells typed again from its text, and the raw results held against the printed tables."""

import pandas as pd
import pytest

from eelib.errors import InputError
from eelib.models.exits import exit_points
from eelib.report.thesis_numbers import load, load_exit_layers, names, savings

CELLS = ["codebleu", "rouge_l", "chrf", "exact_match", "levenshtein", "energy_wh", "time_s", "mean_layers"]
OPT, LLAMA = "opt-2.7b", "llama-3.2-3b"
LAYERS = {OPT: 32, LLAMA: 28}


@pytest.fixture(scope="module")
def results():
    return load("results")


@pytest.fixture(scope="module")
def raw():
    return load("raw_ctx20")


def row(results, origin, context_fraction, threshold):
    rows = results[(results["origin"] == origin) & (results["context_fraction"] == context_fraction)]
    rows = rows[rows["threshold"].isna()] if threshold is None else rows[rows["threshold"] == threshold]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("origin", "context_fraction", "threshold", "cells"),
    [
        ("Table 6.7", 0.2, None, [0.39, 0.34, 37.26, 0.03, 32.11, 151.18, 2443.74, 32.00]),
        ("Table 6.7", 0.6, 0.92, [0.28, 0.29, 34.26, 0.03, 32.41, 187.05, 3009.06, 22.94]),
        ("Table 6.8", 0.3, None, [0.40, 0.39, 41.15, 0.07, 33.38, 147.36, 2108.40, 28.00]),
        ("Table 6.8", 0.2, 0.9, [0.39, 0.39, 40.72, 0.04, 32.79, 80.13, 1158.65, 14.74]),
        ("Table 6.9", 0.2, 0.92, [0.36, 0.45, 44.14, 0.10, 24.01, 117.08, 1896.69, 16.12]),
        ("Table 6.9", 0.6, 0.6, [0.29, 0.38, 38.54, 0.05, 25.51, 93.72, 1517.07, 5.80]),
        ("Table 6.10", 0.5, 0.8, [0.21, 0.28, 28.65, 0.01, 26.99, 126.85, 2029.06, 13.68]),
    ],
)
def test_cells_are_those_of_the_thesis(results, origin, context_fraction, threshold, cells):
    assert row(results, origin, context_fraction, threshold)[CELLS].tolist() == cells


def test_the_tables_are_whole(results):
    assert results.groupby("origin").size().to_dict() == dict.fromkeys(
        ["Table 6.7", "Table 6.8", "Table 6.9", "Table 6.10"], 18
    )
    assert results["threshold"].dropna().unique().tolist() == [0.6, 0.8, 0.9, 0.91, 0.92]
    assert results["threshold"].isna().sum() == 12
    full = results[results["threshold"].isna()]
    assert (full["mean_layers"] == full["model"].map(LAYERS)).all()


def test_rows_that_the_thesis_prints_twice_are_marked(results):
    """Two rows of Tables 6.9 and 6.10 repeat rows of other tables; nothing else does, and the remark names the other table."""
    twice = results[results.duplicated(CELLS, keep=False)]
    places = set(zip(twice["origin"], twice["threshold"], strict=True))
    assert places == {("Table 6.7", 0.6), ("Table 6.9", 0.6), ("Table 6.9", 0.9), ("Table 6.10", 0.9)}
    assert (twice["context_fraction"] == 0.3).all()
    marked = results[results["remark"].str.startswith("repeats")]
    assert [(r.origin, r.threshold, r.remark[:18]) for r in marked.itertuples()] == [
        ("Table 6.9", 0.6, "repeats Table 6.7 "),
        ("Table 6.10", 0.9, "repeats Table 6.9 "),
    ]


def test_savings_by_hand():
    """Table 6.9 prints 0.5 and 0.6 for its third context; the two rows that repeat others have no savings of their own."""
    rows = savings().set_index(["origin", "context_fraction", "threshold"])
    assert len(rows) == 60
    shares = ["energy_saved", "time_saved", "layers_saved", "rouge_l_lost"]
    by_hand = {
        ("Table 6.7", 0.2, 0.92): [1 - 108.55 / 151.18, 1 - 1759.19 / 2443.74, 1 - 21.52 / 32, 0.34 - 0.35],
        ("Table 6.9", 0.6, 0.6): [1 - 93.72 / 250.61, 1 - 1517.07 / 3976.39, 1 - 5.8 / 28, 0.51 - 0.38],
        ("Table 6.9", 0.6, 0.92): [1 - 184.58 / 250.61, 1 - 2952.56 / 3976.39, 1 - 15.56 / 28, 0.51 - 0.48],
    }
    for place, expected in by_hand.items():
        assert rows.loc[place, shares].tolist() == pytest.approx(expected)
    unknown = rows[rows[shares].isna().any(axis=1)]
    assert unknown.index.tolist() == [("Table 6.9", 0.3, 0.6), ("Table 6.10", 0.3, 0.9)]
    means = savings().groupby(["model", "language", "threshold"])["energy_saved"].mean()
    two = [1 - 59.45 / 165.49, 1 - 93.72 / 250.61]  # contexts 0.2 and the third: the second is a copy
    assert means[LLAMA, "python", 0.6] == pytest.approx(sum(two) / 2)


def test_raw_results_give_the_printed_cells_of_context_20(results, raw):
    """Every printed cell is the raw value rounded; the base model and the highest thresholds are in the raw results only."""
    printed = results[results["context_fraction"] == 0.2].copy()
    printed["label"] = printed["threshold"].map("{:g}".format).where(printed["threshold"].notna(), "full")
    both = printed.merge(raw, on=["model", "language", "label"], suffixes=("", "_raw"), validate="one_to_one")
    assert len(both) == 24
    for column in CELLS[:-1]:
        assert (both[column] - both[f"{column}_raw"]).abs().max() <= 0.005001, column
    llama = both[both["model"] == LLAMA]
    assert (llama["mean_layers"] - llama["mean_layers_raw"]).abs().max() <= 0.00501
    agent = both[both["label"] != "full"]
    assert (agent["mean_layers"] - agent["mean_index_plus_1"]).abs().max() <= 0.00501


def test_opt_s_printed_mean_layers_count_the_last_layer_as_the_33rd(raw):
    agent = raw[raw["threshold"].notna()]
    assert (agent["mean_layers"] <= agent["model"].map(LAYERS)).all()
    assert (agent["mean_layers"] >= 4).all()
    excess = agent["mean_index_plus_1"] - agent["mean_layers"]
    assert excess[agent["model"] == LLAMA].abs().max() <= 1e-4
    assert excess[agent["model"] == OPT].min() > 0.05
    never_exits = agent[(agent["language"] == "java") & (agent["label"] == "0.94")].set_index("model")
    assert never_exits["mean_layers"].to_dict() == {OPT: 32.0, LLAMA: 28.0}
    assert never_exits["mean_index_plus_1"].to_dict() == {OPT: 33.0, LLAMA: 28.0}


def test_exit_layers_are_the_tokens_behind_the_raw_means(raw):
    exits = load_exit_layers()
    counted = exits.groupby(["model", "language", "threshold"])["layer"].agg(["size", "mean"])
    agent = raw[raw["threshold"].notna()].set_index(["model", "language", "threshold"])
    assert len(counted) == len(agent) == 24
    both = agent.join(counted)
    assert (both["size"] == both["tokens"]).all()
    assert (both["mean"] - both["mean_layers"]).abs().max() < 1e-4
    for model, rows in exits.groupby("model"):
        assert set(rows["layer"]) == {*exit_points(LAYERS[model]), LAYERS[model]}


def test_sample_counts_are_not_1000(raw):
    assert raw.groupby("language")["samples"].unique().map(list).to_dict() == {
        "java": [1001],
        "python": [992],
    }
    tokens = raw["tokens"].dropna()
    assert (tokens <= 15 * raw.loc[tokens.index, "samples"]).all()
    assert (tokens > 14.9 * raw.loc[tokens.index, "samples"]).all()


def test_components_make_up_codebleu(raw):
    parts = raw[["codebleu_ngram", "codebleu_weighted_ngram", "codebleu_syntax", "codebleu_dataflow"]]
    assert (parts.mean(axis=1) - raw["codebleu"]).abs().max() < 1e-5


def test_fixed_exits_end_with_the_full_model_of_context_30_at_a_cached_price(results):
    fixed = load("fixed_exits")
    assert fixed.groupby("model")["layer"].agg(["min", "max"]).T.to_dict("list") == {
        LLAMA: [1, 28],
        OPT: [1, 32],
    }
    last = fixed[(fixed["kind"] == "aggregated") & (fixed["layer"] == fixed["model"].map(LAYERS))]
    full = results[results["threshold"].isna() & (results["context_fraction"] == 0.3)]
    both = last.merge(full, on=["model", "language"], suffixes=("", "_printed"), validate="one_to_one")
    assert len(both) == 4
    for column in ["chrf", "exact_match", "levenshtein"]:
        assert (both[column] - both[f"{column}_printed"]).abs().max() <= 0.00501, column
    assert (both["time_s"] < both["time_s_printed"] / 4).all()
    exits = results[results["threshold"].notna() & (results["context_fraction"] == 0.3)]
    assert exits["time_s"].min() > last["time_s"].max()
    assert exits["energy_wh"].min() > last["energy_j"].max() / 3600


def test_one_fixed_exit_run_is_marked_as_another_s(results):
    fixed = load("fixed_exits")
    marked = fixed[fixed["remark"] != ""]
    assert marked[["model", "language", "kind"]].drop_duplicates().to_numpy().tolist() == [
        [OPT, "java", "base"]
    ]
    python = fixed[(fixed["model"] == OPT) & (fixed["kind"] == "base") & (fixed["language"] == "python")]
    assert abs(marked["levenshtein"].to_numpy() - python["levenshtein"].to_numpy()).max() < 0.01


def test_layer_accuracy_ends_at_full_agreement():
    frame = load("layer_accuracy")
    assert (frame.loc[frame["layer"] == frame["model"].map(LAYERS), "agreement"] == 1).all()
    assert frame.groupby(["model", "language", "kind"]).size().tolist() == [28] * 4 + [32] * 2
    known = frame.dropna(subset="accuracy")
    assert set(known["model"]) == {LLAMA}
    # Section 4.4.1: "at layer 6, LLaMA achieves ~60% accuracy on JavaCorpus and ~70% on PY150"
    layer = known[(known["kind"] == "aggregated") & (known["layer"] == 6)].set_index("language")["accuracy"]
    assert layer.round(1).to_dict() == {"java": 0.6, "python": 0.7}


def test_overhead_shares_are_those_of_figure_6_12():
    """Section 6.4.3, Llama on PY150 at 20%: 3 to 8% of the full model's and 7 to 18% of the early-exit model's."""
    frame = load("overhead")
    llama = frame[(frame["model"] == LLAMA) & (frame["language"] == "python") & (frame["threshold"] <= 0.92)]
    full, exits = llama[["of_full_time", "of_full_energy"]], llama[["of_exit_time", "of_exit_energy"]]
    assert 0.03 <= full.min(axis=None) and full.max(axis=None) <= 0.094
    assert 0.07 <= exits.min(axis=None) and exits.max(axis=None) <= 0.18
    assert abs(frame["agent_energy_wh"] / frame["energy_wh"] - frame["of_exit_energy"]).max() < 1e-4


def test_small_tables():
    assert load("table_4_1").groupby("name")["samples"].sum().to_dict() == {
        "JavaCorpus": 28391,
        "PY150": 150000,
    }
    assert load("table_4_2").set_index("model")["layers"].to_dict() == {"OPT": 32, "Llama 3.2": 28}
    assert load("table_6_1").set_index("metric").loc["ChrF", ["min", "max"]].tolist() == ["0", "100"]
    assert load("table_6_2").set_index("item").loc["GPU", "value"] == "NVIDIA Quadro RTX 8000"
    assert load("table_6_3").set_index("name")["version"].to_dict() == {
        "Python": "3.12",
        "CUDA": "12.7",
        "Nvidia-Driver": "565.57.01",
    }
    packages = load("table_6_4").set_index("name")["version"]
    assert (packages["torch"], packages["stable_baselines3"], len(packages)) == ("2.4.1", "2.3.2", 27)
    fine_tuning = load("table_6_5").set_index("hyperparameter")["value"]
    assert (fine_tuning["learning_rate"], fine_tuning["gradient_accumulation_steps"]) == ("1e-5", "32")
    assert load("table_6_6").set_index("hyperparameter").loc["steps", "value"] == "500000"


@pytest.mark.parametrize("name", names())
def test_every_row_says_where_it_comes_from(name):
    frame = load(name)
    assert isinstance(frame, pd.DataFrame) and len(frame) > 1
    assert frame["origin"].str.match(r"(Table \d\.\d+|Listing \d)$|raw results, ").all()


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="no thesis numbers called 'table_9_9'"):
        load("table_9_9")
