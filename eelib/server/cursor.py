"""Where strings and comments of a source lie, by one linear scan: which end of it is read, and whether the cursor is within one."""

import re
from collections.abc import Iterator

_OPENING = {
    "python": re.compile(r"#|\"{3}|'{3}|\"|'"),
    "java": re.compile(r"//|/\*|\"{3}|\"|'"),
}
# What closes each; a line break closes what goes no further than its line, closed or not.
_CLOSING = {
    "#": re.compile(r"[^\n]*(?=\n)"),
    "//": re.compile(r"[^\n]*(?=\n)"),
    "/*": re.compile(r".*?\*/", re.DOTALL),
    '"""': re.compile(r'(?:\\.|[^\\])*?"{3}', re.DOTALL),
    "'''": re.compile(r"(?:\\.|[^\\])*?'{3}", re.DOTALL),
    '"': re.compile(r'(?:\\.|[^\\"\n])*+(?:"|(?=\n))', re.DOTALL),
    "'": re.compile(r"(?:\\.|[^\\'\n])*+(?:'|(?=\n))", re.DOTALL),
}


def hidden(source: str, language: str) -> Iterator[tuple[int, int]]:
    """Strings and comments as (start, end); the end of one that is still open is one beyond the source's."""
    place = 0
    while opening := _OPENING[language].search(source, place):
        kind = opening.group()
        closing = _CLOSING[kind].match(source, opening.end())
        place = len(source) + 1 if closing is None else closing.end()
        yield opening.start(), place


def within(source: str, language: str) -> bool:
    """Whether a source ends within a string or a comment."""
    return any(end > len(source) for _, end in hidden(source, language))


def read_from(source: str, language: str, most: int) -> int:
    """Where the end of a source begins that is read: `most` characters or fewer.

    The place moves in steps of a quarter of `most`, so that the prompts of a source that grows begin alike, and on to the
    next line outside strings and comments, if there is one.
    """
    over = len(source) - most
    if over <= 0:
        return 0
    step = max(1, most // 4)
    start = place = -(-over // step) * step
    for opening, end in [*hidden(source, language), (len(source), len(source))]:
        line = source.find("\n", place, opening) + 1
        if line:
            return line if source[line:].strip() else start
        place = max(place, end)
    return start
