"""CodeXGLUE's corpora: the hub's token-completion dataset, and its line-completion files."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetsError

from eelib.errors import InputError

HUB_NAME = "google/code_x_glue_cc_code_completion_token"
HUB_REVISION = "54bdbd7ee7e40c7f3c68ba5a5a20ab0b2d38d5b2"
SPLITS = ("train", "validation", "dev", "test")
VALIDATION_EVERY = 20  # where a corpus has no validation split, every 20th training file becomes it
_MARKERS = frozenset({"<s>", "</s>"})


def hub_records(language: str, path: str | None = None) -> Iterator[tuple[str, str, list[str]]]:
    """(split, id, code) of the hub's dataset at its pinned revision, or of a local copy in the same layout.

    Parameters
    ----------
    path: folder of a local copy (`<language>/<split>-*.parquet` and the dataset's README); None asks the hub.
    """
    if path is not None and not Path(path).is_dir():  # `datasets` would look for that name on the hub
        raise InputError(
            f"data.path is {path!r}: allowed is the folder of a local copy, or null for the hub."
        )
    try:
        if path is None:
            splits = load_dataset(HUB_NAME, language, revision=HUB_REVISION)
        else:  # `datasets` does not notice when the files of a folder have changed, and would give the old ones
            splits = load_dataset(path, language, download_mode="force_redownload")
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise InputError(
            f"The dataset {path or HUB_NAME!r} ({language}) cannot be loaded ({reason.rstrip('.')}): "
            "allowed are the hub with a network or its cache, or data.path with a local copy."
        ) from error
    for split, records in splits.items():
        if missing := {"id", "code"} - set(records.column_names):
            raise InputError(
                f"The dataset {path or HUB_NAME!r} lacks the field {min(missing)!r} in split {split}."
            )
        for record in records:
            yield split, str(record["id"]), without_markers(record["code"])


def line_completion_records(language: str, folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(split, id, code) of CodeXGLUE line-completion files, `<language>_<split>.jsonl` or `.jsonl.gz`.

    A file's code is its `input` and the line `gt` that follows. A line that is not JSON or lacks a field gives
    InputError naming the file and line; so does a file that cannot be read or whose name is no split's.
    """
    files = sorted(folder.glob(f"{language}_*.jsonl*"))
    if not files:
        raise InputError(f"The folder {folder} has no {language}_<split>.jsonl or .jsonl.gz file.")
    read: dict[str, Path] = {}
    for file in files:
        split = file.name.removeprefix(f"{language}_").split(".")[0]
        if split not in SPLITS:
            raise InputError(f"{file.name} names the split {split!r}: allowed are {', '.join(SPLITS)}.")
        if split in read:
            raise InputError(f"{read[split].name} and {file.name} are the same split: keep one of them.")
        read[split] = file
        for identifier, code in line_completion_file(file):
            yield split, identifier, code


def line_completion_file(file: Path) -> Iterator[tuple[str, list[str]]]:
    """(id, code) of one line-completion file, gzipped or not; what is wrong with it gives InputError."""
    with _open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file.name}, line {number}: not JSON ({error.msg}).") from error
            for field in ("id", "input", "gt"):
                if not isinstance(record, dict) or field not in record:
                    raise InputError(f"{file.name}, line {number}: the field {field!r} is missing.")
            yield str(record["id"]), without_markers(f"{record['input']} {record['gt']}".split())


@contextmanager
def _open_text(file: Path) -> Iterator[TextIO]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as text:
            yield text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file.name} cannot be read as text in UTF-8: {error}.") from error


def without_markers(code: list[str]) -> list[str]:
    """Tokens without `<s>` and `</s>`, which a model's own tokenizer adds as it needs them."""
    return [token for token in code if token not in _MARKERS]
