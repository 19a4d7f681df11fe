"""Source text -> code tokens, as CodeXGLUE's token-completion corpora write them.

Comments are dropped, Python lines end in `<EOL>`, and literals are normalised: a string becomes `"<STR_LIT>"`, or
`"<STR_LIT:utf-8>"` when its text is one of the corpus's most frequent ones (CodeXGLUE's published lists, kept in
`literals/`), a number `<NUM_LIT>` or `<NUM_LIT:0>`, a Java character `'<CHAR_LIT>'`. Tokens are the leaves of a
tree-sitter parse, which survives Python 2 and files that do not parse; the grammars are the ones CodeBLEU needs anyway.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import tree_sitter_java
import tree_sitter_python
from tree_sitter import Language, Node, Parser

from eelib.data.marks import EOL

LANGUAGES = ("java", "python")

_GRAMMARS = {"java": tree_sitter_java, "python": tree_sitter_python}
_DROPPED = frozenset({"comment", "line_comment", "block_comment", "line_continuation"})
_LITERALS = frozenset({"string", "string_literal", "character_literal"})
_NUMBERS = frozenset(
    {
        "integer",
        "float",
        "decimal_integer_literal",
        "hex_integer_literal",
        "octal_integer_literal",
        "binary_integer_literal",
        "decimal_floating_point_literal",
        "hex_floating_point_literal",
    }
)
_STRING = re.compile(
    r"""^(?P<prefix>[A-Za-z]*)(?P<quote>\"{3}|'{3}|"|')(?P<text>.*?)(?P=quote)?$""", re.DOTALL
)
# What the grammars take as one token and CodeXGLUE's lexers as several.
_PIECES = {"java": {"@interface": "@ interface", ">>": "> >", ">>>": "> > >"}, "python": {}}


@cache
def _parser(language: str) -> Parser:
    return Parser(Language(_GRAMMARS[language].language()))


@cache
def _frequent_literals(language: str) -> dict[str, frozenset[str]]:
    """CodeXGLUE's most frequent literals of a corpus by kind (`str`, `num`, `char`); they keep their text."""
    lists = json.loads((Path(__file__).parent / "literals" / f"{language}.json").read_text(encoding="utf-8"))
    return {kind: frozenset(texts) for kind, texts in lists.items()}


def _leaves(root: Node) -> Iterator[Node]:
    """Leaves of the syntax tree from left to right; a string, a character and the dots of a relative import count as one."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.type in _LITERALS or node.type == "import_prefix" or node.child_count == 0:
            yield node
        else:
            stack.extend(reversed(node.children))


def _normalise_string(token: str, frequent: dict[str, frozenset[str]]) -> str:
    parts = _STRING.match(token)
    if parts is None:  # an unclosed literal in a file that does not parse
        return '"<STR_LIT>"'
    # Spaces and commas would break the corpus's space-separated lines; CodeXGLUE writes them as code points.
    text = parts["text"].replace(" ", "U+0020").replace(",", "U+002C")
    kind = "char" if parts["quote"] == "'" and len(parts["text"]) == 1 and frequent["char"] else "str"
    name = {"char": "CHAR_LIT", "str": "STR_LIT"}[kind]
    value = f"<{name}:{text}>" if text in frequent[kind] else f"<{name}>"
    return f"{parts['prefix']}{parts['quote']}{value}{parts['quote']}"


def tokenize_source(text: str, language: str) -> list[str]:
    """Code tokens of one source file.

    Parameters
    ----------
    text: the file's content.
    language: `"java"` or `"python"`.

    Returns
    -------
    Tokens without whitespace inside; for Python with `<EOL>` between physical lines that hold code (a line continued
    by a backslash, and the lines inside a string, do not end one).
    """
    source = text.encode("utf-8", errors="replace")
    frequent = _frequent_literals(language)
    tokens: list[str] = []
    previous: Node | None = None
    for node in _leaves(_parser(language).parse(source).root_node):
        if node.type in _DROPPED or node.start_byte == node.end_byte:
            continue
        token = source[node.start_byte : node.end_byte].decode("utf-8", errors="replace")
        if language == "python" and previous is not None and _starts_line(source, previous, node):
            tokens.append(EOL)
        previous = node
        if node.type in _LITERALS and token.startswith(
            "`"
        ):  # Python 2's repr, which the grammar takes for a string
            tokens += ["`", *tokenize_source(token.strip("`"), language), "`"]
        elif node.type in _LITERALS:
            tokens.append(_normalise_string(token, frequent))
        elif node.type in _NUMBERS:
            tokens.append(f"<NUM_LIT:{token}>" if token in frequent["num"] else "<NUM_LIT>")
        elif node.type == "import_prefix":
            tokens += re.findall(r"\.\.\.|\.", token)
        else:
            tokens += _PIECES[language].get(token, token).split()
    return tokens


def _starts_line(source: bytes, previous: Node, node: Node) -> bool:
    """Whether `node` begins a new line after `previous`; a backslash before the line break joins the two."""
    if node.start_point[0] == previous.end_point[0]:
        return False
    return not source[previous.end_byte : node.start_byte].lstrip(b" \t").startswith(b"\\")
