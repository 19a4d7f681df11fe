"""Small things that notebooks show."""

import inspect
from collections.abc import Callable

from IPython.display import Code, Markdown, display


def show_source(*functions: Callable) -> None:
    """Show the code of functions where the text speaks of them: what is read is what ran."""
    for function in functions:
        display(Code(inspect.getsource(function), language="python"))


def say(text: str) -> None:
    """A paragraph with computed numbers in it."""
    display(Markdown(text))


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 sample", "2 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
