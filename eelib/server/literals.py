"""CodeXGLUE's literals as an editor shows them."""

import re

_LITERAL = re.compile(
    r"""(?P<prefix>[A-Za-z]*)(?P<quote>\"{3}|'{3}|"|')<(?P<kind>STR|CHAR)_LIT(?::(?P<text>.*))?>(?P=quote)""",
    re.DOTALL,
)
_NUMBER = re.compile(r"<NUM_LIT(?::(?P<text>.*))?>", re.DOTALL)
_CUT_OFF = re.compile(r"""[A-Za-z]*("{3}|'{3}|"|')?<[A-Z]""")


def literal(token: str) -> str:
    """A code token as source: `"<STR_LIT:utf-8>"` is `"utf-8"`, `"<STR_LIT>"` is `""`, `<NUM_LIT>` is `0`.

    A character cannot be empty, so `'<CHAR_LIT>'` is a blank in quotes. A placeholder that the end of the generation has cut
    off is nothing. All other tokens are themselves.
    """
    if number := _NUMBER.fullmatch(token):
        return number["text"] or "0"
    if parts := _LITERAL.fullmatch(token):
        text = (parts["text"] or "").replace("U+0020", " ").replace("U+002C", ",")
        if parts["kind"] == "CHAR" and not text:
            text = " "
        return f"{parts['prefix']}{parts['quote']}{text}{parts['quote']}"
    return "" if _CUT_OFF.match(token) else token
