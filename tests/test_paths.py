"""The project's folders are found from anywhere, what is written can be led elsewhere, and no code leans on where one stands."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eelib import paths
from eelib.profile import load_profile
from eelib.study.study import Study

READ = ("MODELS", "DATA", "PROFILES", "NOTEBOOKS", "REFERENCE")
FOLDERS = {"models", "data", "profiles", "notebooks", "reference", "cache", "results", "figures", "tables"}


def test_what_is_read_lies_in_the_repository():
    assert (paths.ROOT / "pyproject.toml").is_file() and paths.PACKAGE.parent == paths.ROOT
    for name in READ:
        folder = getattr(paths, name)
        assert folder == paths.ROOT / name.lower() and folder.is_dir(), name


def test_what_is_written_goes_to_the_repository_or_where_one_says(monkeypatch, tmp_path):
    monkeypatch.delenv("EELIB_OUTPUT", raising=False)
    for where in (paths.results, paths.figures, paths.tables):
        assert where() == paths.ROOT / where.__name__
    monkeypatch.setenv("EELIB_OUTPUT", str(tmp_path))
    for where in (paths.results, paths.figures, paths.tables):
        assert where() == tmp_path / where.__name__
    assert Study("01", load_profile("ci"), "ci").root == tmp_path / "results/ci/stages"


def test_paths_are_shown_and_recorded_alike_on_every_machine(tmp_path):
    assert paths.shown(paths.MODELS / "opt-pico") == "models/opt-pico"
    assert paths.shown(tmp_path) == tmp_path.as_posix()
    assert paths.shown(Path("mine/model")) == "mine/model"


PROGRAM = """
from eelib.data.shipped import shipped_hash
from eelib.models.loading import load_model, load_tokenizer
from eelib.models.parts import take_apart
from eelib.study.graph import NODES
from eelib.study.notebook import open_study
from eelib.study.notebooks import notebooks

parts, tokenizer = take_apart(load_model("opt-pico")), load_tokenizer("opt-pico")
study = open_study("01", "ci", "models=opt-pico")
keys = [study.stage(node, study.places(node)[0]).key for node in NODES.values() if study.places(node)]
print(parts.total_layers, tokenizer("a b").input_ids, shipped_hash("java"), sorted(notebooks()), keys)
"""


def test_the_same_is_found_from_any_folder_and_nothing_is_left_there(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("EELIB_OUTPUT", None)
    said = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder in (tmp_path, paths.ROOT)
    ]
    assert said[0] == said[1] and said[0].startswith("32 [")
    assert list(tmp_path.iterdir()) == []


def leaning(source: str) -> list[str]:
    """Calls in a program that lean on the working directory: `os.chdir`, and a relative path into a folder of the project."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if name.endswith("chdir") or (
            re.fullmatch(r"(pathlib\.)?Path|open|pd\.read_\w+", name)
            and isinstance(first, str)
            and first.split("/")[0] in FOLDERS
        ):
            found.append(ast.unparse(call))
    return found


def test_leaning_is_seen():
    source = (
        "import os\nos.chdir(x)\nPath('results') / y\nopen('data/java.parquet')\nPath('mine')\nPath(given)"
    )
    assert set(leaning(source)) == {"os.chdir(x)", "Path('results')", "open('data/java.parquet')"}


@pytest.mark.parametrize("folder", ["eelib", "scripts", "benchmarks"])
def test_no_code_leans_on_where_one_stands(folder):
    for file in sorted((paths.ROOT / folder).rglob("*.py")):
        assert leaning(file.read_text(encoding="utf-8")) == [], file.name
