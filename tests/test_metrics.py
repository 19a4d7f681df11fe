"""Metrics on code small enough to score by hand, and the properties every corpus has."""

import math

import numpy as np
import pytest
from codebleu import calc_codebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from eelib.errors import InputError
from eelib.evaluation import metrics
from eelib.evaluation.metrics import METRIC_RANGES, corpus_metrics, per_sample_metrics, token_accuracy

JAVA_REFERENCES = [
    "int total = 0 ; for ( int i = 0 ; i < n ; i ++ ) { total += i ; }",
    "return total ; } public void close ( ) { this . open = false ; }",
    "if ( name == null ) { return ; } String upper = name . toUpperCase ( ) ;",
]
JAVA_PREDICTIONS = [
    "int sum = 0 ; for ( int i = 0 ; i < n ; i ++ ) { total += n ; }",
    "return total ; } public void open ( ) { this . open = false ; }",
    "if ( name == null ) { return null ; } String lower = name ;",
]
PYTHON_REFERENCES = [
    "x = 1 <EOL> y = x + 2 <EOL> print ( y ) <EOL>",
    "for i in range ( n ) : <EOL> total += i <EOL>",
]

QUALITY = [
    *("codebleu", "codebleu_ngram", "codebleu_weighted_ngram", "codebleu_syntax", "codebleu_dataflow"),
    *("rouge_l", "bleu", "chrf", "exact_match"),
]
TOKENS = ["int", "x", "y", "=", "+", "1", "2", "(", ")", ";", "{", "}", "return", "foo", "<EOL>"]
CODE = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=15)


def brute_force_levenshtein(a: str, b: str) -> int:
    """Eq. 6.4 as it is written."""
    distance = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            edits = (distance[i - 1][j], distance[i][j - 1], distance[i - 1][j - 1])
            distance[i][j] = distance[i - 1][j - 1] if a[i - 1] == b[j - 1] else 1 + min(edits)
    return distance[-1][-1]


def test_identical_texts_reach_the_good_end_of_every_range():
    for references, language in ((JAVA_REFERENCES, "java"), (PYTHON_REFERENCES, "python")):
        scores = corpus_metrics(references, references, language)
        for row in METRIC_RANGES:
            if row.key != "token_accuracy":
                best = row.maximum if row.better == "higher" else row.minimum
                assert scores[row.key] == pytest.approx(best), row.name
        assert scores["empty_predictions"] == 0 and scores["samples"] == len(references)


def test_by_hand():
    # "bc" for "b" is one token of five, and one character more.
    scores = corpus_metrics(["a = b + c"], ["a = bc + c"], "java")
    assert scores["levenshtein"] == 1 and scores["exact_match"] == 0
    # ROUGE-L sees letters and digits only: a b c and a bc c share a subsequence of 2 of 3.
    assert scores["rouge_l"] == pytest.approx(2 / 3)
    assert scores["bleu"] == 0  # unsmoothed, and no 3-gram matches
    scores = corpus_metrics(["a = b + c ;"], ["a = b + c"], "java")
    # 5 of 6 tokens, 4 of 5 bigrams, 3 of 4 trigrams, 2 of 3 4-grams; longer than the reference, so no brevity penalty.
    assert scores["bleu"] == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    scores = corpus_metrics(["a = b +"], ["a = b + c"], "java")
    assert scores["bleu"] == pytest.approx(
        math.exp(1 - 5 / 4)
    )  # every n-gram matches; the brevity penalty is left


def test_chrf_by_hand():
    # Without spaces "ab" and "abc": precision 1 and 1, recall 2/3 and 1/2 at orders 1 and 2, no order of both above.
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    expected = 100 * (1 + 2**2) * precision * recall / (2**2 * precision + recall)
    assert corpus_metrics(["a b"], ["abc"], "java")["chrf"] == pytest.approx(expected)


def test_bleu_and_chrf_are_of_the_corpus_and_not_means_of_samples():
    predictions, references = ["a b c d", "x y"], ["a b c d", "p q r s t u v w"]
    # 4 of 6 tokens, 3 of 4 bigrams, all trigrams and 4-grams; 6 tokens for 12.
    expected = (4 / 6 * 3 / 4) ** 0.25 * math.exp(1 - 12 / 6)
    assert corpus_metrics(predictions, references, "java")["bleu"] == pytest.approx(expected)
    rows = per_sample_metrics(predictions, references, "java")
    assert rows["chrf"].mean() == pytest.approx(50)
    assert corpus_metrics(predictions, references, "java")["chrf"] < 49


@pytest.mark.parametrize(
    ("predictions", "language"), [(JAVA_PREDICTIONS, "java"), (PYTHON_REFERENCES[::-1], "python")]
)
def test_codebleu_is_the_package_s_where_data_flow_matches(predictions, language):
    references = JAVA_REFERENCES if language == "java" else PYTHON_REFERENCES
    scores, package = (
        corpus_metrics(predictions, references, language),
        calc_codebleu(references, predictions, language),
    )
    assert 0 < package["dataflow_match_score"] < 1
    assert scores["codebleu"] == pytest.approx(package["codebleu"])
    assert [scores[f"codebleu_{name}"] for name in ("ngram", "weighted_ngram", "syntax", "dataflow")] == [
        package[f"{name}_match_score"] for name in ("ngram", "weighted_ngram", "syntax", "dataflow")
    ]


def test_a_data_flow_that_nothing_matches_is_zero_where_the_package_counts_it_as_one():
    prediction, reference = "; ; ;", "int x = y ; int z = x ;"
    package = calc_codebleu([reference], [prediction], "java")
    assert package["dataflow_match_score"] == 0 and package["codebleu"] > 0.25
    scores = corpus_metrics([prediction], [reference], "java")
    assert scores["codebleu_dataflow"] == 0
    assert scores["codebleu"] == pytest.approx(package["codebleu"] - 0.25)


def test_references_without_data_flow_leave_the_component_out(caplog):
    scores = corpus_metrics(["import java . util ;"], ["import java . io ;"], "java")
    assert math.isnan(scores["codebleu_dataflow"])
    components = [scores[f"codebleu_{name}"] for name in ("ngram", "weighted_ngram", "syntax")]
    assert scores["codebleu"] == pytest.approx(np.mean(components))
    assert "data-flows" not in caplog.text  # the package's notice; the NaN says it


@pytest.mark.parametrize("language", ["java", "python"])
@pytest.mark.parametrize("empty", ["", "  \n"])
def test_empty_predictions_score_nothing(language, empty):
    references = JAVA_REFERENCES if language == "java" else PYTHON_REFERENCES
    scores = corpus_metrics([empty] * len(references), references, language)
    assert {key: scores[key] for key in QUALITY} == dict.fromkeys(QUALITY, 0)
    assert scores["levenshtein"] == np.mean([len(reference) for reference in references])
    assert scores["empty_predictions"] == scores["samples"] == len(references)


def test_an_empty_prediction_lowers_every_quality_metric():
    whole = corpus_metrics(JAVA_PREDICTIONS[:2] + JAVA_REFERENCES[2:], JAVA_REFERENCES, "java")
    holed = corpus_metrics(JAVA_PREDICTIONS[:2] + [""], JAVA_REFERENCES, "java")
    assert all(holed[key] < whole[key] for key in QUALITY)
    assert holed["levenshtein"] > whole["levenshtein"]
    assert holed["empty_predictions"] == 1


@given(st.lists(st.tuples(CODE, CODE), min_size=1, max_size=4), st.sampled_from(metrics.LANGUAGES))
@settings(max_examples=40, deadline=None)
def test_any_corpus_stays_within_the_ranges(pairs, language):
    predictions, references = ([" ".join(tokens) for tokens in side] for side in zip(*pairs, strict=True))
    scores = corpus_metrics(predictions, references, language)
    longest = max(len(text) for text in predictions + references)
    for row in METRIC_RANGES:
        if row.key != "token_accuracy":
            assert row.minimum <= scores[row.key] <= (longest if row.maximum is None else row.maximum) + 1e-9
    rows = per_sample_metrics(predictions, references, language)
    for key in ("rouge_l", "exact_match", "levenshtein"):
        assert rows[key].mean() == pytest.approx(scores[key])
    expected = [brute_force_levenshtein(*pair) for pair in zip(predictions, references, strict=True)]
    assert rows["levenshtein"].tolist() == expected


def test_spaces_of_a_detokeniser_are_no_edits():
    spaced = [f"  {text.replace(' = ', '  = ')}\n" for text in JAVA_PREDICTIONS]
    expected = corpus_metrics(JAVA_PREDICTIONS, JAVA_REFERENCES, "java")
    assert corpus_metrics(spaced, JAVA_REFERENCES, "java") == expected


def test_rows_are_in_order_and_float64():
    rows = per_sample_metrics([JAVA_REFERENCES[0], "", "} ;"], JAVA_REFERENCES[:2] + ["} ;"], "java")
    assert rows["exact_match"].tolist() == [1, 0, 1]
    assert rows["levenshtein"].tolist() == [0, len(JAVA_REFERENCES[1]), 0]
    assert rows["rouge_l"].tolist() == [1, 0, 0]  # the last is punctuation only, which ROUGE does not see
    assert rows["chrf"].tolist() == pytest.approx([100, 0, 100])
    assert list(rows.columns) == ["rouge_l", "chrf", "levenshtein", "exact_match"]
    assert set(rows.dtypes) == {np.dtype("float64")}


@pytest.mark.parametrize(
    ("predicted", "reference", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 9, 4], [1, 2, 3, 4], 0.75),
        ([1, 2], [1, 2, 3, 4], 0.5),  # the missing two are wrong
        ([1, 2, 3, 4, 5], [1, 9], 0.5),  # what follows the reference is not looked at
        ([2, 1], [1, 2], 0.0),  # positions, not membership
        ([], [7], 0.0),
    ],
)
def test_token_accuracy_by_hand(predicted, reference, expected):
    assert token_accuracy(predicted, reference) == expected
    assert token_accuracy(np.array(predicted, dtype=int), tuple(reference)) == expected


@pytest.mark.parametrize("score", [corpus_metrics, per_sample_metrics])
@pytest.mark.parametrize(
    ("predictions", "references", "language", "message"),
    [
        (["a"], ["a", "b"], "java", "1 predictions but 2 references"),
        (["a"], ["a"], "rust", "language is 'rust', expected one of java, python"),
        ([], [], "java", "no sample to score"),
        (["a", "b"], ["a", " "], "java", r"references\[1\] is empty"),
        (["a", None], ["a", "b"], "java", r"predictions\[1\] is a NoneType"),
        ("ab", ["a", "b"], "java", "predictions is a single text"),
    ],
)
def test_bad_input_is_named(score, predictions, references, language, message):
    with pytest.raises(InputError, match=message):
        score(predictions, references, language)


def test_bad_token_ids_are_named():
    with pytest.raises(InputError, match="at least one reference token"):
        token_accuracy([1], [])
    with pytest.raises(InputError, match=r"shapes \(1, 2\) and \(2,\)"):
        token_accuracy([[1, 2]], [1, 2])


def test_a_failing_package_names_the_first_sample_and_counts_them(monkeypatch):
    def fail_on_marked(references, predictions, lang):
        if any("broken" in prediction for prediction in predictions):
            raise TypeError("no such grammar")
        return calc_codebleu(references, predictions, lang)

    monkeypatch.setattr(metrics, "calc_codebleu", fail_on_marked)
    with pytest.raises(
        metrics.MetricError,
        match="CodeBLEU failed on 2 of 4 samples, the first of them sample 1: TypeError: no such grammar",
    ):
        corpus_metrics(["a", "broken", "b", "broken"], ["a"] * 4, "java")


def test_a_package_that_fails_only_on_the_whole_corpus_says_so(monkeypatch):
    def fail_on_two(references, predictions, lang):
        if len(predictions) > 1:
            raise ZeroDivisionError
        return calc_codebleu(references, predictions, lang)

    monkeypatch.setattr(metrics, "calc_codebleu", fail_on_two)
    with pytest.raises(
        metrics.MetricError, match="the 2 samples together, on none of them alone: ZeroDivision"
    ):
        corpus_metrics(["a", "b"], ["a", "b"], "java")
