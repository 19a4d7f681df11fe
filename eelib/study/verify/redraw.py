"""Notebooks run on what is kept: every table, figure and sentence made anew, without computing a model or writing a file."""

import ast
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat

from eelib.study.verify.kept import Drawn, KeptStudy, Unread


@dataclass
class Redrawn:
    """What one notebook shows when it runs on what is kept.

    Attributes
    ----------
    sentences, tables, pictures: Markdown, HTML without its looks, and PNG, in the notebook's order.
    drawn: its exhibits.
    skipped: reasons why cells could not be run.
    failed: cells that stumbled over what is kept, each with what was wrong.
    """

    notebook: str
    sentences: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def display(self, *shown: Any) -> None:
        """What the notebook displays, each as the page of a run keeps it."""
        for item in shown:
            if hasattr(item, "_repr_png_"):
                self.pictures.append(item._repr_png_())
            else:
                self.tables.append(bare(item._repr_html_()))


def redraw(notebook: Path, study: KeptStudy) -> Redrawn:
    """Run a notebook's cells on a study that only reads."""
    study = replace(study, notebook=notebook.name[:2], drawn=[])
    found = Redrawn(notebook.stem, drawn=study.drawn)
    names: dict[str, Any] = {}
    missing: set[str] = set()  # what a cell that could not be run would have assigned
    with _reading(study, found), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run has shown them
        for number, source in enumerate(_code(notebook), start=1):
            spoilt = bool(_loaded(source) & missing)
            try:
                exec(compile(source, f"{notebook.name}, cell {number}", "exec"), names)  # noqa: S102 - the study's own notebooks
            except Unread as error:
                missing |= _stored(source)
                found.skipped.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever kept data makes of the notebook's code is a finding
                missing |= _stored(source)
                if not spoilt:
                    found.failed.append(f"cell {number}: {type(error).__name__}: {error}")
    return found


@contextlib.contextmanager
def _reading(study: KeptStudy, found: Redrawn) -> Iterator[None]:
    """What notebooks import opens this study, and shows to `found`."""
    calls = {
        "open_study": lambda *given, **named: study,
        "say": found.sentences.append,
        "show_source": lambda *functions: None,
    }
    with (
        patch.multiple("eelib.study.notebook", **calls),
        patch("IPython.display.display", found.display),
    ):
        yield


def _code(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def _loaded(source: str) -> set[str]:
    """Names that a cell reads."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _stored(source: str) -> set[str]:
    """Names that a cell assigns."""
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def bare(html: str) -> str:
    """A table's HTML without its style: the cells between their tags."""
    table = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    table = re.sub(r' (class|id|scope|border|style)="[^"]*"', "", table)
    return re.sub(r"\n\s*", "", table)
