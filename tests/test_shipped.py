"""The shipped corpora: the encoding, the checks of the files, and what the issue on them asks of their numbers."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eelib import paths
from eelib.data import shipped
from eelib.data.corpus import CodeFile, shipped_corpus, token_runs
from eelib.data.lexing import tokenize_source
from eelib.data.shipped import (
    join_tokens,
    shipped_hash,
    shipped_records,
    write_hashes,
    write_shipped,
)
from eelib.errors import InputError

LANGUAGES = ("java", "python")


def row(number: int, split: str = "train", code: tuple[str, ...] = ("x", "=", "ü", "<EOL>")) -> dict:
    """A row as `write_shipped` takes it."""
    file = CodeFile(
        f"p-1:{number}.py", f"p{number % 3}", "python", split, list(code), "2013", "x = 'ü'\n# é\r\n"
    )
    return vars(file)


# --- the encoding ---


@given(st.lists(st.text(st.characters(exclude_characters=" "), min_size=1), min_size=1))
def test_joined_tokens_come_back(code):
    assert join_tokens(code).split(" ") == code


@pytest.mark.parametrize("code", [[], ["a b"], ["a", " "]])
def test_tokens_that_would_not_come_back_are_refused(code):
    with pytest.raises(ValueError, match="blank"):
        join_tokens(code)


@pytest.mark.parametrize(
    "text",
    [
        "x = ' a  b ', 1\n",
        's = """a\n b"""\n',
        "print `a b`\n",
        "x = u'\u2028\u00a0'\n",
        "if x:\n\ty = '\f'\n",
    ],
)
def test_tokens_of_odd_sources_come_back(text):
    code = tokenize_source(text, "python")
    assert join_tokens(code).split(" ") == code


def test_rows_come_back_and_the_same_rows_are_the_same_bytes(tmp_path):
    rows = [row(i, split) for i, split in enumerate(["train", "validation", "test"])]
    for name in ("python", "java"):
        write_shipped(rows, tmp_path / f"{name}.parquet")
    write_hashes(tmp_path)
    assert list(shipped_records("python", tmp_path)) == rows
    assert shipped_hash("python", tmp_path) == shipped_hash("java", tmp_path)


# --- bad input ---


def test_a_file_that_changed_or_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*files\.csv, which lists the shipped corpora"):
        list(shipped_records("java", tmp_path))
    write_shipped([row(1)], tmp_path / "python.parquet")
    write_hashes(tmp_path)
    with pytest.raises(InputError, match=r"does not list java\.parquet: allowed are python\.parquet"):
        list(shipped_records("java", tmp_path))
    listed = shipped_hash("python", tmp_path)
    write_shipped([row(2)], tmp_path / "python.parquet")
    with pytest.raises(
        InputError, match=f"python.parquet has the sha256 .* allowed is the shipped file, {listed}"
    ):
        list(shipped_records("python", tmp_path))
    (tmp_path / "python.parquet").unlink()
    with pytest.raises(InputError, match=r"There is no file .*python\.parquet"):
        list(shipped_records("python", tmp_path))


def test_projects_narrow_a_corpus(monkeypatch):
    rows = [row(i, split) for i, split in enumerate(["train", "validation", "test"] * 2)]
    monkeypatch.setattr("eelib.data.corpus.shipped_records", lambda language: iter(rows))
    monkeypatch.setattr("eelib.data.corpus.shipped_projects", lambda language: ["p0", "p1", "p2"])
    assert [file.id for file in shipped_corpus("python")] == [f"p-1:{i}.py" for i in range(6)]
    with pytest.raises(InputError, match="names 'q': allowed are p0, p1, p2"):
        shipped_corpus("python", ["p0", "q"])
    with pytest.raises(InputError, match="The test split of the python corpus is empty"):
        shipped_corpus("python", ["p0", "p1"])


# --- what is shipped ---


@pytest.fixture(scope="module", params=LANGUAGES)
def files(request) -> list[CodeFile]:
    return shipped_corpus(request.param)


@pytest.mark.parametrize(
    ("split", "projects", "most"), [("test", 16, 400), ("validation", 6, 170), ("train", 42, 3500)]
)
def test_projects_and_their_shares(files, split, projects, most):
    chosen = [file for file in files if file.split == split]
    counts, tokens = Counter(file.project for file in chosen), Counter()
    for file in chosen:
        tokens[file.project] += len(file.code)
    assert len(counts) >= projects and len(chosen) <= most
    for sizes in (counts, tokens):
        assert max(sizes.values()) <= 0.1 * sizes.total()
    if split == "train":
        assert tokens.total() >= 2_400_000


def test_a_project_is_in_one_split(files):
    splits = {(file.project, file.split) for file in files}
    assert len({project for project, _ in splits}) == len(splits)
    assert len({file.id for file in files}) == len(files)


def test_eras(files):
    if files[0].language == "java":
        assert {file.era for file in files} == {""}
        return
    assert {file.era for file in files} == {"2010", "2012", "2013", "2014", "today"}
    for split in ("train", "validation", "test"):
        today = [file.era == "today" for file in files if file.split == split]
        assert 0.4 <= sum(today) / len(today) <= 0.6


def test_tokens_are_those_of_the_source(files):
    for file in files[:: len(files) // 15]:
        assert tokenize_source(file.source, file.language) == file.code


def test_sizes_and_notice():
    assert sum((paths.DATA / f"{language}.parquet").stat().st_size for language in LANGUAGES) <= 14_500_000
    notice = (paths.DATA / "NOTICE.md").read_text(encoding="utf-8")
    listed = [
        line.split("|") for line in notice.splitlines() if line.startswith("| ") and "| project" not in line
    ]
    licences = {path.stem for path in (paths.DATA / "licences").glob("*.txt")}
    for cells in listed:
        assert set(cells[3].replace(" OR ", " AND ").strip().split(" AND ")) <= licences, cells
    projects = {cells[1].strip() for cells in listed}
    for language in LANGUAGES:
        assert set(shipped.shipped_projects(language)) <= projects


@pytest.mark.slow
def test_no_run_is_shared_between_splits(files):
    seen: dict[int, str] = {}
    for file in files:
        for run in set(token_runs(file.code).tolist()):
            assert seen.setdefault(run, file.split) == file.split, file.id
