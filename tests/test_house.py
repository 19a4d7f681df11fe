"""Who may import whom: the floors of the core in one direction, the endpoint and the GPU's code beside it."""

import ast
from pathlib import Path

import pytest

from eelib.provenance import PACKAGE

# Each may import itself and what stands before it.
FLOORS = ("data", "models", "training", "decoding", "rl", "evaluation", "systems", "report", "study")
# Modules of no floor, which all may import and which import none.
GROUND = ("errors", "paths", "profile", "provenance")
BESIDE = ("gpu", "server")  # may import all floors, and no floor imports them


def imported(file: Path) -> set[str]:
    """Subpackages of eelib that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("eelib.")}


def allowed(subpackage: str) -> set[str]:
    if subpackage in BESIDE:
        return {*GROUND, *FLOORS, subpackage}
    return {*GROUND, *FLOORS[: FLOORS.index(subpackage) + 1]}


def test_every_subpackage_has_its_place():
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} == {*FLOORS, *BESIDE}


def test_the_ground_imports_no_floor():
    assert {file.stem for file in PACKAGE.glob("*.py")} == {*GROUND, "__init__"}
    for file in PACKAGE.glob("*.py"):
        assert imported(file) <= set(GROUND), file.name


@pytest.mark.parametrize("subpackage", [*FLOORS, *BESIDE])
def test_imports_run_one_way(subpackage):
    for file in (PACKAGE / subpackage).rglob("*.py"):
        assert imported(file) <= allowed(subpackage), file.name


def test_an_import_is_seen_wherever_it_stands(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import eelib.gpu.graphs\ndef f():\n    from eelib import server\n    from eelib.rl.env import x\n"
    )
    assert imported(file) == {"gpu", "server", "rl"}
