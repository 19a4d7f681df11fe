"""Write docs/map.md, docs/graph.md and docs/data.md: for every figure and table, its notebook, what was measured for it, and what computes and draws it.

    .venv/bin/python scripts/exhibit_map.py

Read from the notebooks' code: the nodes that an exhibit names, and what its first argument was assigned from, traced back to
functions of eelib.
"""

import ast
import importlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from eelib import paths
from eelib.report.naming import RESULT_FIGURES, RESULT_TABLES
from eelib.server.measure import SERVING
from eelib.study.datasets import dictionary
from eelib.study.described import described, drawn
from eelib.study.graph import NODES

OPENED = ("study", "kept")  # what notebooks call the study; its `figure` and `table` make the exhibits
HEADER = """# Where every exhibit comes from

Made by `scripts/exhibit_map.py` from the notebooks' code; a test holds it to them. Functions are named by file below `eelib/`.

A *node* of the study's graph (`eelib/study/graph.py`) is what was made for the exhibit; *aggregated by* turns its rows into what is shown.

| Exhibit | Notebook | Nodes | Aggregated by | Drawn by |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Exhibit:
    """A figure or table of a notebook: its file's name, with `{...}` for what varies, and functions by dotted name."""

    name: str
    notebook: str
    nodes: tuple[str, ...]
    computed: tuple[str, ...]
    drawn: tuple[str, ...]


def exhibits(notebook: Path) -> list[Exhibit]:
    """What a notebook makes, in its order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    reader = _Reader(notebook.stem)
    reader.read(ast.parse(code).body)
    return list(dict.fromkeys(reader.found))


class _Reader:
    """Goes through statements in their order and keeps, for every name, the functions that its value came from."""

    def __init__(self, notebook: str):
        self.notebook = notebook
        self.modules: dict[str, str] = {}  # name -> dotted name of what was imported from eelib
        self.came_from: dict[str, dict[str, None]] = {}
        self.texts: dict[str, list[str]] = {}  # name -> what it may be
        self.nodes: dict[str, tuple[str, ...]] = {}  # name -> the nodes that a tuple of that name holds
        self.found: list[Exhibit] = []

    def read(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("eelib"):
                for alias in statement.names:
                    self.modules[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
            elif isinstance(statement, ast.For):
                self._assign(statement.target, statement.iter)
            elif isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign) and statement.value:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for target in targets:
                    self._assign(target, statement.value)
            elif isinstance(statement, ast.Expr):
                self._appended(statement.value)
            self._exhibits(statement)
            for block in ("body", "orelse"):
                self.read(getattr(statement, block, []))

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        functions = self.functions(value)
        if isinstance(target, ast.Subscript):  # a column of a frame, which keeps what it came from
            target = target.value
            functions = self.functions(target) | functions
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and node.id != "study":
                self.came_from[node.id] = functions
        if isinstance(value, ast.Tuple) and isinstance(target, ast.Name):
            self.nodes[target.id] = self._nodes(value.elts)
        if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Dict):
            self.texts[ast.unparse(target)] = [text.value for text in value.value.values]

    def _nodes(self, expressions: list[ast.expr]) -> tuple[str, ...]:
        """Names of the nodes among some arguments; of one beside the graph, what the code calls it."""
        found: list[str] = []
        for expression in expressions:
            match expression:
                case ast.Constant(value=str(name)) if name in NODES:
                    found.append(name)
                case ast.Starred(value=ast.Name(id=name)):
                    found += self.nodes.get(name, ())
                case ast.Attribute(attr="SERVING"):
                    found.append(SERVING.name)
        return tuple(found)

    def _appended(self, expression: ast.expr) -> None:
        """What is appended to a list is part of what the list came from."""
        match expression:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]):
                self.came_from[name] = self.came_from.get(name, {}) | self.functions(value)

    def functions(self, expression: ast.expr) -> dict[str, None]:
        """Dotted names of eelib's functions that an expression calls or its names came from, each once, in order."""
        found: dict[str, None] = {}
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and (name := self._dotted(node.func)):
                found[name] = None
            elif isinstance(node, ast.Name):
                found |= self.came_from.get(node.id, {})
        return found

    def _dotted(self, function: ast.expr) -> str | None:
        if isinstance(function, ast.Name):
            return self.modules.get(function.id)
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            module = self.modules.get(function.value.id)
            return module and f"{module}.{function.attr}"
        return None

    def _exhibits(self, statement: ast.stmt) -> None:
        nodes = [statement.value] if isinstance(statement, ast.Expr) else []
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("figure", "table")
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in OPENED
            ):
                functions = [name for name in self.functions(node.args[0]) if _of_interest(name)]
                drawn = tuple(name for name in functions if _draws(name))
                computed = tuple(name for name in functions if not _draws(name))
                nodes = self._nodes(node.args[2:])
                self.found += [
                    Exhibit(name, self.notebook, nodes, computed, drawn) for name in self._names(node.args[1])
                ]

    def _names(self, expression: ast.expr) -> list[str]:
        """File names of an exhibit; what varies is in braces."""
        text = ast.unparse(expression)
        if "results_figure" in text:
            return [f"{number}_{{setting}}" for number in RESULT_FIGURES.values()]
        if "RESULT_TABLES" in text:
            return [f"{number}_{{setting}}" for number in RESULT_TABLES.values()]
        if isinstance(expression, ast.Constant):
            return [expression.value]
        names = [""]
        for part in expression.values:
            if isinstance(part, ast.Constant):
                ends = [part.value]
            else:
                ends = self.texts.get(ast.unparse(part.value), ["{" + ast.unparse(part.value) + "}"])
            names = [name + end for name in names for end in ends]
        return names


def _draws(name: str) -> bool:
    """Whether a function makes a figure."""
    return inspect.signature(_resolve(name)).return_annotation is Figure


def _of_interest(name: str) -> bool:
    """Functions that compute or draw; not those that only name things, nor classes."""
    return inspect.isfunction(_resolve(name)) and not name.startswith(
        ("eelib.report.naming", "eelib.study.notebook", "eelib.models.loading")
    )


def _resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _place(name: str) -> str:
    """`file: function`, by the file that defines it."""
    function = _resolve(name)
    file = Path(inspect.getsourcefile(function)).relative_to(paths.PACKAGE)
    return f"`{file.as_posix()}: {function.__name__}`"


def _node(name: str) -> str:
    """A node and the function that makes it."""
    function = (NODES | {SERVING.name: SERVING})[name].function
    return f"`{name}` by {_place(f'{function.__module__}.{function.__name__}')}"


def page() -> str:
    """The text of docs/map.md."""
    rows = [
        f"| `{exhibit.name}` | {exhibit.notebook[:2]} | {', '.join(map(_node, exhibit.nodes)) or 'none'} | {', '.join(map(_place, exhibit.computed)) or 'nothing'} "
        f"| {', '.join(map(_place, exhibit.drawn)) or 'a table'} |"
        for notebook in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
        for exhibit in exhibits(notebook)
    ]
    return HEADER + "\n".join(rows) + "\n"


def graph_page() -> str:
    """The text of docs/graph.md."""
    return (
        "# The study's graph\n\nMade by `scripts/exhibit_map.py` from `eelib/study/graph.py`; a test holds it to that.\n\n"
        f"```mermaid\n{drawn()}\n```\n\n```text\n{described()}\n```\n"
    )


def data_page() -> str:
    """The text of docs/data.md."""
    return (
        "# The tidy results\n\nMade by `scripts/exhibit_map.py` from `eelib/study/datasets.py`; a test holds it to that. A run keeps them under "
        '`results/<profile>/`, one folder a dataset:\n\n```python\nimport pandas as pd\n\nrows = pd.read_parquet("results/laptop/predictions")\n'
        "```\n\n" + dictionary()
    )


if __name__ == "__main__":
    (paths.ROOT / "docs/map.md").write_text(page(), encoding="utf-8")
    (paths.ROOT / "docs/graph.md").write_text(graph_page(), encoding="utf-8")
    (paths.ROOT / "docs/data.md").write_text(data_page(), encoding="utf-8")
