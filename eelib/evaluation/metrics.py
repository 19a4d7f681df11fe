"""How close generated code is to the reference: the metrics of Section 6.1.2, each by the field's own package.

Texts are code tokens joined by single spaces, as CodeXGLUE writes them (Python keeps its `<EOL>` tokens). Runs of
whitespace are collapsed before anything is compared, so a stray space of a detokeniser is not an edit.

Choices that move the numbers, the same for every model and setting:

- **ChrF**: sacrebleu, character order 6, no word order, beta 2, on characters without spaces; 0 to 100.
- **BLEU** (Eq. 6.2): sacrebleu on the whitespace tokens (`tokenize="none"`), no smoothing, as a fraction. A corpus
  without a single matching 4-gram therefore scores 0. The published raw results split punctuation off first
  (tokenizer 13a), so their BLEU is not on quite the same scale.
- **ROUGE-L** (Eq. 6.1): mean F1 of rouge_score with its default tokenizer, which lower-cases and keeps letters and
  digits only: a text that is all punctuation scores 0 even against itself.
- **CodeBLEU** (Figure 6.1): codebleu's four components with equal weights. `<EOL>` is passed on as the thesis does; it
  is no Python, which costs the syntax and data-flow components (Section 6.4.2). Inside the package, code whose data
  flow cannot be extracted counts as code without data flow.
- **Empty predictions** match nothing: 0 in every metric of quality, the whole reference as Levenshtein distance.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from codebleu import calc_codebleu
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from eelib.errors import InputError

LANGUAGES = ("java", "python")


class MetricRange(NamedTuple):
    """One row of Table 6.1: a metric, the key it has in `corpus_metrics`, its range, and which end is good."""

    name: str
    key: str
    minimum: float
    maximum: float | None  # None: the number of characters of the longer text
    better: Literal["higher", "lower"]


# Table 6.1, and CodeBLEU, which the table leaves out. Token-level accuracy is `token_accuracy`'s, not a corpus metric.
METRIC_RANGES = (
    MetricRange("CodeBLEU", "codebleu", 0.0, 1.0, "higher"),
    MetricRange("ROUGE-L", "rouge_l", 0.0, 1.0, "higher"),
    MetricRange("BLEU", "bleu", 0.0, 1.0, "higher"),
    MetricRange("ChrF", "chrf", 0.0, 100.0, "higher"),
    MetricRange("Levenshtein distance", "levenshtein", 0.0, None, "lower"),
    MetricRange("Exact match", "exact_match", 0.0, 1.0, "higher"),
    MetricRange("Token-level accuracy", "token_accuracy", 0.0, 1.0, "higher"),
)


class MetricError(RuntimeError):
    """A metric's package failed on some samples; the message names the metric, how many, and the first one's index."""


def corpus_metrics(predictions: Sequence[str], references: Sequence[str], language: str) -> dict[str, float]:
    """Score a corpus of predictions, one reference each.

    Args:
        predictions: generated texts; an empty one scores 0 and is counted.
        references: the texts they should have been, in the same order; none may be empty.
        language: "java" or "python", the grammar of CodeBLEU's syntax and data flow.

    Returns:
        `codebleu`, `codebleu_ngram`, `codebleu_weighted_ngram`, `codebleu_syntax`, `codebleu_dataflow`, `rouge_l`, `bleu`,
        `exact_match` in [0, 1]; `chrf` in [0, 100]; `levenshtein`, the mean distance in characters;
        `empty_predictions` and `samples`, counts. `codebleu_dataflow` is NaN where no reference has any data flow
        (nothing to match); `codebleu` is then the mean of the other three components.

    Raises:
        InputError: different lengths, no sample, an empty reference, something that is no text, or another language.
        MetricError: a package failed; names the sample.
    """
    predictions, references = _checked_texts(predictions, references, language)
    rows = _rows(predictions, references)
    empty = sum(not text for text in predictions)
    return {
        **_codebleu(predictions, references, language),
        "rouge_l": float(rows["rouge_l"].mean()),
        "bleu": _scored("BLEU", _bleu, predictions, references),
        "chrf": _scored("ChrF", _chrf, predictions, references),
        "exact_match": float(rows["exact_match"].mean()),
        "levenshtein": float(rows["levenshtein"].mean()),
        "empty_predictions": empty,
        "samples": len(references),
    }


def per_sample_metrics(predictions: Sequence[str], references: Sequence[str], language: str) -> pd.DataFrame:
    """Score every sample on its own, for intervals over samples (`statistics.bootstrap_interval`).

    Arguments and errors as in `corpus_metrics`. BLEU and CodeBLEU are absent because they are not defined sample by
    sample: on some fifteen tokens a missing 4-gram or data flow decides the whole score. `language` is only checked.

    Returns:
        One row a sample in the order given, float64 columns: `rouge_l` in [0, 1], `chrf` in [0, 100] (of that sentence
        alone: their mean is not the corpus's ChrF), `levenshtein` in characters, `exact_match` 0 or 1.
    """
    predictions, references = _checked_texts(predictions, references, language)
    rows = _rows(predictions, references)
    rows.insert(1, "chrf", _scored("ChrF", _sentence_chrf, predictions, references))
    return rows


def token_accuracy(predicted_ids: Sequence[int], reference_ids: Sequence[int]) -> float:
    """Share of the reference's positions at which the predicted token id is the same, in [0, 1].

    Positions are compared one to one up to the reference's length; a prediction that ends early is wrong at the
    positions it lacks, and what it has beyond the reference is not looked at. Both are one-dimensional.
    """
    predicted, reference = np.asarray(predicted_ids), np.asarray(reference_ids)
    if predicted.ndim != 1 or reference.ndim != 1:
        raise InputError(
            f"token ids must be one-dimensional sequences, got shapes {predicted.shape} and {reference.shape}"
        )
    if not len(reference):
        raise InputError("token accuracy needs at least one reference token, got none")
    shared = min(len(predicted), len(reference))
    return float(np.sum(predicted[:shared] == reference[:shared]) / len(reference))


def _checked_texts(
    predictions: Sequence[str], references: Sequence[str], language: str
) -> tuple[list[str], list[str]]:
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}, expected one of {', '.join(LANGUAGES)}")
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise InputError(f"{name} is a single text ({texts[:40]!r}), expected a sequence of texts")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"{name}[{index}] is a {type(text).__name__}, expected a text")
    if len(predictions) != len(references):
        raise InputError(
            f"{len(predictions)} predictions but {len(references)} references, expected one reference each"
        )
    if not len(references):
        raise InputError("there is no sample to score, expected at least one")
    predictions = [" ".join(text.split()) for text in predictions]
    references = [" ".join(text.split()) for text in references]
    if "" in references:
        raise InputError(f"references[{references.index('')}] is empty, expected at least one token")
    return predictions, references


Score = TypeVar("Score")


def _scored(
    name: str,
    score: Callable[[list[str], list[str]], Score],
    predictions: list[str],
    references: list[str],
) -> Score:
    """`score(predictions, references)`; where that fails, find the samples that fail alone and raise with the first."""
    try:
        return score(predictions, references)
    except Exception as error:
        failing = []
        for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            try:
                score([prediction], [reference])
            except Exception:  # noqa: BLE001 - counted here, raised below
                failing.append(index)
        where = (
            f"{len(failing)} of {len(references)} samples, the first of them sample {failing[0]}"
            if failing
            else (f"the {len(references)} samples together, on none of them alone")
        )
        raise MetricError(f"{name} failed on {where}: {type(error).__name__}: {error}") from error


def _rows(predictions: list[str], references: list[str]) -> pd.DataFrame:
    """The per-sample scores whose mean is the corpus's score."""
    pairs = list(zip(predictions, references, strict=True))
    return pd.DataFrame(
        {
            "rouge_l": _scored("ROUGE-L", _rouge_l, predictions, references),
            "levenshtein": [
                float(Levenshtein.distance(prediction, reference)) for prediction, reference in pairs
            ],
            "exact_match": [float(prediction == reference) for prediction, reference in pairs],
        }
    )


def _rouge_l(predictions: list[str], references: list[str]) -> list[float]:
    scorer = RougeScorer(["rougeL"])
    return [
        float(scorer.score(target=reference, prediction=prediction)["rougeL"].fmeasure)
        for prediction, reference in zip(predictions, references, strict=True)
    ]


def _bleu(predictions: list[str], references: list[str]) -> float:
    # force: the texts are tokenised on purpose, which sacrebleu would otherwise complain about.
    bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    return bleu.corpus_score(predictions, [references]).score / 100


def _chrf(predictions: list[str], references: list[str]) -> float:
    return CHRF(char_order=6, word_order=0, beta=2).corpus_score(predictions, [references]).score


def _sentence_chrf(predictions: list[str], references: list[str]) -> list[float]:
    chrf = CHRF(char_order=6, word_order=0, beta=2)
    pairs = zip(predictions, references, strict=True)
    return [chrf.sentence_score(prediction, [reference]).score for prediction, reference in pairs]


def _keep_unless_no_data_flow(record: logging.LogRecord) -> bool:
    """A logging filter: False, so dropped, for codebleu's notice that no reference has data flow."""
    return "no reference data-flows" not in record.getMessage()


def _codebleu(predictions: list[str], references: list[str], language: str) -> dict[str, float]:
    """CodeBLEU and its components, without the package's two accidents.

    The package's sum takes a data-flow match of 0 for 1, so that a corpus that matches nothing gets 0.25; here 0 is 0.
    And where no reference has data flow it calls the match 0 and logs a notice; here it is NaN, which says the same
    where a reader looks, and stays out of the sum.
    """
    components = ("codebleu_ngram", "codebleu_weighted_ngram", "codebleu_syntax", "codebleu_dataflow")
    if not any(predictions):
        # The parsers give empty code a root node, which could match the root of a reference without statements.
        return dict.fromkeys(("codebleu", *components), 0.0)

    def score(predictions: list[str], references: list[str]) -> dict[str, float]:
        root = logging.getLogger()
        root.addFilter(_keep_unless_no_data_flow)
        try:
            return calc_codebleu(references=references, predictions=predictions, lang=language)
        finally:
            root.removeFilter(_keep_unless_no_data_flow)

    scores = _scored("CodeBLEU", score, predictions, references)
    data_flow = float(scores["dataflow_match_score"])
    if data_flow == 0 and _scored("CodeBLEU", score, references, references)["dataflow_match_score"] == 0:
        data_flow = math.nan  # not even the references match themselves: they have none
    values = [
        float(scores["ngram_match_score"]),
        float(scores["weighted_ngram_match_score"]),
        float(scores["syntax_match_score"]),
        data_flow,
    ]
    return {"codebleu": float(np.nanmean(values)), **dict(zip(components, values, strict=True))}
