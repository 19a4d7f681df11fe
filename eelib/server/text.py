"""Code tokens -> the model's prompt, and generated tokens -> an editor's text.

The prompt is tokenised as the corpora are, and may end anywhere: within a line, a name or a string. The completion is what
the model generated after the prompt, taken by offset; it goes through `layout`, code token by code token, so that a streamed
text is the same as one sent whole.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from eelib.data.lexing import EOL
from eelib.server.layout import Layout, layout
from eelib.server.literals import literal


def encode(code: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[list[int], int]:
    """The model's prompt of code tokens: the start token and the last ids, at most `most` in all; and how many ids were
    dropped before them: in steps of a quarter of `most`, so that the prompts of a source that grows begin alike."""
    ids = tokenizer(" ".join(code), add_special_tokens=False, verbose=False).input_ids if code else []
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    step = max(1, most // 4)
    dropped = -(-max(0, len(ids) - (most - len(start))) // step) * step
    dropped = min(dropped, max(0, len(ids) - 1))
    return start + ids[dropped:], dropped


def source_of(code: Sequence[str], language: str) -> str:
    """Source text of a whole sequence of code tokens."""
    text = layout(language)
    return "".join(map(text.feed, code))


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """One token by itself, as an editor shows it."""
    text = tokenizer.decode([token]).strip()
    return "\n" if EOL in text else literal(text) or text


class EditorText:
    """Generated token ids -> text, in pieces.

    A code token is written when the next one begins, since ids that follow may still lengthen it.

    Parameters
    ----------
    after: the layout of the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, after: Layout):
        self.tokenizer = tokenizer
        self.after = after
        self._ids: list[int] = []
        self._written = 0  # code tokens; the first one may be the rest of the prompt's last

    def push(self, token: int) -> str:
        """The text that one more id settles."""
        self._ids.append(token)
        return self._write(self._code()[:-1])

    def finish(self) -> str:
        """The rest."""
        return self._write(self._code())

    def _code(self) -> list[str]:
        """Generated code tokens, the first one empty or the rest of the prompt's last."""
        return self.tokenizer.decode(self._ids, skip_special_tokens=True).split(" ")

    def _write(self, code: list[str]) -> str:
        text = ""
        for index in range(self._written, len(code)):
            text += self._write_one(code[index].strip(), goes_on=index == 0)
        self._written = max(self._written, len(code))
        return text

    def _write_one(self, token: str, goes_on: bool) -> str:
        if not token:
            return ""
        if goes_on and self.after.goes_on(token):
            return self.after.lengthen(token)
        return self.after.feed(token)


class StopSequences:
    """Cuts a text before the first stop sequence; holds back what may become one."""

    def __init__(self, sequences: Sequence[str]):
        self.sequences = [sequence for sequence in sequences if sequence]
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that may be sent now."""
        if self.found:
            return ""
        text = self._held + piece
        places = [place for place in map(text.find, self.sequences) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, sequence) for sequence in self.sequences), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, sequence: str) -> int:
    """Length of the longest end of the text that begins the sequence."""
    return next(n for n in range(min(len(text), len(sequence) - 1), -1, -1) if text.endswith(sequence[:n]))
