"""The real notebooks under the ci profile, by the command a reader would use."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eelib.study.notebooks import notebooks

ROOT = Path(__file__).parent.parent
# What EXHIBITS.md of the design lists for each notebook and is drawn so far.
EXHIBITS = {
    "01": ["table_4_01", "fig_4_02", "fig_4_03a", "fig_4_03b", "fig_4_04a"],
    "02": ["fig_1_01", "table_4_02", "fig_4_06", "fig_4_07", "table_6_05"],
    "03": ["fig_4_09", "fig_4_10"],
    "04": ["fig_6_02", "fig_6_03", "fig_6_04", "table_6_06"],
    "05": [f"table_6_{number:02}" for number in (1, 2, 3, 4, 7, 8, 9, 10)]
    + [f"fig_6_{n:02}" for n in (5, 7, 10, 11)]
    + ["fig_completions"],
    "06": ["fig_6_12", "fig_6_13"],
    "07": ["fig_6_14", "fig_6_15"],
    "08": ["table_2_02", "table_3_01", "fig_systems", "table_systems_cheapest", "table_speculation"],
    "09": ["fig_deployment_thresholds", "table_deployment_typing"],
    "11": ["fig_ledger", "table_ledger"],
    "12": ["table_contradictions", "table_contradictions_of_conclusions", "fig_contradictions"],
}


def command(*arguments: str, module: str = "eelib.study.run") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def written() -> dict[str, str]:
    """Hash of every figure, table and result of the ci profile, but for what its jobs said and locked."""
    roots = [ROOT / "figures/ci", ROOT / "tables/ci", ROOT / "results/ci"]
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    files = [
        path for path in files if path.suffix != ".lock" and ROOT / "results/ci/jobs" not in path.parents
    ]
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def first_run() -> dict[str, str]:
    run = command("--profile", "ci")
    assert run.returncode == 0, run.stdout + run.stderr
    return written()


def test_every_notebook_writes_its_exhibits(first_run):
    for number, names in EXHIBITS.items():
        (record,) = (ROOT / "results/ci/notebooks").glob(f"{number}_*.json")
        outputs = [Path(path).name for path in json.loads(record.read_text())["outputs"]]
        for name in names:
            suffixes = {Path(output).suffix for output in outputs if output.startswith(name)}
            assert suffixes >= ({".png", ".pdf"} if name.startswith("fig") else {".csv", ".md"}), (
                number,
                name,
            )


def test_a_second_run_recomputes_nothing_and_changes_no_byte(first_run):
    run = command("--profile", "ci")
    assert run.returncode == 0
    assert run.stdout.count(": up to date") == len(notebooks())
    assert written() == first_run


def test_notebooks_run_again_over_finished_stages_draw_the_same_bytes(first_run):
    # Twice, since a stamp names the commit, which may have changed since the first run of this working tree.
    drawn = []
    for _ in range(2):
        next((ROOT / "results/ci/notebooks").glob("03_*.json")).unlink()
        run = command("--profile", "ci", "--only", "03")
        assert run.returncode == 0 and "up to date" not in run.stdout
        drawn.append({path: digest for path, digest in written().items() if "/notebooks/" not in path})
    assert drawn[0] == drawn[1]


def test_a_sweep_writes_beside_the_studys_own_exhibits(first_run, tmp_path):
    before = written()
    chosen = {
        "profile": "ci",
        "threshold": "0.7",
        "context_fraction": "0.2",
        "language": "java",
        "model": "llama-random",
    }
    arguments = [word for name, value in chosen.items() for word in ("-p", name, value)]
    run = command(
        "notebooks/05_evaluation.ipynb", str(tmp_path / "out.ipynb"), *arguments, module="papermill"
    )
    assert run.returncode == 0, run.stderr
    variant = "ci+context_fraction=0.2+language=java+model=llama-random+threshold=0.7"
    (table,) = (ROOT / "tables" / variant).glob("table_6_08*.csv")
    labels = [line.split(",")[1] for line in table.read_text().splitlines()[2:]]
    assert set(labels) == {"base", "plain", "full", "full_cached", "0.7"}
    kept = {path: digest for path, digest in written().items() if not path.startswith("results")}
    assert kept == {path: digest for path, digest in before.items() if path in kept}


@pytest.mark.parametrize(
    ("parameter", "value", "sentence"),
    [
        ("treshold", "0.9", "has no parameter 'treshold'"),
        ("threshold", "1.5", "threshold is 1.5: allowed are probabilities from 0 to 1"),
    ],
)
def test_a_bad_parameter_is_one_sentence(tmp_path, parameter, value, sentence):
    arguments = ["-p", "profile", "ci", "-p", parameter, value]
    run = command(
        "notebooks/05_evaluation.ipynb", str(tmp_path / "out.ipynb"), *arguments, module="papermill"
    )
    assert run.returncode != 0
    assert sentence in run.stderr
    assert (
        "site-packages"
        not in run.stderr.split("Exception encountered at")[-1].split("papermill.exceptions")[0]
    )
