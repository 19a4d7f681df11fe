"""What is kept about an exhibit beside its files: the stamp they carry and the hash of each, as they were written."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from eelib import paths
from eelib.report.files import write_whole

FOLDER = "exhibits"  # below `results/<variant>/`


def keep_exhibit(results: Path, name: str, stamp: str, files: Iterable[Path]) -> None:
    """Write `<results>/exhibits/<name>.json`: `stamp`, and `files`, the SHA-256 of each by its path."""
    (results / FOLDER).mkdir(parents=True, exist_ok=True)
    hashes = {paths.shown(path): file_hash(path) for path in files}
    text = json.dumps({"stamp": stamp, "files": hashes}, indent=1, ensure_ascii=False) + "\n"
    write_whole(results / FOLDER / f"{name}.json", text.encode())


def inputs_name(keys: Iterable[str]) -> str:
    """What a stamp calls some inputs, by their keys."""
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:8]


def inputs_stamp(variant: str, keys: Iterable[str], commits: Iterable[str]) -> str:
    """The stamp of an exhibit that is made from stages: their keys, and the commits that made them."""
    return f"{variant} profile · commit {', '.join(sorted(set(commits)))} · inputs {inputs_name(keys)}"


def others_stamp(published_by: str) -> str:
    """The stamp of an exhibit of others' published numbers."""
    return f"published numbers of {published_by}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_of(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file in a folder by its path below it, but for some."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: file_hash(path) for name, path in names.items() if name not in leave_out}
