"""Code tokens -> source text with lines and indentation, token by token.

PY150 keeps where a Python line ends (`<EOL>`) but not its indentation, and JavaCorpus keeps neither. Rebuilt is what the tokens
before say: a line that ends in a colon opens a block; `return`, `raise`, `break`, `continue` and `pass` end one; `else`
and its kin stand under their partner; `def` and `class` return to the enclosing class's body or to the margin. Where a block
ends in any other way, nothing in the tokens says so, and the text stays in the block. In Java, braces and semicolons say
it all but where long lines were broken.
"""

import io
import tokenize
from dataclasses import dataclass

from eelib.data.lexing import EOL, tokenize_source
from eelib.server.literals import literal
from eelib.server.spacing import Spacing, is_word

UNIT = "    "
_ENDS_BLOCK = frozenset({"return", "raise", "break", "continue", "pass"})
_PARTNERS = {
    "else": {"if", "elif", "for", "while", "try", "except"},
    "elif": {"if", "elif"},
    "except": {"try", "except"},
    "finally": {"try", "except", "else"},
}
_JOINS_BRACE = {"else", "catch", "finally", "while"}


@dataclass
class Block:
    """A block that is open: the indentation of the line that opened it, that line's first token, and (Java) how
    many parentheses were open there."""

    indent: str
    keyword: str
    parentheses: int = 0


class Layout:
    """What both languages share: spaces, and a line break that is only written when the next token is known.

    Attributes
    ----------
    indent: whitespace at the start of the current line.
    breaks: whether the next token starts a line.
    typed: whitespace that already stands there, when it does (the user's own; a non-empty one is kept as it is).
    """

    language: str

    def __init__(self) -> None:
        self.spacing = Spacing(self.language)
        self.indent, self.unit = "", UNIT
        self.breaks = False
        self.typed: str | None = ""  # a text begins at the start of a line
        self.blocks: list[Block] = []
        self.comment = False  # whether what was read ends within a comment
        self.whole = (
            False  # whether all that may be open here was read: a bracket that closes nothing is then surplus
        )
        self.over = False  # whether such a bracket has ended the text

    def continue_from(self, source: str, code: list[str]) -> None:
        """Go on after `source`, which may end anywhere; `code` are its tokens."""
        self.unit = _unit_of(source)
        self._read(source, code)
        last = source.rpartition("\n")[2]
        self.typed = last if not last.strip() else None
        continued = source.rstrip().endswith("\\")
        starts = self.typed is not None and self.spacing.before is not None and not continued
        self.breaks = self.breaks or self.comment or starts
        if not self.breaks and (continued or last[-1:].isspace()):
            self.spacing.blank = True

    def goes_on(self, token: str) -> bool:
        """Whether a token without a blank before it lengthens the last one: a name that the source broke off within."""
        before = self.spacing.before
        return not self.breaks and before is not None and is_word(before[-1]) and is_word(token)

    def lengthen(self, token: str) -> str:
        """Text of a token that goes on with the last one."""
        self.spacing.before += token
        return token

    def feed(self, token: str) -> str:
        """Text of one more code token, with the whitespace before it; nothing after a bracket that closes nothing."""
        if self.whole and token in (")", "]", "}") and not self.spacing.brackets:
            self.over = True
        return "" if self.over else self._feed(token)

    def _feed(self, token: str) -> str:
        raise NotImplementedError

    def _read(self, source: str, code: list[str]) -> None:
        raise NotImplementedError

    def _indentation(self, indent: str) -> str:
        """What is to be written to start a line at `indent`."""
        typed, self.typed = self.typed, None
        if typed:
            indent, written = typed, ""
        else:
            written = indent if typed == "" else "\n" + indent
        self.indent, self.breaks = indent, False
        self.spacing.start_line()
        return written


class PythonLayout(Layout):
    language = "python"

    def __init__(self) -> None:
        super().__init__()
        self.first = ""  # token of the current line
        self.colon = False  # whether the line so far ends in one, outside brackets

    def _feed(self, token: str) -> str:
        if EOL in token:
            return self._end_line()
        text = literal(token)
        if not text:
            return ""
        before = ""
        if self.breaks:
            if self.spacing.brackets:
                before = self._continuation(text)
            else:
                before, self.first = self._indentation(self._new_indent(text)), text
        elif not self.first:
            self.first, self.typed = text, None
        space = " " if self.spacing.feed(text) else ""
        self.colon = text == ":" and not self.spacing.brackets
        return before + space + text

    def _continuation(self, token: str) -> str:
        """The start of a line within brackets: one level deeper, a bracket that closes under its statement."""
        indent = self.indent
        before = self._indentation(indent if token in (")", "]", "}") else indent + self.unit)
        self.indent = indent
        return before

    def _end_line(self) -> str:
        # Its indentation is written with the next token, which decides it.
        self.breaks, self.typed = True, ""
        return "\n"

    def _new_indent(self, token: str) -> str:
        """Indentation of a line that starts with `token`; closes the blocks that it ends."""
        if self.colon:
            self.blocks.append(Block(self.indent, self.first))
            return self.indent + self.unit
        if token in _PARTNERS:
            for depth in reversed(range(len(self.blocks))):
                if self.blocks[depth].keyword in _PARTNERS[token]:
                    return self._close(depth)
        if token in ("def", "class", "@", "async") and self.first != "@" and self.blocks:
            methods = token != "class"
            for depth in reversed(range(len(self.blocks))):
                if methods and self.blocks[depth].keyword == "class":
                    indent = self.blocks[depth].indent + self.unit
                    del self.blocks[depth + 1 :]
                    return indent
            return self._close(0)
        if self.first in _ENDS_BLOCK and self.blocks:
            return self._close(len(self.blocks) - 1)
        return self.indent

    def _close(self, depth: int) -> str:
        indent = self.blocks[depth].indent
        del self.blocks[depth:]
        return indent

    def _read(self, source: str, code: list[str]) -> None:
        """Open blocks by Python's own tokenizer, which goes as far as the text is Python; spaces by the code tokens."""
        start, lines = 0, source.splitlines(keepends=True)
        while start is not None:
            start = self._read_blocks(lines, start)
        for token in code:
            if token == EOL:
                self.spacing.start_line()
            else:
                self.spacing.feed(literal(token) or token)
        self.colon = self.spacing.before == ":" and not self.spacing.brackets

    def _read_blocks(self, lines: list[str], start: int) -> int | None:
        """Read from a line on; the line to start again from where the indentation fits no block, or None at the end."""
        self.blocks, line = [], None
        row = start
        reader = io.StringIO("".join(lines[start:])).readline
        try:
            for token in tokenize.generate_tokens(reader):
                row = start + token.start[0] - 1
                if token.type == tokenize.INDENT:
                    self.blocks.append(Block(self.indent, self.first))
                elif token.type == tokenize.DEDENT and row < len(lines) and self.blocks:
                    self.blocks.pop()
                if token.string:
                    self.comment = token.type == tokenize.COMMENT
                if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
                    line = None
                elif line is None and token.string.strip() and token.type != tokenize.COMMENT:
                    line = row
                    self.first = token.string
                    self.indent = token.line[: len(token.line) - len(token.line.lstrip())]
        except IndentationError as error:
            row = start + (error.lineno or 1) - 1
            return row if start < row < len(lines) else None
        except (tokenize.TokenError, SyntaxError):
            pass  # an open bracket or string at the end, or no Python 3
        return None


class JavaLayout(Layout):
    language = "java"

    def __init__(self) -> None:
        super().__init__()
        self.parentheses = 0  # open ones since the innermost block
        self.initialisers = 0  # open braces that hold values
        self.last = ""  # the token before

    def _feed(self, token: str) -> str:
        text = literal(token)
        if not text or EOL in token:
            return ""
        closes = text == "}" and not self.initialisers
        before = ""
        if closes and self.blocks:
            block = self.blocks.pop()
            self.parentheses = block.parentheses
            before = self._indentation(block.indent)
        elif self.breaks and not self._joins(text):
            before = self._indentation(self.indent)
        self.breaks, self.typed = False, None
        space = " " if self.spacing.feed(text) else ""
        self._follow(text, closes)
        return before + space + text

    def _joins(self, token: str) -> bool:
        """Whether a token stays on the line of the brace or semicolon before it."""
        if self.typed is not None or self.spacing.before != "}":
            return False
        return token in _JOINS_BRACE or token in ").,;"

    def _follow(self, text: str, closes: bool) -> None:
        if text == "{":
            if self._opens_initialiser():
                self.initialisers += 1
            else:
                self.blocks.append(Block(self.indent, "{", self.parentheses))
                self.indent, self.parentheses, self.breaks = self.indent + self.unit, 0, True
        elif text == "}":
            if not closes:
                self.initialisers -= 1
            self.breaks = closes
        elif text in "()":
            self.parentheses = max(0, self.parentheses + (1 if text == "(" else -1))
        elif text == ";" and not self.parentheses:
            self.breaks = True
        self.last = text

    def _opens_initialiser(self) -> bool:
        return self.last in ("=", "]", ",") or bool(self.initialisers)

    def _read(self, source: str, code: list[str]) -> None:
        """Braces line by line, so that each block has the indentation of the line that opened it."""
        for line in source.splitlines():
            code = line.strip()
            self.comment = code.startswith(("//", "/*", "*")) and not code.endswith("*/")
            if not code or code.startswith(("//", "/*", "*")):
                continue
            self.indent = line[: len(line) - len(line.lstrip())]
            for token in tokenize_source(code, "java"):
                self.feed(token)


def _unit_of(source: str) -> str:
    """One level of indentation: the first that the source has, four blanks where it has none."""
    for line in source.splitlines():
        blank = line[: len(line) - len(line.lstrip(" \t"))]
        if blank and line.strip() and not line.lstrip().startswith("*"):
            return "\t" if blank[0] == "\t" else blank[:8]
    return UNIT


def layout(language: str) -> Layout:
    """The layout of a language, at the start of an empty file."""
    return {"python": PythonLayout, "java": JavaLayout}[language]()
