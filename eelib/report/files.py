"""Writing a file whole: figures and tables are never seen half written."""

import os
import re
from pathlib import Path

from eelib.errors import InputError


def exhibit_path(folder: Path | str, name: str, suffix: str) -> Path:
    """`<folder>/<name><suffix>`; the folder is made when it is missing.

    Raises:
        InputError: when the name is not letters, digits, `_`, `-` and `.`, beginning with a letter or digit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f"The exhibit name {name!r} may hold only letters, digits, _, - and ., and begins with a letter or digit."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}{suffix}"


def write_whole(path: Path, data: bytes) -> Path:
    """Write to a temporary file in the same folder, then rename: the path holds the old or the new bytes,
    never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
