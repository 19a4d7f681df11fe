"""Where a space stands between two code tokens, by the habit of the language and from what stands before alone.

A completion is a fragment, which no formatter of whole files takes, and its text must not change when it goes on: so every
gap is decided when the token after it comes. Whatever would read as another token when joined keeps its space.
"""

import keyword

_JAVA = """abstract assert break case catch class const continue default do else enum extends final finally for goto if
implements import instanceof interface native new package private protected public return static strictfp switch
synchronized throw throws transient try volatile while"""
KEYWORDS = {
    "java": frozenset(_JAVA.split()),
    "python": frozenset(keyword.kwlist) - {"None", "True", "False"},
}
_UNARY = {"java": {"+", "-", "!", "~", "++", "--"}, "python": {"+", "-", "~", "*", "**"}}
# Two characters that begin a longer operator or a comment.
_JAVA_JOINED = "++ -- && || == != <= >= << >> += -= *= /= %= &= |= ^= -> :: // /* .."
_PYTHON_JOINED = "** // << >> <= >= == != <> += -= *= /= %= &= |= ^= @= -> := .."
_JOINED = {"java": frozenset(_JAVA_JOINED.split()), "python": frozenset(_PYTHON_JOINED.split())}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Spacing:
    """Decides gap after gap; `brackets` holds what is open, "(" as "call" where it follows an operand."""

    def __init__(self, language: str):
        self.language = language
        self.before: str | None = None  # the token before
        self.member = False  # whether it follows a dot: a keyword there is a name
        self.binds = False  # whether it takes no space after it
        self.blank = False  # whether a blank stands before the next token already
        self.brackets: list[str] = []
        self._angles = 0  # open type arguments of Java
        self._types = False  # whether the token before closed type arguments, which makes it an operand
        self._questions = 0  # conditional operators of Java that wait for their colon

    def feed(self, token: str) -> bool:
        """Whether a space stands before this token, which then becomes the one before."""
        operand = self._ends_operand()
        space = self._space(token, operand)
        if self.before is not None and not space:
            space = self._would_join(token)
        if self.blank:
            space = self.blank = False
        self.binds = self._binds(token, operand)
        self._types = self.language == "java" and token == ">" and self._angles > 0
        self._open_or_close(token, operand)
        self.member = self.before == "."
        self.before = token
        return space

    def start_line(self) -> None:
        """A line break stands before the next token."""
        self.before, self.binds, self.blank, self.member = None, False, False, False

    def _ends_operand(self) -> bool:
        before = self.before
        if before is None:
            return False
        if self._types:
            return True
        return before in ")]}" or (is_word(before) and (self.member or before not in KEYWORDS[self.language]))

    def _space(self, token: str, operand: bool) -> bool:
        if self.before is None or self.binds or token in (",", ";", ")", "]"):
            return False
        if token == "." or (token == "::" and self.language == "java"):
            return not operand
        if token in "([":
            return not operand
        if token in ("++", "--") and self.language == "java":
            return not operand
        return self._python_space(token) if self.language == "python" else self._java_space(token)

    def _python_space(self, token: str) -> bool:
        if token == "=":
            return self.brackets[-1:] != ["call"]
        return token not in (":", "}")

    def _java_space(self, token: str) -> bool:
        if token == "<":
            return not _is_type(self.before)
        if token == ">":
            return not self._angles
        if token == ":":
            return bool(self._questions) or self.brackets[-1:] == ["call"] or self.brackets[-1:] == ["("]
        return True

    def _binds(self, token: str, operand: bool) -> bool:
        if token in ("(", "[", ".") or (token in _UNARY[self.language] and not operand):
            return True
        if self.language == "java":
            return token in ("@", "::") or (
                token == "<" and self.before is not None and _is_type(self.before)
            )
        if token == "=":
            return self.brackets[-1:] == ["call"]
        if token == ":":
            return self.brackets[-1:] == ["subscript"]
        return token == "{" or (token == "@" and self.before is None)

    def _open_or_close(self, token: str, operand: bool) -> None:
        if token in _CLOSING:
            kinds = {"(": "call", "[": "subscript"}
            self.brackets.append(kinds.get(token, token) if operand else token)
        elif token in (")", "]", "}") and self.brackets:
            self.brackets.pop()
        if self.language == "java":
            if token == "<" and self.binds:
                self._angles += 1
            elif token == ">" and self._angles:
                self._angles -= 1
            elif token in (";", "{", "&&", "||"):
                self._angles = self._questions = 0
            elif token == "?" and not self._angles:
                self._questions += 1
            elif token == ":" and self._questions:
                self._questions -= 1

    def _would_join(self, token: str) -> bool:
        left, right = self.before[-1], token[0]
        if is_word(left) and (is_word(right) or right in "\"'"):
            return True
        return left + right in _JOINED[self.language] or (self.before[0].isdigit() and right == ".")


def is_word(token: str) -> bool:
    """Whether a token is a name, keyword or literal."""
    return token[0].isalnum() or token[0] in "_$\"'" or token[-1] in "\"'"


def _is_type(token: str) -> bool:
    """Whether a Java name looks like a type: capitalised, and no constant in capitals (one letter is a type variable)."""
    return token[0].isupper() and (len(token) == 1 or not token.isupper())
