"""The study's nodes as jobs, which Snakemake runs by the rules in `Snakefile`.

A job makes, one node after the other, everything of a setting that may run beside others, or everything of it that is
timed: importing torch takes longer than most stages. Where nothing may run beside anything, all is one job.

    python -m eelib.study.jobs PLAN JOB     # what a rule calls
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from eelib import paths
from eelib.errors import FailedJob, InputError
from eelib.study.graph import NODES, SETTING
from eelib.study.node import Node, Place
from eelib.study.notebook import open_study
from eelib.study.store import lock, room_on_disk
from eelib.study.study import Study

SENTENCE = "error: "  # begins the last line of a job's log when its input was bad
SCHEDULER = "snakemake.txt"  # what Snakemake says on this machine; elsewhere it says it on the terminal


def planned(study: Study, chosen: Collection[str], apart: bool) -> dict[str, dict]:
    """The jobs that make what is missing of some notebooks' nodes, and of what these are computed from.

    Parameters
    ----------
    chosen: numbers of notebooks; `study.force` holds for their nodes.
    apart: a job for each setting, and one for what is timed of it; else one for everything.

    Returns
    -------
    name -> `place`, the values that its stages share; `timed`; `nodes`, in order; `forced`, those of them to make anew;
    `after`, the jobs that make what it reads. What is timed stands last.
    """
    jobs: dict[str, dict] = {}
    read: set[str] = set()  # names of stages
    for node in reversed(NODES.values()):  # what reads comes before what is read
        own = node.notebook in chosen
        maker = replace(study, notebook=node.notebook, force=study.force and own)
        for place in study.places(node):
            if not (own or node.stage_name(place) in read) or not maker.missing(node, [place]):
                continue
            name, shared = _job_of(node, place, apart)
            empty = {"place": shared, "timed": node.timed and apart, "nodes": [], "forced": [], "after": []}
            job = jobs.setdefault(name, empty)
            if node.name not in job["nodes"]:
                job["nodes"].insert(0, node.name)
                if maker.force:
                    job["forced"].insert(0, node.name)
            for _, source, where in study.sources(node, place):
                read.add(source.stage_name(where))
                job["after"].append(_job_of(source, where, apart)[0])
    for name, job in jobs.items():
        job["after"] = sorted(jobs.keys() & set(job["after"]) - {name})
    return dict(sorted(jobs.items(), key=lambda item: item[1]["timed"]))


def _job_of(node: Node, place: Place, apart: bool) -> tuple[str, Place]:
    """Name of the job that makes a stage, and the values that its stages share."""
    if not apart:
        return "study", {}
    shared = {axis: value for axis, value in place.items() if axis in SETTING}
    return "-".join([*shared.values(), *["timed"] * node.timed]).replace("/", "-"), shared


def make_nodes(study: Study, chosen: Collection[str], settings: str, executor: str | None = None) -> None:
    """Have Snakemake make what is missing of some notebooks' nodes.

    On this machine as many jobs run side by side as the profile has threads, one on a GPU; what is timed runs alone.
    Snakemake's own files, the jobs' logs and the sentinels of finished jobs are in `results/<profile>/jobs`, which
    starts empty: what is done is known by the stages.

    Parameters
    ----------
    executor: a folder of `executors/`, with a configuration by which Snakemake runs the jobs elsewhere.

    Raises
    ------
    InputError: the sentence of a job. FailedJob.
    """
    threads = study.profile.threads or torch.get_num_threads()
    cores = 1 if torch.cuda.is_available() and executor is None else threads
    jobs = planned(study, chosen, apart=executor is not None or cores > 1)
    if not jobs:
        return
    folder = study.root.with_name("jobs").absolute()
    with room_on_disk(folder), lock(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plan = {"profile": study.profile.name, "settings": settings, "threads": threads, "jobs": jobs}
        plan |= {"started": time.time(), "works_for": os.getpid() if executor is None else None}
        (folder / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
        where = ["--cores", str(cores)]
        if executor is not None:
            where = ["--workflow-profile", str(paths.ROOT / "executors" / executor)]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
        command += ["--directory", str(folder), "--nolock", "--scheduler", "greedy", *where]
        # Jobs run in the repository, wherever the run was started.
        environment = os.environ | {"EELIB_OUTPUT": str(paths.output().absolute())}
        with (folder / SCHEDULER).open("w") as log:
            # In a session of its own: an interrupt at the terminal is for this process alone, which hands it on.
            stderr = log if executor is None else None
            engine = subprocess.Popen(command, stderr=stderr, start_new_session=True, env=environment)
            try:
                failed = engine.wait() != 0
            except BaseException:
                engine.send_signal(signal.SIGINT)
                raise
        if failed:
            raise _failure(folder)


def _failure(folder: Path) -> Exception:
    """Why a run failed: the sentence of a job, else the end of a job's log or of Snakemake's."""
    logs = [log for log in sorted(folder.glob("*.log")) if not log.with_suffix(".done").exists()]
    ends = {log: log.read_text(errors="replace").splitlines()[-15:] for log in [*logs, folder / SCHEDULER]}
    for lines in ends.values():
        if lines and lines[-1].startswith(SENTENCE):
            return InputError(lines[-1].removeprefix(SENTENCE))
    log = next((log for log, lines in ends.items() if lines), folder / SCHEDULER)
    return FailedJob("\n".join([f"error: a job failed; what it said is in {log}", *ends[log]]))


def _end_with(process: int) -> None:
    """End this process when another one has ended."""
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    os._exit(1)


def _run(plan: dict, name: str) -> None:
    """Make what a job is for; a line on standard output says what begins and how long it took."""
    if plan["works_for"] is not None:
        threading.Thread(target=_end_with, args=(plan["works_for"],), daemon=True).start()
    job = plan["jobs"][name]
    study = open_study("", plan["profile"], plan["settings"])
    for node in job["nodes"]:
        began = time.time()

        def say(what: str, node: str = node) -> None:
            # In one piece: jobs that run side by side write to one stream.
            sys.stdout.write(f"   {time.time() - plan['started']:5.0f} s  {name}: {node} {what}\n")
            sys.stdout.flush()

        say("...")
        maker = replace(study, notebook=NODES[node].notebook, force=node in job["forced"])
        try:
            maker.make(node, **job["place"])
        except Exception:
            say("failed")  # at once: what runs beside it is finished before the run ends
            raise
        say(f"took {time.time() - began:.0f} s")


def main() -> None:
    """Run the job that the command line names; bad input is the last line of standard error, and exit code 2."""
    path, name = sys.argv[1:]
    try:
        _run(json.loads(Path(path).read_text()), name)
    except InputError as error:
        print(f"\n{SENTENCE}{error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
