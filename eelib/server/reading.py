"""An editor's source text -> code tokens and the layout that goes on after them, read in a process of its own.

The parser takes quadratic time over some texts and lets no other thread run meanwhile: in a process of its own it holds up
nobody but the requests that wait to be read, and is ended when a request has no time left.
"""

import asyncio
import pickle
import signal
import sys
from dataclasses import dataclass
from typing import BinaryIO

from eelib.data.lexing import EOL, tokenize_source
from eelib.server.cursor import read_from, within
from eelib.server.layout import Layout, layout


@dataclass
class Source:
    """What was read of a source.

    Attributes
    ----------
    code: its code tokens, and an `<EOL>` where Python stops at the start of a line.
    after: the layout that goes on.
    dropped: characters before the first that was read.
    within: whether it ends within a string or a comment.
    """

    code: list[str]
    after: Layout
    dropped: int
    within: bool


def read_source(source: str, language: str, most: int | None = None) -> Source:
    """Read the last `most` characters of a source that ends anywhere, all of them where it is None."""
    dropped = 0 if most is None else read_from(source, language, most)
    inside = within(source, language)
    source = source[dropped:]
    code, after = tokenize_source(source, language), layout(language)
    after.continue_from(source, code)
    after.whole = dropped == 0
    if language == "python" and code and after.breaks:
        code.append(EOL)
    return Source(code, after, dropped, inside)


class Reader:
    """The process that reads, started by the first source and again after one that was given up."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start the process, and wait until it reads."""
        await self.read("", "python", 0)

    async def read(self, source: str, language: str, most: int) -> Source:
        """`read_source`, one at a time. A cancellation, such as by a timeout, ends the process."""
        async with self._turn:
            try:
                return await self._ask(source, language, most)
            except BaseException:
                await self.close()
                raise

    async def _ask(self, *asked: str | int) -> Source:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "eelib.server.reading"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        process = self._process
        process.stdin.write(_packed(asked))
        await process.stdin.drain()
        size = int.from_bytes(await process.stdout.readexactly(8), "big")
        answer = pickle.loads(await process.stdout.readexactly(size))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.stdin.close()
            if process.returncode is None:
                process.kill()
            await process.wait()


def _packed(item: object) -> bytes:
    data = pickle.dumps(item)
    return len(data).to_bytes(8, "big") + data


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer what is asked until the requests end."""
    while size := requests.read(8):
        asked = pickle.loads(requests.read(int.from_bytes(size, "big")))
        try:
            answer = read_source(*asked)
        except Exception as error:  # noqa: BLE001 - of this source alone, and said by the server
            answer = error
        answers.write(_packed(answer))
        answers.flush()


if __name__ == "__main__":
    from eelib.server.reading import (
        _serve as serve,
    )  # so that what is pickled names this module, not __main__

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to answer
    serve(sys.stdin.buffer, sys.stdout.buffer)
