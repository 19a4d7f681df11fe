"""Which files of a project a corpus takes: code that somebody wrote there, in a drawn order, up to a cap.

A project's files are drawn rather than taken from its start, so that a cap leaves all of its folders a chance; the draw
is a hash of the file's name, the same on every machine.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from eelib.data.corpus import MIN_TOKENS, CodeFile

LONGEST_FILE = 20_000  # tokens
LONGEST_LINE = 400  # characters; longer ones are data, or minified
MOST_LITERALS = 0.3  # of a file's tokens; tables of messages, characters and test vectors have more
# Folders in which projects keep copies of others', and what tools wrote.
_COPIED = frozenset(
    [
        "vendor",
        "vendored",
        "vendors",
        "_vendor",
        "third_party",
        "third-party",
        "thirdparty",
        "extern",
        "external",
        "externals",
        "ext-libs",
        "_bundled",
        "bundled",
        "deps",
        "node_modules",
        "generated",
        "gen",
        "generated-sources",
        "repackaged",
        "shaded",
    ]
)
_BOILERPLATE = frozenset(
    [
        "setup.py",
        "conf.py",
        "versioneer.py",
        "_version.py",
        "version.py",
        "ez_setup.py",
        "distribute_setup.py",
        "bootstrap.py",
        "six.py",
        "package-info.java",
        "module-info.java",
        "R.java",
        "BuildConfig.java",
    ]
)
_HEAD = 1500  # characters, in which tools say that they wrote a file
_GENERATED = re.compile(
    r"generated (by|from) |(?<!TODO )auto-?generated|automatically generated|@generated|do not (edit|modify)",
    re.IGNORECASE,
)


def is_written_here(path: str, text: str) -> bool:
    """Whether a file is code that somebody wrote for its project: no copy, no boilerplate, nothing generated, no data."""
    parts = PurePosixPath(path).parts
    if parts[-1] in _BOILERPLATE or not _COPIED.isdisjoint(part.lower() for part in parts[1:-1]):
        return False
    if _GENERATED.search(text[:_HEAD]) or "\ufffd" in text:
        return False
    return max(map(len, text.splitlines()), default=0) <= LONGEST_LINE


def has_fitting_code(code: list[str]) -> bool:
    """Whether tokens are neither too few nor too many, and not mostly literals."""
    literals = sum("_LIT" in token for token in code)
    return MIN_TOKENS <= len(code) <= LONGEST_FILE and literals <= MOST_LITERALS * len(code)


def drawn_order(paths: Iterable[str]) -> list[str]:
    """Paths in a random order that depends on nothing but the paths themselves."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())


def within_cap(files: Iterable[CodeFile], most_files: int, most_tokens: int) -> list[CodeFile]:
    """The first files that fit under both caps; one that is too large for what is left is passed over."""
    kept, left = [], most_tokens
    for file in files:
        if len(file.code) <= left:
            kept.append(file)
            left -= len(file.code)
        if len(kept) == most_files or left < MIN_TOKENS:
            break
    return kept
