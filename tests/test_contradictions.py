"""The thesis against itself: every entry whole, every number that is said computed, every computed one a contradiction."""

import re
import string

import pandas as pd
import pytest

from eelib.evaluation.metrics import per_sample_metrics
from eelib.models.exits import exit_points, loss_weights
from eelib.report import contradictions as source
from eelib.report.formula_checks import CHECKS
from eelib.report.thesis_numbers import load, load_exit_layers, savings

OPT, LLAMA = "opt-2.7b", "llama-3.2-3b"


@pytest.fixture(scope="module")
def found():
    return source.contradictions()


def raw(model, language, label):
    rows = load("raw_ctx20")
    return rows[(rows[["model", "language", "label"]] == [model, language, label]).all(axis=1)].iloc[0]


def test_entries_are_whole(found):
    assert len(found) >= 40 and found["id"].is_unique
    assert set(found["kind"]) == set(source.KINDS)
    texts = found[["id", *source.SHOWN]]
    assert texts.map(lambda text: isinstance(text, str) and text == text.strip() != "").all(axis=None)
    assert {name for names in found["touches"] for name in names} <= set(source.conclusions())
    assert found["where"].str.contains(r"Section|Table|Eq\.|Abstract|Raw").all()


def test_checks_and_entries_belong_together(found):
    computed = found["found"].notna()
    assert set(found.loc[computed, "id"]) == set(CHECKS)
    assert found.loc[computed, ["low", "high"]].notna().any(axis=1).all()
    assert (found.loc[computed, "unit"] != "").all()
    assert found.loc[~computed, ["low", "high"]].isna().all(axis=None)


def test_a_number_that_is_found_is_said():
    for entry in source._file()["contradictions"]:
        fields = [
            name
            for text in (entry["says"], entry["there"])
            for _, name, _, _ in string.Formatter().parse(text)
        ]
        assert ("found" in fields) == ("allowed" in entry), entry["id"]


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_what_is_found_is_not_what_the_thesis_says(found, name):
    row = found[found["id"] == name]
    assert not source.holds(row).item(), row[["low", "found", "high"]].to_dict("records")


def test_a_number_that_the_sentence_allows_is_no_contradiction():
    frame = pd.DataFrame({"found": [1.0, 2.0, 2.1, 5.0], "low": [1, 1, 1, None], "high": [2, 2, 2, 4.0]})
    assert source.holds(frame).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("savings-llama-java", 100 * (1 - 49.17 / 118.78)),
        ("savings-java", 100 * (1 - 71.04 / 187.46)),
        ("savings-at-most", 100 * (1 - 59.45 / 165.49)),
        ("opt-27", 100 * (1 - 108.55 / 151.18)),
        ("deviation-of-002", 0.44 - 0.40),
        ("three-layers", 16.12 - 13.84),
        ("larger-contexts", 45.50 - 42.82),
        ("overhead-power", (81.426 / 2229.01) / (117.08 / 1896.69)),
        ("trajectory", 8),  # 4 6 8 10 12 14 18 22 | 26
        ("weights-sum", 0.7 * 4.68559 / 3.68559),
        ("expected-reward", 1 - 300 / 28 - 6 / 28),
        ("base-references", 13066 / 11466),
        ("optimal-exits-of-steps", 505500 / 500000),
    ],
)
def test_checks_by_hand(name, by_hand):
    assert CHECKS[name]() == pytest.approx(by_hand, rel=1e-4)


def test_the_weights_that_figure_46_shows_are_those_of_the_sum_from_zero():
    first = loss_weights(28)[4]
    assert first == pytest.approx(0.149, abs=5e-4)
    assert 0.7 / sum(0.9**power for power in range(1, 6)) == pytest.approx(0.190, abs=5e-4)


def test_pictures_give_the_shares_of_section_63():
    """59% (Llama) and 50% (OPT) of the optimal exits are in the first five layers; 50 is 50.4 here."""
    rows = load("pictures")
    rows = rows[rows["quantity"] == "occurrences of the optimal exit"]
    first = rows[rows["at"] <= 5].groupby("model")["reading"].sum() / rows.groupby("model")["reading"].sum()
    assert first.round(2).to_dict() == {LLAMA: 0.59, OPT: 0.50}
    totals = rows.groupby("model")["reading"].sum() / 500_000
    assert totals.between(1.0, 1.02).all()


def test_numbers_that_stand_beside_the_one_found(found):
    """Numbers of the entries' words that are the kept ones', each by its own computation."""
    words = found.set_index("id")[["says", "there", "how"]].agg(" ".join, axis=1)
    tables = load("results").query("threshold == 0.92").set_index("origin")
    pictures = load("pictures").set_index(["quantity", "model", "language", "at"])["reading"].sort_index()
    overhead = load("overhead").set_index(["model", "language", "context_fraction", "threshold"]).sort_index()
    opt, llama = raw(OPT, "java", "full"), raw(LLAMA, "java", "full")
    fixed = load("fixed_exits").query("kind == 'aggregated'").groupby(["model", "language"]).last()
    full = (
        load("results").query("threshold.isna() and context_fraction == 0.3").set_index(["model", "language"])
    )
    exits = load_exit_layers().query("language == 'java' and threshold == 0.6")
    last_decisions = {}
    for model, layers in ((LLAMA, 28), (OPT, 32)):
        points = exit_points(layers)
        decisions = {layer: min(place, len(points)) for place, layer in enumerate([*points, layers], 1)}
        last_decisions[model] = exits.loc[exits["model"] == model, "layer"].map(decisions).mean()
    said = {
        "opt-27": [
            f"{1 - 1759.19 / 2443.74:.1%} of the time",
            f"it is {1 - 108.552 / raw(OPT, 'java', 'base')['energy_wh']:.1%}",
        ],
        "loss-of-012": [f"BLEU falls by {llama['bleu'] - raw(LLAMA, 'java', '0.6')['bleu']:.3f}"],
        "deviation-of-002": [f"falls by {0.447 - 0.413:.3f}"],
        "rouge-of-050": [f"{fixed.loc[(LLAMA, 'python'), 'rouge_l']:.4f}"],
        "rouge-of-044": [f"{raw(LLAMA, 'python', '0.92')['rouge_l']:.4f}"],
        "no-accuracy-losses": [
            f"dataflow match {opt['codebleu_dataflow'] - raw(OPT, 'java', '0.92')['codebleu_dataflow']:.3f}"
        ],
        "cached-codebleu": [
            f"{raw(LLAMA, 'java', '0.9')['codebleu'] - pictures['codebleu with KV propagation', LLAMA, 'java', 0.9]:.3f} at T = 0.9"
        ],
        "optimal-exits-of-steps": [f"{last_decisions[LLAMA]:.1f} (Llama) to {last_decisions[OPT]:.1f} (OPT)"],
        "loss-towards-zero": [f"Llama's at {pictures['training loss, last', LLAMA, 'python'].item():.2f}"],
        "loss-starts-higher": [
            f"{pictures['training loss, first', LLAMA, 'python'].item():.1f} and {pictures['training loss, first', LLAMA, 'java'].item():.1f}"
        ],
        "cached-fixed-exits": [f"up to {(full['energy_wh'] * 3600 / fixed['energy_j']).max():.1f} times"],
        "overhead-5-to-20": [
            f"{overhead['of_full_time'].min():.1%} (Python, T = 0.6) to {overhead['of_full_time'].max():.1%} (Java"
        ],
        "overhead-3-to-8": [
            f"{overhead.loc[(LLAMA, 'python', 0.2, 0.92), 'of_full_energy']:.1%} of the energy"
        ],
        "overhead-without-exits": [
            f"{raw(LLAMA, 'java', '0.9')['energy_wh'] / raw(LLAMA, 'java', '0.94')['energy_wh']:.2f} to 1"
        ],
        "overhead-difference": [
            f"takes {overhead.loc[(LLAMA, 'java', 0.2, 0.94), 'agent_time_s']:.0f} s",
            f"differ by {raw(LLAMA, 'java', '0.94')['time_s'] - llama['time_s']:.0f} s",
        ],
        "python-extremes": [
            f"differ by {tables.loc['Table 6.9', 'mean_layers'].max() - tables.loc['Table 6.9', 'mean_layers'].min():.1f}"
        ],
    }
    for name, texts in said.items():
        for text in texts:
            assert text in words[name], (name, text)


def test_every_overhead_run_on_java_from_08_on_was_slower_than_the_full_model():
    rows = load("overhead").query("language == 'java' and threshold >= 0.8 and context_fraction == 0.2")
    assert len(rows) == 5 and (rows["time_s"] > raw(LLAMA, "java", "full")["time_s"]).all()


def test_the_printed_numbers_of_sentences_are_in_them(found):
    """A percentage or decimal that bounds what is allowed stands in the sentence, up to the rounding."""
    for row in found[found["unit"].str.startswith("% of energy saved")].itertuples():
        printed = [float(number) for number in re.findall(r"\d+", row.says.split("context")[0])]
        assert any(abs(number - row.high) <= 5 for number in printed), row.id


def test_counts_and_touched_conclusions_by_hand():
    frame = pd.DataFrame(
        {
            "kind": ["arithmetic", "arithmetic", "formula"],
            "found": [1.0, None, 2.0],
            "touches": [["savings"], ["savings", "quality"], []],
            "where": ["A", "B", "C"],
        }
    )
    assert source.counts(frame).to_numpy().tolist() == [["arithmetic", 2, 1], ["formula", 1, 1]]
    over = source.touched(frame)
    assert over["contradictions"].tolist()[:3] == [2, 1, 0] and over["which"].tolist()[:2] == ["A; B", "B"]


def test_the_answer_says_what_the_numbers_say(found):
    sentences = source.answer(found)
    assert 2 <= len(sentences) <= 5
    saved = savings()["energy_saved"].dropna()
    assert saved.min() > 0 and saved.max() > 0.5  # "stand in direction and not in size"
    assert "23% to 64%" in sentences[1] and "0 of 18" in sentences[1]
    assert "falls in 3 of 4 settings" in sentences[2]
    untouched = source.touched(found).query("contradictions == 0")["conclusion"]
    assert len(untouched) and all(sentence in sentences[-1] for sentence in untouched)


def test_the_figure_shows_every_percentage(found):
    (ax,) = source.printed_and_found(found).axes
    shares = found[found["unit"].str.startswith("%")]
    dots = sorted(line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o")
    assert dots == pytest.approx(sorted(shares["found"]))


def test_rouge_l_does_not_see_listing_7_s_underscore():
    texts = load("listings").query("listing == 7").set_index("part")["text"]
    scores = [
        per_sample_metrics([completion], [texts["truth"].replace("_", "")], "python")["rouge_l"].item()
        for completion in (texts["completion"], texts["completion"].replace("_", ""))
    ]
    with_them = per_sample_metrics([texts["completion"]], [texts["truth"]], "python").iloc[0]
    assert with_them["exact_match"] == 0 and scores[0] == scores[1]
