"""Serve a fine-tuned model and its agent.

    python -m eelib.server --model smollm2-135m --language python

Exit code 0: ended by a signal, after the answers under way; 2: bad input, in one sentence; 130: interrupted before it served.
"""

import os
import signal
import sys

from eelib.errors import InputError


def _interrupted(*_: object) -> None:
    """Ctrl-C before there is anything to end well, perhaps within a library's import, which would hide an exception."""
    print("error: The server was interrupted before it served.", file=sys.stderr, flush=True)
    os._exit(130)


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring for exit codes."""
    try:
        from eelib.server.command import parse, run  # takes seconds, after the line that says so

        run(parse(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    if not {"-h", "--help"} & set(sys.argv):
        print("Starting: the libraries and the model take some seconds to load.", flush=True)
    main()
