"""Corpora: hashes of token runs, near-duplicates, no leak between splits, and the same choice of files every time."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import source
from hypothesis import given
from hypothesis import strategies as st

from eelib.data import corpus
from eelib.data.corpus import (
    RUN_LENGTH,
    CodeFile,
    codexglue_corpus,
    load_corpus,
    read_corpus,
    read_package,
    save_corpus,
    token_runs,
    without_near_duplicates,
)
from eelib.errors import InputError
from eelib.profile import Data


def names(prefix: str, count: int, start: int = 0) -> list[str]:
    """Tokens that occur once each: `a0 a1 a2 ...`."""
    return [f"{prefix}{i}" for i in range(start, start + count)]


def code_file(identifier: str, code: list[str], split: str = "train") -> CodeFile:
    return CodeFile(identifier, "demo", "python", split, code)


def kept(codes: list[list[str]], forbidden: list[str] | None = None) -> list[int]:
    """Positions of the files that stay."""
    hashes = set(token_runs(forbidden).tolist()) if forbidden else None
    files = [code_file(str(i), code) for i, code in enumerate(codes)]
    return [int(file.id) for file in without_near_duplicates(files, hashes)]


# --- runs ---


def test_token_hash_is_fnv_1a():
    # Test vectors of the hash's authors.
    assert corpus._token_hash("") == 0xCBF29CE484222325
    assert corpus._token_hash("a") == 0xAF63DC4C8601EC8C
    assert corpus._token_hash("foobar") == 0x85944171F73967E8


def test_runs_by_hand():
    a, b, c = (corpus._token_hash(token) for token in "abc")
    power = 0x9E3779B97F4A7C15
    expected = [(first * power + second * power**2) % 2**64 for first, second in ((a, b), (b, c))]
    runs = token_runs(["a", "b", "c"], length=2)
    assert runs.dtype == np.uint64
    assert runs.tolist() == expected
    assert token_runs(["a", "b"], length=3).tolist() == token_runs([], length=1).tolist() == []


@given(st.lists(st.sampled_from("ab("), max_size=30), st.integers(1, 5))
def test_runs_are_equal_where_the_tokens_are(code, length):
    windows = [tuple(code[i : i + length]) for i in range(len(code) - length + 1)]
    runs = token_runs(code, length).tolist()
    assert len(runs) == len(windows)
    for i, one in enumerate(windows):
        for j, other in enumerate(windows):
            assert (runs[i] == runs[j]) == (one == other)


# --- near-duplicates and leaks ---


def test_a_file_whose_runs_were_mostly_seen_is_dropped():
    first = names("a", 100)
    # 99 tokens have 50 runs. 75 shared tokens hold 26 of them, 73 hold 24.
    mostly, partly = first[:75] + names("b", 24), first[:73] + names("c", 26)
    assert kept([first, mostly, partly]) == [0, 2]
    assert kept([first, first]) == [0]
    assert kept([first, first[1:60]]) == [0]
    # Runs of a dropped file do not count as seen; those of all kept files count together.
    assert kept([first, mostly, names("b", 80)]) == [0, 2]
    assert kept([first, names("b", 100), first[:70] + names("b", 70)]) == [0, 1, 2]
    assert kept([first, names("b", 100), first[:90] + names("b", 90)]) == [0, 1]


def test_a_file_shorter_than_a_run_has_no_duplicates():
    short = names("a", RUN_LENGTH - 1)
    assert kept([short, short, [*short, "b"], [*short, "b"]]) == [0, 1, 2]


def test_one_shared_run_with_the_forbidden_ones_is_enough():
    test_code = names("t", 200)
    shares = {length: names("a", 60) + test_code[20 : 20 + length] + names("b", 60) for length in (50, 49)}
    assert kept([shares[50], shares[49]], forbidden=test_code) == [1]


def test_seen_runs_are_shared_between_calls():
    first, seen = names("a", 100), set()
    assert list(without_near_duplicates([code_file("1", first)], seen=seen))
    assert list(
        without_near_duplicates([code_file("2", first), code_file("3", names("b", 60))], seen=seen)
    ) == [code_file("3", names("b", 60))]


# --- packages ---


def test_a_package_is_read_whole(package, tmp_path):
    late = package("late", "train", b=source("l", 20), a=source("m", 30), short=source("s", 16))
    files = list(read_package(late, tmp_path))
    assert [(file.id, file.project, file.split, len(file.code)) for file in files] == [
        ("late-1.0:late-1.0/a.py", "late", "train", 119),
        ("late-1.0:late-1.0/b.py", "late", "train", 79),  # and `short` has 63 tokens
    ]
    assert files[0].code[:5] == ["m0", "=", "<NUM_LIT>", "<EOL>", "m1"]


def test_an_empty_split_is_said():
    with pytest.raises(InputError, match="The test split of the java corpus is empty"):
        codexglue_corpus("java", [("train", str(i), ["a"]) for i in range(30)])


# --- on disk ---


def test_a_corpus_reads_as_it_was_saved(tmp_path):
    files = [
        CodeFile("p-1:é.py", "p", "python", "train", ["x", "=", "'<STR_LIT>'", "<EOL>", "ü"]),
        CodeFile("8", "q", "python", "train", ["y"], "today", "y # why\n"),
        CodeFile("7", "", "java", "test", ["\\", '"', ","]),
    ]
    save_corpus(files, tmp_path / "corpus.parquet")
    assert read_corpus(tmp_path / "corpus.parquet") == files


# --- load_corpus ---


def data(source: str, **fields) -> Data:
    """A profile's data section, null where nothing is given."""
    nothing = {field.name: None for field in dataclasses.fields(Data)}
    return Data(**nothing | {"source": source} | fields)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Line-completion files of 30 training, 8 validation and 4 test records."""
    for split, count in (("train", 30), ("dev", 8), ("test", 4)):
        records = [json.dumps({"id": i, "input": f"<s> {split} {i}", "gt": ";"}) for i in range(count)]
        (tmp_path / f"java_{split}.jsonl").write_text("\n".join(records) + "\n")
    return tmp_path


def ids(
    folder: Path, train: int | None, validation: int | None = None, test: int | None = None
) -> dict[str, list[str]]:
    limits = {"train_files": train, "validation_files": validation, "test_files": test}
    files = load_corpus(data("line-completion", path=str(folder), **limits), "java")
    return {split: [file.id for file in files if file.split == split] for split in corpus.SPLITS}


def test_limits_take_the_same_files_every_time(folder):
    everything = ids(folder, None)
    assert [len(found) for found in everything.values()] == [30, 8, 4]
    assert everything["train"] == [f"train:{i}" for i in range(30)]
    some = ids(folder, 10, 3, 100)
    assert [len(found) for found in some.values()] == [10, 3, 4]
    assert some == ids(folder, 10, 3, 100)
    for split, found in some.items():
        assert found == [identifier for identifier in everything[split] if identifier in found]  # their order
    assert some["train"] != everything["train"][:10]  # not only the first project
    # A larger limit adds files and exchanges none.
    assert set(ids(folder, 5)["train"]) < set(some["train"]) < set(ids(folder, 20)["train"])


def test_the_shipped_corpora_are_one_source():
    files = load_corpus(data("shipped", projects=["httpx", "carbon", "httpie"], train_files=5), "python")
    assert Counter(file.split for file in files)["train"] == 5
    assert {(file.project, file.split, file.era) for file in files} == {
        ("httpie", "train", "2014"),
        ("carbon", "validation", "2013"),
        ("httpx", "test", "today"),
    }
    assert all(file.source for file in files)
    with pytest.raises(InputError, match=r"data\.projects names 'nobody': allowed are @capacitor"):
        load_corpus(data("shipped", projects=["httpx", "nobody"]), "python")


def test_line_completion_needs_its_folder():
    with pytest.raises(InputError, match=r"data\.path is empty"):
        load_corpus(data("line-completion"), "java")
