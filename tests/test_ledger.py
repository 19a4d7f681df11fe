"""The ledger for readers: picture, table, and answers whose wording follows the verdicts."""

import functools
import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from eelib.evaluation.claims import CHAPTERS, CLAIMS
from eelib.evaluation.claims.claim import POSITIVE, Reading
from eelib.evaluation.claims.results import Results
from eelib.evaluation.claims.verdicts import FAILS, HOLDS, OPEN, UNMEASURED, ledger
from eelib.report.answers import (
    CONCLUSION,
    LEADS,
    QUESTIONS,
    Ledger,
    answer,
    conclusion,
    limitations,
    summary,
)
from eelib.report.ledger import (
    contradicted,
    counts,
    ledger_table,
    picture,
    published,
    short_number,
    with_interval,
)

load = functools.cache(published)
VALUES = {HOLDS: 1.0, FAILS: -1.0, OPEN: 0.1}


def judged(verdicts: dict[str, str]) -> Ledger:
    """A ledger of the thesis's claims with these verdicts, by one number each: 1, -1 or 0.1 with an error of 0.1."""

    def check(verdict: str):
        readings = (
            [Reading("m, Java", VALUES[verdict], 0.1, 30, "31 projects", POSITIVE)]
            if verdict in VALUES
            else []
        )
        return lambda _: readings

    claims = {key: replace(CLAIMS[key], check=check(verdict)) for key, verdict in verdicts.items()}
    rows, readings = ledger(claims, Results({}, [], {}), load)
    assert rows.set_index("key")["verdict"].to_dict() == verdicts
    return Ledger(claims, rows, readings)


def all_of(verdict: str) -> Ledger:
    return judged(dict.fromkeys(CLAIMS, verdict))


def test_numbers_are_short():
    numbers = [0.23456, -0.00001, 264969.0, math.inf, 12.0]
    assert [short_number(n) for n in numbers] == ["0.235", "0", "264,969", "∞", "12"]
    row = {"value": 0.5, "low": 0.25, "high": 0.75, "unit": "3 projects"}
    assert with_interval(row) == "0.5 [0.25, 0.75]"
    assert with_interval(row | {"low": math.nan, "unit": "1 project"}) == "0.5 [no interval: 1 project]"


def test_every_question_and_the_conclusion_have_words_for_every_verdict():
    assert set(LEADS) == set(QUESTIONS)
    for key, wordings in LEADS.values():
        assert key in CLAIMS and set(wordings) == {HOLDS, FAILS, OPEN, UNMEASURED}
    for key, wordings in CONCLUSION.items():
        assert key in CLAIMS and set(wordings) == {HOLDS, FAILS, OPEN}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("verdict", [HOLDS, FAILS, OPEN, UNMEASURED])
def test_an_answer_follows_the_verdicts(question, verdict):
    text = answer(all_of(verdict), question)
    assert LEADS[question][1][verdict] in text
    verbs = {HOLDS: "hold", FAILS: "do not hold", OPEN: "cannot be told", UNMEASURED: "are not measured"}
    heads = {
        HOLDS: "These hold:",
        FAILS: "These do not hold:",
        OPEN: "cannot be told at this size:",
        UNMEASURED: "not measured here:",
    }
    assert [name for name, head in heads.items() if head in text] == [verdict]
    bearing = [claim for claim in CLAIMS.values() if question in claim.questions]
    assert f"Of {len(bearing)} claims that bear on it, {len(bearing)} {verbs[verdict]}." in text
    assert all(claim.short in text for claim in bearing)


def test_every_number_of_ours_in_an_answer_is_the_ledgers():
    text = answer(all_of(HOLDS), 2)
    assert re.findall(r"m, Java: (\S+ \[.*?\])", text) == ["1 [0.796, 1.2]"] * text.count("m, Java")


def test_the_conclusion_says_what_was_judged_and_nothing_else():
    text = conclusion(judged({key: FAILS for key in CONCLUSION}))
    assert (
        text.count("\n- ") + 1 == len(CONCLUSION)
        and "does not stand where the full model has its cache" in text
    )
    assert "-1 [-1.2, -0.796]" in text
    assert conclusion(all_of(UNMEASURED)) == ""


def test_of_a_claim_that_fails_it_is_said_by_how_many_numbers():
    key = "over-classifier"
    readings = [
        Reading(f"m{n}", value, 0.1, 30, "31 projects", POSITIVE) for n, value in enumerate((1.0, -1.0, -2.0))
    ]
    claims = {key: replace(CLAIMS[key], check=lambda _: readings)}
    rows, frame = ledger(claims, Results({}, [], {}), load)
    assert "2 of 3 numbers lie outside their regions" in Ledger(claims, rows, frame).told(key)


def test_a_summary_counts():
    half = judged({key: HOLDS if place % 2 else OPEN for place, key in enumerate(CLAIMS)})
    assert counts(half.rows) == {HOLDS: 25, FAILS: 0, OPEN: 25, UNMEASURED: 0}
    assert summary(half).startswith(
        "Of 50 claims of the thesis, 25 hold here, 0 do not, 25 cannot be told at this size, and 0 are not"
    )
    assert "Not holding" not in summary(half)


def test_limitations_name_what_is_missing_and_what_intervals_stand_on():
    some = judged(dict.fromkeys(CLAIMS, OPEN) | {"long-java-files": UNMEASURED})
    text = limitations(some, [("m", "java"), ("m", "python")], 24)
    assert (
        "Judged on m, not" in text and "24 completions" in text and "intervals stand on 31 projects." in text
    )
    assert "1 would need: CodeXGLUE's JavaCorpus" in text


def test_a_table_says_what_could_have_been_told():
    undecided, unmeasured = all_of(OPEN), all_of(UNMEASURED)
    table = ledger_table(CLAIMS, undecided.rows, undecided.readings)
    assert (table["could have been told"].astype(float) > 0).all()
    assert table["is"].str.contains(r"m, Java: 0.1 \[-0.104, 0.304\] \(31 projects\)").all()
    table = ledger_table(CLAIMS, unmeasured.rows, unmeasured.readings)
    assert table["could have been told"].str.startswith("needs ").all()


def test_the_authors_numbers_that_contradict_are_listed():
    text = contradicted(CLAIMS, all_of(OPEN).rows)
    assert "0.33 (llama-3.2-3b, Python, T = 0.94)" in text and "nan" not in text


def test_a_picture_has_a_line_a_claim_and_a_dot_a_number():
    own = all_of(HOLDS)
    (ax,) = picture(CHAPTERS, own.rows, own.readings).axes
    texts = {text.get_text() for text in ax.texts}
    assert {claim.short for claim in CLAIMS.values()} | set(CHAPTERS) <= texts
    dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert len(dots) == len(CLAIMS) and all((line.get_xdata() == 4.0).all() for line in dots)
    nothing = all_of(UNMEASURED)
    picture(CHAPTERS, nothing.rows, nothing.readings)


def test_an_unmeasured_ledger_has_empty_readings():
    assert isinstance(all_of(UNMEASURED).readings, pd.DataFrame) and all_of(UNMEASURED).readings.empty
