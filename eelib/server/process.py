"""The server as a process of its own on a free loopback port: for the notebook and the load test."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from eelib.errors import InputError


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`."""

    url: str


@contextmanager
def started(*arguments: str, seconds: float = 120.0) -> Iterator[Server]:
    """Start `python -m eelib.server` with these arguments, wait until it can complete, and end it afterwards.

    What it says when it ends at once, such as a missing model, gives InputError.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "eelib.server", "--port", "0", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

        def said() -> str:
            log.seek(0)
            return log.read()

        try:
            yield Server(_wait(process, said, time.monotonic() + seconds))
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen, said, ends: float) -> str:
    """The URL of a server that is ready."""
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise InputError(said().strip().removeprefix("error: ") or "The server ended at once.")
        if url := re.search(r"http://127\.0\.0\.1:\d+$", said(), re.MULTILINE):
            try:
                if httpx.get(f"{url[0]}/health").status_code == 200:
                    return url[0]
            except httpx.TransportError:
                pass  # it listens, but does not answer yet
        time.sleep(0.1)
    raise InputError(f"The server was not ready in time; it said: {said().strip()}")
