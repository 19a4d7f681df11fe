"""The main job: its command line, what it runs again, and what it leaves when a notebook fails."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eelib import paths
from eelib.errors import InputError
from eelib.profile import load_profile
from eelib.provenance import PACKAGE
from eelib.study import run as main_job

ROOT = PACKAGE.parent


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the main job in this process: exit code, lines of standard output, lines of standard error."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["run_all.sh", *arguments])
        code = 0
        try:
            main_job.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return call


# --- the command line ---

WRONG = [
    (
        ["--only", "99"],
        "error: There is no notebook '99': allowed are 01, 02, 03, 04, 05, 06, 07, 08, 09, 11, 12.",
    ),
    (
        ["--from", "5"],
        "error: There is no notebook '5': allowed are 01, 02, 03, 04, 05, 06, 07, 08, 09, 11, 12.",
    ),
    (["--from", "04", "--only", "05"], "error: --from and --only exclude each other: give one of them."),
    (
        ["--profile", "desktop"],
        "error: There is no profile 'desktop': allowed are ci, gpu, laptop, paper, smollm.",
    ),
    (["--executor", "loom"], "error: The executor is 'loom': allowed are slurm."),
    (
        ["--set", "evaluation.sample=5"],
        "error: There is no setting 'evaluation.sample': allowed are models, ",
    ),
    (
        ["--set", "evaluation.samples=5", "--set", "samples"],
        "error: The setting 'samples' is not of the form",
    ),
    (
        ["--set", "evaluation.thresholds=2"],
        "error: The threshold is 2.0: allowed are probabilities from 0 to 1.",
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_wrong_arguments_are_one_sentence_and_code_2(command, arguments, sentence):
    code, out, err = command(*arguments)
    assert code == 2
    assert out == []
    assert len(err) == 1 and err[0].startswith(sentence)


def test_the_command_itself_ends_without_a_traceback():
    result = subprocess.run(
        [sys.executable, "-m", "eelib.study.run", "--set", "evaluation.sample=5"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: There is no setting 'evaluation.sample'")
    assert result.stderr.count("\n") == 1


def test_notebooks_are_chosen_by_number():
    def chosen(*arguments: str) -> list[str]:
        return list(main_job.chosen_notebooks(main_job.parse(list(arguments))))

    assert chosen() == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "11", "12"]
    assert chosen("--from", "05") == ["05", "06", "07", "08", "09", "11", "12"]
    assert chosen("--only", "05") == ["05"]


def test_the_default_is_the_laptop():
    args = main_job.parse([])
    assert (args.profile, args.first, args.only, args.force, args.settings) == (
        "laptop",
        None,
        None,
        False,
        [],
    )


# --- a study of two tiny notebooks ---

PARAMETERS = 'profile: str = "laptop"  # a profile\nsettings: str = ""  # overrides\nforce: bool = False'
FIGURE = (
    "from pathlib import Path\n"
    'folder = Path("figures", profile + (f"+{settings}" if settings else ""))\n'
    "folder.mkdir(parents=True, exist_ok=True)\n"
    '(folder / "one.txt").write_text(f"{profile} {settings} {force}")'
)


def write_notebook(path: Path, *cells: str) -> None:
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    notebook = new_notebook(
        cells=[new_markdown_cell("# The title\n\nA question."), parameters, *map(new_code_cell, cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, path)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A folder with the ci profile and two notebooks, of which the first writes a figure; the working directory."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "profiles").mkdir()
    shutil.copy(ROOT / "profiles" / "ci.yaml", tmp_path / "profiles")
    write_notebook(tmp_path / "notebooks" / "13_first.ipynb", FIGURE)
    write_notebook(tmp_path / "notebooks" / "14_second.ipynb", 'print("second", 6 * 7)')
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EELIB_OUTPUT", ".")
    return tmp_path


def test_notebooks_run_in_order_and_once(study, command):
    code, out, err = command("--profile", "ci", "--set", "evaluation.samples=5")
    assert (code, err) == (0, [])
    assert out[0].startswith("Profile ci of ci: random models of 8 layers")
    assert out[1] == "13 13_first"
    assert out[2].startswith("   13_first took") and out[2].endswith("wrote 1 files")
    assert out[3] == "14 14_second"
    assert out[-2].endswith("wrote 0 files")
    assert out[-1].startswith("Done in 0.")
    assert (study / "figures/ci+evaluation.samples=5/one.txt").read_text() == "ci evaluation.samples=5 False"
    folder = study / "results/ci/notebooks+evaluation.samples=5"
    assert sorted(path.name for path in folder.iterdir()) == [
        "13_first.ipynb",
        "13_first.json",
        "14_second.ipynb",
        "14_second.json",
    ]
    executed = nbformat.read(folder / "14_second.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "second 42\n"
    assert set(json.loads((folder / "13_first.json").read_text())["outputs"]) == {
        "figures/ci+evaluation.samples=5/one.txt",
        "results/ci/notebooks+evaluation.samples=5/13_first.ipynb",
    }

    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    code, out, err = command("--profile", "ci", "--set", "evaluation.samples=5")
    assert (code, err) == (0, [])
    assert out[1:3] == ["13 13_first: up to date", "14 14_second: up to date"]
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


def test_a_failing_notebook_is_kept_stops_the_run_and_spares_the_earlier_copy(study, command):
    folder = study / "results/ci/notebooks"
    folder.mkdir(parents=True)
    earlier = {"13_first.ipynb": b"an earlier good copy", "13_first.json": b'{"key": "old", "outputs": {}}'}
    for name, content in earlier.items():
        (folder / name).write_bytes(content)
    (study / "figures/ci").mkdir(parents=True)
    (study / "figures/ci/one.txt").write_text("earlier")

    write_notebook(
        study / "notebooks/13_first.ipynb", 'print("so far")', 'raise ValueError("broken\\nbadly")'
    )
    code, out, err = command("--profile", "ci")
    assert code == 1
    assert err[0] == "error: a notebook failed with ValueError: broken"
    assert any("raise ValueError" in re.sub("\x1b\\[[0-9;]*m", "", line) for line in err)  # with the place
    assert err[-1] == "Its executed copy is kept as results/ci/notebooks/13_first.failed.ipynb."
    assert "14 14_second" not in out
    failed = nbformat.read(folder / "13_first.failed.ipynb", as_version=4)
    assert any("so far" in str(cell.get("outputs", "")) for cell in failed.cells)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if "failed" not in path.name}
    assert kept == earlier
    assert (study / "figures/ci/one.txt").read_text() == "earlier"

    # Bad input found in a notebook is its sentence alone. This notebook goes through next time, and clears the failed copy.
    write_notebook(
        study / "notebooks/13_first.ipynb",
        "from pathlib import Path\nfrom eelib.errors import InputError",
        'if not Path("there").exists():\n    raise InputError("The file there is missing: make it.")',
    )
    code, out, err = command("--profile", "ci")
    assert (code, err) == (2, ["error: The file there is missing: make it."])
    assert "14 14_second" not in out
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if "failed" not in path.name}
    assert kept == earlier
    (study / "there").touch()
    code, out, err = command("--profile", "ci", "--only", "13")
    assert (code, err) == (0, [])
    assert sorted(path.name for path in folder.iterdir()) == ["13_first.ipynb", "13_first.json"]


# --- what counts as done ---


def test_a_run_is_current_while_key_and_outputs_are_the_same(tmp_path):
    record, output = tmp_path / "record.json", tmp_path / "figure.png"
    assert not main_job.is_current(record, "key")
    output.write_bytes(b"figure")
    record.write_text(json.dumps({"key": "key", "outputs": {str(output): main_job._hash(str(output))}}))
    assert main_job.is_current(record, "key")
    assert not main_job.is_current(record, "another key")
    output.write_bytes(b"another")
    assert not main_job.is_current(record, "key")
    output.unlink()
    assert not main_job.is_current(record, "key")
    output.write_bytes(b"figure")
    assert main_job.is_current(record, "key")


def test_what_decides_a_notebook_is_in_its_key(study):
    notebook = Path("notebooks/13_first.ipynb")

    def key(settings: str = "", **overrides: str) -> str:
        profile = load_profile("ci", {name.replace("__", "."): value for name, value in overrides.items()})
        return main_job.run_key(notebook, {"profile": "ci", "settings": settings}, profile)

    keys = [key()]
    assert key() == keys[0]
    keys.append(key("evaluation.samples=5"))
    with Path("profiles/ci.yaml").open("a") as profile:
        profile.write("# a comment\n")
    keys.append(key())
    write_notebook(notebook, "1 + 1")
    keys.append(key())
    Path("models/tiny").mkdir(parents=True)
    Path("models/tiny/model.safetensors").write_bytes(b"weights")
    keys.append(key())
    Path("data").mkdir()
    keys.append(key(data__path="data"))
    Path("data/java_train.jsonl").write_text("a line")
    keys.append(key(data__path="data"))
    Path("data/java_train.jsonl").write_text("another")
    keys.append(key(data__path="data"))
    assert len(set(keys)) == len(keys)


def test_no_room_for_the_executed_copy_is_one_sentence(study, command, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(main_job.papermill, "execute_notebook", full)
    code, _, err = command("--profile", "ci")
    assert code == 2
    assert len(err) == 1 and err[0].startswith(
        "error: The disk has no room for results/ci/notebooks/13_first"
    )


def test_input_errors_have_no_stack_in_a_notebook():
    assert InputError("One sentence.")._render_traceback_() == ["InputError: One sentence."]
