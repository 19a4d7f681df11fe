"""Notebook 08's tables, figure and sentences, from made-up rows."""

import numpy as np
import pandas as pd
import pytest

from eelib.errors import InputError
from eelib.report import chapter3_systems as report
from eelib.report.thesis_numbers import load


def row(system: str, method: str, share: float, **more: float) -> dict:
    numbers = {"decision": 0.01, "share": share, "low": share - 0.1, "high": share + 0.1}
    over = share - 0.4
    numbers |= {"over_stopping": over, "over_stopping_low": over - 0.1, "over_stopping_high": over + 0.1}
    for points, cost in ((1, 0.95), (2, 0.9), (5, 0.8)):
        for end in ("", "_low", "_high"):
            numbers |= {f"cost_{points}{end}": cost, f"lost_{points}{end}": float(points)}
    return {"model": "m", "language": "java", "system": system, "method": method} | numbers | more


@pytest.fixture
def systems() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row("DeeBERT", "entropy", 0.2),
            row("HashEE", "hash by frequency", 0.6, cost_2=0.7),
            row("CALM", "state saturation", -0.3),
            row("this study", "agent", 0.3),
            row("this study", "stopping", 0.4),
        ]
    )


def test_the_thesis_s_tables_are_whole():
    assert len(load("table_2_2")) == 5 and len(load("table_3_1")) == 12
    printed = load("table_3_1").set_index("method")["overhead"]
    assert printed["SkipDecode"] == "None" and printed["MAT"] == "Regression"
    assert printed["Ensembles"] == "Training classifiers & LM heads, votings"


def test_table_3_1_keeps_every_printed_row_and_adds_what_was_measured(systems):
    table = report.table_3_1(load("table_3_1"), systems).set_index("system")
    assert set(table.index) == set(load("table_3_1")["method"])
    assert table.loc["HashEE", "share, m, Java"] == "0.60 [0.50, 0.70]"
    assert table.loc["HashEE", "decision"] == 0.01 and table.loc["HashEE", "overhead"] == "Calculating hash"
    assert pd.isna(table.loc["LayerSkip", "method"])


def test_every_system_that_is_run_is_one_of_table_3_1():
    from eelib.systems.fitted import METHODS

    assert {method.system for method in METHODS.values()} <= set(load("table_3_1")["method"])
    assert set(load("table_3_1")["method"]) - {method.system for method in METHODS.values()} == {"LayerSkip"}


def test_the_answer_is_computed(systems):
    [text] = report.answer(systems)
    assert (
        "the best of 3 methods of other systems is HashEE's hash by frequency with 0.60 [0.50, 0.70]" in text
    )
    assert "At 95% 1 method of others' is ahead of it (HashEE's hash by frequency) and 2 behind it" in text
    assert "2 of them are above the coin, which looks at nothing, and 1 below it" in text
    assert "wins 0.30 [0.20, 0.40] and is number 3 of 5" in text
    assert "2 points: HashEE's hash by frequency, at 0.70 of the cost" in text
    [nothing] = report.answer(systems.assign(share=np.nan))
    assert "No share can be computed" in nothing


def test_the_cheapest_settings_are_told_with_intervals(systems):
    table = report.cheapest(systems)
    assert (
        table["cost_2"].tolist()[1] == "0.70 [0.90, 0.90]" and table["lost_5"].tolist()[0] == "5.0 [5.0, 5.0]"
    )


def test_speculation_is_chosen_on_validation_and_told_on_test():
    shared = {
        "model": "m",
        "language": "java",
        "accepted": 1.5,
        "flops": 1.4,
        "reads_low": 0.5,
        "reads_high": 0.9,
    }
    rows = [
        shared | {"split": split, "layer": layer, "block": 2, "reads": reads}
        for split, layer, reads in (
            ("validation", 4, 0.7),
            ("validation", 6, 0.6),
            ("test", 4, 0.55),
            ("test", 6, 0.65),
        )
    ]
    [text] = report.speculation_sentences(pd.DataFrame(rows))
    assert text.startswith(
        "m, Java: layer 6 drafting 2 tokens at a time has 1.5 accepted a round. It reads 0.65 [0.50, 0.90]"
    )


def test_stopping_is_told_at_the_bar_that_beats_chance_most():
    rows = pd.DataFrame(
        {
            "model": "m",
            "language": "java",
            "bar": [0.5, 0.7],
            "saved": [0.6, 0.4],
            "lost": [0.5, 0.1],
            "lost_by_chance": [0.6, 0.4],
        }
    )
    [text] = report.stopped_sentences(rows)
    assert "than 0.7 spares 40% of the tokens and cuts 10%" in text and "at random would cut 40%" in text


def test_curves_are_drawn_above_the_coin(systems):
    methods = [*systems["method"], "coin", "oracle"]
    frame = pd.DataFrame(
        [
            {"model": "m", "language": "java", "method": name, "cost": cost, "agreement": 0.5 + height / 10}
            for height, name in enumerate(methods)
            for cost in (0.5, 1.0)
        ]
    )
    figure = report.curves(report.with_systems(frame, systems))
    [ax] = figure.axes
    coin = 0.5 + len(systems) / 10
    heights = {round(float(line.get_ydata()[0]), 6) for line in ax.lines}
    assert {round(0.5 - coin, 6), round(0.5 + (len(systems) + 1) / 10 - coin, 6)} <= heights
    assert next(text.get_text() for text in figure.legends[0].get_texts()) == "DeeBERT: entropy"
    with pytest.raises(InputError, match="has nothing to draw"):
        report.curves(frame.assign(system="x").head(0))
