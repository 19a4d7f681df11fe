"""The nodes' jobs: which there are, and that Snakemake runs them, ends with who asked for it, and says what went wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from eelib.profile import load_profile, profile_names
from eelib.provenance import PACKAGE
from eelib.study.graph import NODES
from eelib.study.jobs import make_nodes, planned
from eelib.study.notebooks import notebooks
from eelib.study.store import RECORD
from eelib.study.study import Study

ROOT = PACKAGE.parent


@pytest.fixture
def study(monkeypatch, tmp_path) -> Study:
    """The ci profile's study, of which nothing has been made."""
    monkeypatch.chdir(ROOT)
    study = Study("", load_profile("ci"), "ci")
    monkeypatch.setattr(Study, "root", tmp_path)
    return study


# --- the plan ---


def test_every_stage_is_made_once_after_what_it_reads_and_apart_from_what_is_timed(study):
    jobs = planned(study, notebooks(), apart=True)
    languages, settings = ["java", "python"], [f"{m}-{k}" for m, k in study.settings]
    assert set(jobs) == {*languages, *settings, *(f"{setting}-timed" for setting in settings)}
    assert [job["timed"] for job in jobs.values()] == sorted(job["timed"] for job in jobs.values())
    made: dict[str, tuple[str, int]] = {}  # stage -> its job, and the place of its node there
    for name, job in jobs.items():
        for position, node in enumerate(job["nodes"]):
            assert NODES[node].timed == job["timed"]
            for place in study.places(node, **job["place"]):
                stage = NODES[node].stage_name(place)
                assert stage not in made
                made[stage] = name, position
    assert set(made) == {node.stage_name(place) for node in NODES.values() for place in study.places(node)}
    for node in NODES.values():
        for place in study.places(node):
            name, position = made[node.stage_name(place)]
            for _, source, where in study.sources(node, place):
                of, earlier = made[source.stage_name(where)]
                assert of in jobs[name]["after"] or (of == name and earlier < position)


@pytest.mark.parametrize("name", profile_names())
def test_no_job_waits_for_itself(name, tmp_path):
    """Snakemake refuses a cycle of jobs; a job is done once all that it comes after are."""
    jobs = planned(Study("", load_profile(name), name), notebooks(), apart=True)
    done: set[str] = set()
    while ready := {job for job, asked in jobs.items() if set(asked["after"]) <= done} - done:
        done |= ready
    assert done == set(jobs)


def test_one_job_where_nothing_may_run_beside_anything(study):
    jobs = planned(study, notebooks(), apart=False)
    nodes = [node.name for node in NODES.values() if study.places(node)]
    assert len(nodes) > 20  # a promise elsewhere takes a model of all languages, which ci has none of
    assert jobs == {"study": {"place": {}, "timed": False, "nodes": nodes, "forced": [], "after": []}}


def test_a_notebooks_nodes_bring_what_they_are_computed_from_if_it_is_missing(study, monkeypatch):
    (job,) = planned(study, {"06"}, apart=False).values()
    assert job["nodes"] == ["corpus", "model", "rollouts", "prefixes", "agent", "decision_cost"]
    there = {"model", "agent"}
    monkeypatch.setattr(
        Study, "missing", lambda self, node, places: [] if node.name in there and not self.force else places
    )
    (job,) = planned(study, {"06"}, apart=False).values()
    assert job["nodes"] == ["decision_cost"]
    (job,) = planned(replace(study, force=True), {"06"}, apart=False).values()
    assert job["nodes"] == job["forced"] == ["decision_cost"]
    there |= {"decision_cost"}
    assert planned(study, {"06"}, apart=True) == {}


# --- Snakemake, with corpora of given files ---


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """The main job on the corpora of a folder."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what a background job of a shell would hand on is to ignore it
    settings = ["threads=2", "data.source=line-completion", f"data.path={folder}"]
    command = [sys.executable, "-m", "eelib.study.run", "--profile", "ci", "--only", "01", *arguments]
    return subprocess.Popen(
        [*command, *(word for setting in settings for word in ("--set", setting))],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("name", ["KILL", "INT", "TERM"])
def test_no_process_outlives_the_one_that_asked_and_the_next_run_goes_on(tmp_path, name):
    """The jobs wait for a pipe that nobody writes to; the second run finds a broken file in its place."""
    for language in ("java", "python"):
        os.mkfifo(tmp_path / f"{language}_train.jsonl")
    run = start(tmp_path)
    for line in run.stdout:
        if "python: corpus ..." in line:
            break
    below = psutil.Process(run.pid).children(recursive=True)
    assert len([process for process in below if "eelib.study.jobs" in process.cmdline()]) == 2
    run.send_signal(getattr(signal, f"SIG{name}"))
    out, err = run.communicate(timeout=60)
    assert run.returncode == (-signal.SIGKILL if name == "KILL" else 130)
    assert err == ""
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
    if name != "KILL":
        return
    for language in ("java", "python"):
        (tmp_path / f"{language}_train.jsonl").unlink()
        (tmp_path / f"{language}_train.jsonl").write_text("{}\n" if language == "java" else "broken\n")
    run = start(tmp_path)
    out, err = run.communicate(timeout=600)
    assert run.returncode == 2, out + err
    assert err == "error: java_train.jsonl, line 1: the field 'id' is missing.\n"
    assert out.count(": corpus failed\n") == 2
    assert not list(ROOT.glob(".snakemake"))


# --- SLURM ---


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("sinfo") is None
    or subprocess.run("sinfo", check=False, capture_output=True).returncode != 0,
    reason="there is no SLURM here: scripts/slurm.sh sets one up",
)
def test_slurm_runs_the_nodes_and_what_is_timed_alone(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    study = Study("", load_profile("ci"), "ci", force=True)
    began = time.time()
    make_nodes(study, notebooks(), "", "slurm")
    for node in NODES.values():
        for place in study.places(node):
            assert (study.stage(node, place).folder(study.root) / RECORD).stat().st_mtime > began
    shown = subprocess.run(
        ["scontrol", "show", "jobs", "--oneliner"], check=True, capture_output=True, text=True
    )
    jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.stdout.splitlines()]
    jobs = [
        job for job in jobs if time.mktime(time.strptime(job["SubmitTime"], "%Y-%m-%dT%H:%M:%S")) > began - 1
    ]
    alone = [job["OverSubscribe"] for job in jobs]
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert (alone.count("OK"), alone.count("NO")) == (2 + len(study.settings), len(study.settings))
    assert "took" not in capfd.readouterr().out  # the jobs ran elsewhere
