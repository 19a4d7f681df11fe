"""The corpora that are shipped: `data/<language>.parquet`, whose hashes `data/files.csv` holds.

A row is a source file: `id` (project-version:path), `project`, `language`, `split`, `era`, `code` (tokens joined by blanks,
which no token has) and `source` (the file's text). Both columns of text are single pages, so that compression finds what
files have in common.
"""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from eelib import paths
from eelib.errors import InputError

COLUMNS = ("id", "project", "language", "split", "era", "code", "source")


def join_tokens(code: list[str]) -> str:
    """Tokens as one text, from which `str.split(" ")` gives them back; ValueError for tokens that would not come back."""
    text = " ".join(code)
    if text.split(" ") != code or not code:
        raise ValueError(f"no token, or one with a blank in it, among {code[:20]}")
    return text


def write_shipped(rows: list[dict], path: Path) -> None:
    """Write rows with the fields `COLUMNS`, `code` a list of tokens; the same rows give the same bytes."""
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    columns["code"] = [join_tokens(code) for code in columns["code"]]
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=22,
        use_dictionary=["project", "language", "split", "era"],
        write_statistics=False,
        data_page_size=1 << 30,
        write_batch_size=1 << 20,
        row_group_size=1 << 20,
    )


def shipped_records(language: str, folder: Path = paths.DATA) -> Iterator[dict]:
    """Rows of a shipped corpus, `code` a list of tokens. A missing or changed file gives InputError."""
    frame = pd.read_parquet(_verified(folder / f"{language}.parquet"))
    for row in frame.to_dict("records"):
        yield row | {"code": row["code"].split(" ")}


def shipped_projects(language: str, folder: Path = paths.DATA) -> list[str]:
    """Names of the projects of a shipped corpus."""
    return sorted(
        set(pd.read_parquet(_verified(folder / f"{language}.parquet"), columns=["project"])["project"])
    )


def shipped_hash(language: str, folder: Path = paths.DATA) -> str:
    """sha256 of a language's file as `files.csv` has it."""
    return _listed(folder / f"{language}.parquet")["sha256"]


def write_hashes(folder: Path = paths.DATA) -> None:
    """Write `files.csv`: name, sha256 and size in bytes of every Parquet file in the folder."""
    with open(folder / "files.csv", "w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["file", "sha256", "bytes"])
        for path in sorted(folder.glob("*.parquet")):
            writer.writerow([path.name, _sha256(path), path.stat().st_size])


def _verified(path: Path) -> Path:
    listed = _listed(path)
    if not path.is_file():
        raise InputError(f"There is no file {paths.shown(path)}: restore it, it comes with the repository.")
    if (found := _sha256(path)) != listed["sha256"]:
        raise InputError(
            f"{paths.shown(path)} has the sha256 {found} ({path.stat().st_size} bytes): allowed is the shipped file, "
            f"{listed['sha256']} ({listed['bytes']} bytes)."
        )
    return path


def _listed(path: Path) -> dict[str, str]:
    table = path.parent / "files.csv"
    if not table.is_file():
        raise InputError(
            f"There is no file {paths.shown(table)}, which lists the shipped corpora: restore it, it comes with the repository."
        )
    with open(table, encoding="utf-8", newline="") as lines:
        rows = {row["file"]: row for row in csv.DictReader(lines)}
    if path.name not in rows:
        raise InputError(
            f"{paths.shown(table)} does not list {path.name}: allowed are {', '.join(sorted(rows))}."
        )
    return rows[path.name]


def _sha256(path: Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
