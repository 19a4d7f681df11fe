"""Corpora: lists of tokenised code files, with near-duplicates and leaks between splits removed.

Three sources give the same thing, a `CodeFile` a source file, through `load_corpus`: the corpora shipped in `data/`
(`build.py` makes them), the hub's CodeXGLUE dataset, and CodeXGLUE's line-completion files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from eelib.data.archives import source_files
from eelib.data.codexglue import VALIDATION_EVERY, hub_records, line_completion_records
from eelib.data.lexing import LANGUAGES, tokenize_source
from eelib.data.packages import SourcePackage, fetch
from eelib.data.shipped import shipped_projects, shipped_records
from eelib.errors import InputError
from eelib.profile import Data

SPLITS = ("train", "validation", "test")
RUN_LENGTH = 50  # tokens; two files that share a run of this length share code, not habits
NEAR_DUPLICATE_SHARE = 0.5  # of a file's runs already seen in files before it
MIN_TOKENS = 64  # shorter files leave no context and no reference at a 20% split


@dataclass(frozen=True)
class CodeFile:
    """One source file of a corpus.

    Attributes
    ----------
    code: its list of tokens (CodeXGLUE style, without `<s>` and `</s>`).
    era: of a shipped Python file the year of its release, which is one of PY150's years, or "today"; else empty.
    source: the text that `code` comes from, with its comments and layout; None where the corpus holds tokens only.
    """

    id: str
    project: str
    language: str
    split: str
    code: list[str]
    era: str = ""
    source: str | None = None


def token_runs(code: list[str], length: int = RUN_LENGTH) -> np.ndarray:
    """Hashes of all runs of `length` consecutive tokens.

    Returns
    -------
    uint64 array of shape `(max(len(code) - length + 1, 0),)`: a polynomial hash of each window.
    """
    if len(code) < length:
        return np.empty(0, dtype=np.uint64)
    tokens = np.array([_token_hash(token) for token in code], dtype=np.uint64)
    powers = np.cumprod(np.full(length, 0x9E3779B97F4A7C15, dtype=np.uint64))
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length)
    return (windows * powers).sum(axis=1, dtype=np.uint64)


@lru_cache(maxsize=1 << 20)
def _token_hash(token: str) -> int:
    """A hash of a token that is the same in every process (FNV-1a, 64 bits)."""
    value = 0xCBF29CE484222325
    for byte in token.encode("utf-8"):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def without_near_duplicates(
    files: Iterable[CodeFile], forbidden: set[int] | None = None, seen: set[int] | None = None
) -> Iterator[CodeFile]:
    """Files in order, less those that mostly repeat earlier ones or share any run with `forbidden`.

    Parameters
    ----------
    forbidden: hashes of runs (`token_runs`) that no kept file may contain, e.g. those of the evaluation splits.
    seen: hashes of the runs of earlier files, to which those of the kept ones are added.
    """
    forbidden = forbidden or set()
    seen = set() if seen is None else seen
    for file in files:
        runs = token_runs(file.code).tolist()
        if not forbidden.isdisjoint(runs):
            continue
        if runs and sum(run in seen for run in runs) / len(runs) >= NEAR_DUPLICATE_SHARE:
            continue
        seen.update(runs)
        yield file


def read_package(package: SourcePackage, cache_dir: Path) -> Iterator[CodeFile]:
    """All files of one package that are long enough, tokenised, in the order of their paths."""
    archive = fetch(package, cache_dir)
    for path, text in source_files(archive, package.language, package.exclude):
        code = tokenize_source(text, package.language)
        if len(code) >= MIN_TOKENS:
            yield CodeFile(
                f"{package.project}-{package.version}:{path}",
                package.project,
                package.language,
                package.split,
                code,
            )


def shipped_corpus(language: str, projects: list[str] | None = None) -> list[CodeFile]:
    """The corpus of a language in `data/`, or what it has of the projects that a profile names.

    A name that no shipped corpus has, and a split without files, give InputError.
    """
    files = [CodeFile(**record) for record in shipped_records(language)]
    if projects is not None:
        known = {project for other in LANGUAGES for project in shipped_projects(other)}
        if unknown := sorted(set(projects) - known):
            raise InputError(f"data.projects names {unknown[0]!r}: allowed are {', '.join(sorted(known))}.")
        files = [file for file in files if file.project in projects]
    _check_splits(files, language)
    return files


def codexglue_corpus(language: str, records: Iterable[tuple[str, str, list[str]]]) -> list[CodeFile]:
    """A corpus from CodeXGLUE records (split, id, code); its splits are its own.

    `dev` is called validation. A corpus without a validation split, as the hub's Python one, gives every 20th training file.
    """
    files = []
    for split, identifier, code in records:
        split = {"dev": "validation"}.get(split, split)
        files.append(CodeFile(f"{split}:{identifier}", "", language, split, code))
    if not any(file.split == "validation" for file in files):
        training = [file for file in files if file.split == "train"]
        held_out = {file.id for file in training[::VALIDATION_EVERY]}
        files = [replace(file, split="validation") if file.id in held_out else file for file in files]
    _check_splits(files, language)
    return sorted(files, key=lambda file: SPLITS.index(file.split))


def _check_splits(files: list[CodeFile], language: str) -> None:
    for split in SPLITS:
        if not any(file.split == split for file in files):
            raise InputError(f"The {split} split of the {language} corpus is empty.")


def load_corpus(config: Data, language: str) -> list[CodeFile]:
    """The corpus that a profile's `data` section asks for, cut to its number of files (the first ones of a fixed shuffle)."""
    if config.source == "shipped":
        files = shipped_corpus(language, config.projects)
    elif config.source == "hub":
        files = codexglue_corpus(language, hub_records(language, config.path))
    else:
        if config.path is None:
            raise InputError("data.path is empty: the line-completion source needs the folder of its files.")
        files = codexglue_corpus(language, line_completion_records(language, Path(config.path)))
    limits = {"train": config.train_files, "validation": config.validation_files, "test": config.test_files}
    kept = []
    for split in SPLITS:
        chosen = [file for file in files if file.split == split]
        if limits[split] is not None and len(chosen) > limits[split]:
            order = np.random.default_rng(0).permutation(len(chosen))[: limits[split]]
            chosen = [chosen[i] for i in sorted(order)]
        kept += chosen
    return kept


def save_corpus(files: list[CodeFile], path: Path) -> None:
    """Write a corpus as Parquet: columns as the fields of `CodeFile`, `code` a list of tokens."""
    pd.DataFrame([vars(file) for file in files]).to_parquet(path, index=False)


def read_corpus(path: Path) -> list[CodeFile]:
    """A corpus written by `save_corpus`."""
    return [CodeFile(**row) for row in pq.read_table(path).to_pylist()]


def keep_corpus(data: Data, language: str, folder: Path) -> None:
    """Write the corpus of a language to `corpus.parquet`."""
    save_corpus(load_corpus(data, language), folder / "corpus.parquet")


def split_of(files: list[CodeFile], split: str) -> list[CodeFile]:
    """The files of one split."""
    return [file for file in files if file.split == split]
