"""What notebooks call: opening the study from their parameters, and showing code and computed sentences."""

import ast
import html
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import HTML, Code, Markdown, display

from eelib.checks import check_choice, check_context_fraction, check_threshold
from eelib.errors import InputError
from eelib.profile import load_profile, parse_settings, variant_name
from eelib.study.quiet import quieten_libraries
from eelib.study.study import Study

OPEN_LINES = 10  # of code that are read in passing


def open_study(
    notebook: str,
    profile: str = "laptop",
    settings: str | None = None,
    force: bool = False,
    model: str | None = None,
    language: str | None = None,
    threshold: float | None = None,
    context_fraction: float | None = None,
) -> Study:
    """Open the study for a notebook, from its parameters; anything wrong with them gives InputError.

    Parameters
    ----------
    profile: name of a file in `profiles/`.
    settings: profile settings to override, `"evaluation.samples=50 context.new_tokens=10"`.
    model, language, threshold, context_fraction: narrow the profile to one; None keeps all of its own.
    """
    refuse_undeclared_parameters()
    settings = settings or ""
    for name, value in {"profile": profile, "settings": settings}.items():
        if not isinstance(value, str):
            raise InputError(f"The parameter {name} is {value!r}: allowed is text.")
    if not isinstance(force, bool):  # papermill's `-p force no` is a text, and a text is true
        raise InputError(f"The parameter force is {force!r}: allowed is True or False.")
    overrides = parse_settings(settings)
    chosen = load_profile(profile, overrides)
    labels = dict(overrides)
    if model is not None:
        check_choice("model", model, chosen.models)
        chosen, labels["model"] = replace(chosen, models=[model]), model
    if language is not None:
        check_choice("language", language, chosen.languages)
        chosen, labels["language"] = replace(chosen, languages=[language]), language
    if threshold is not None:
        check_threshold(_number("threshold", threshold))
        evaluation = replace(chosen.evaluation, thresholds=[float(threshold)])
        chosen, labels["threshold"] = replace(chosen, evaluation=evaluation), str(threshold)
    if context_fraction is not None:
        check_context_fraction(_number("context_fraction", context_fraction))
        fractions = [float(context_fraction)]
        evaluation = replace(chosen.evaluation, context_fractions=fractions, untimed_fractions=[])
        chosen, labels["context_fraction"] = replace(chosen, evaluation=evaluation), str(context_fraction)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    quieten_libraries()
    return Study(notebook, chosen, variant_name(chosen.name, labels), force)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"The parameter {name} is {value!r}: allowed is a number.")
    return value


def refuse_undeclared_parameters() -> None:
    """InputError when papermill injected a parameter that the notebook's `parameters` cell does not declare.

    papermill itself only warns of one, so that a typing error would run the default. It marks the injected cell with a
    first line `# Parameters`; the cell before it is the notebook's own.
    """
    shell = get_ipython()
    cells = list(shell.user_ns["In"]) if shell is not None else []
    for before, cell in itertools.pairwise(cells):
        if cell.startswith("# Parameters\n"):
            declared = set(_assigned(before))
            for name in _assigned(cell):
                if name not in declared:
                    raise InputError(
                        f"The notebook has no parameter {name!r}: allowed are {', '.join(sorted(declared))}."
                    )


def _assigned(source: str) -> Iterator[str]:
    """Names that the statements of a cell assign."""
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def show_source(*functions: Callable) -> None:
    """Show the code of functions where the text speaks of them: what is read is what ran.

    Ten lines stand open in all; what is longer, or comes after them, is shown closed, under its name and the first line of its
    docstring.
    """
    opened = in_view(*functions)
    for function in functions:
        code = Code(inspect.getsource(function), language="python")
        display(code if function in opened else HTML(closed(function, code)))


def in_view(*functions: Callable) -> list[Callable]:
    """Those of some functions, shown together, whose code is read without a click: as many as have `OPEN_LINES` lines together."""
    opened, left = [], OPEN_LINES
    for function in functions:
        lines = len(inspect.getsource(function).splitlines())
        if lines <= left:
            opened.append(function)
            left -= lines
    return opened


def closed(function: Callable, code: Code) -> str:
    """The code of a function as HTML that a click opens."""
    first = (inspect.getdoc(function) or "").split("\n")[0]
    summary = f"<code>{function.__qualname__}</code> {html.escape(first)}"
    return f"<details><summary>{summary}</summary>{code._repr_html_()}</details>"


def say(text: str) -> None:
    """A paragraph with computed numbers in it."""
    display(Markdown(text))


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 sample", "2 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
