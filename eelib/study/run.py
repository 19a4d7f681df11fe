"""The main job: have Snakemake make the nodes, then run the notebooks with papermill, each in a kernel of its own.

    python -m eelib.study.run --profile laptop

A notebook whose source, parameters, profile, models and code have not changed since its last whole run, and whose outputs
are untouched, is not run again. Exit code 0: all went through; 1: a job or a notebook failed; 2: bad input; 130: it was
interrupted or terminated.
"""

import argparse
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from eelib import paths
from eelib.checks import check_choice
from eelib.errors import FailedJob, InputError
from eelib.profile import Profile, load_profile, parse_settings, profile_names, variant_name
from eelib.provenance import folder_hash
from eelib.study.notebooks import notebooks
from eelib.study.store import room_on_disk


def run_key(notebook: Path, parameters: dict, profile: Profile) -> str:
    """Hash of all that decides what a notebook writes: source, parameters, profile, eelib, shipped models and corpora, given data."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    if profile.data.path is not None:
        digest.update(folder_hash(Path(profile.data.path)).encode())
    files = [notebook, paths.PROFILES / f"{profile.name}.yaml"]
    files += sorted(path for path in paths.PACKAGE.rglob("*") if path.suffix in (".py", ".csv", ".json"))
    files += sorted(path for path in paths.MODELS.rglob("*") if path.is_file())
    files += sorted(paths.DATA.glob("*.csv"))  # the hashes of the shipped corpora
    digest.update((paths.ROOT / "requirements.lock").read_bytes())
    for path in files:
        digest.update(paths.shown(path).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _hash(path: str) -> str | None:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None


def is_current(record: Path, key: str) -> bool:
    """Whether a notebook's last run had this key and all that it wrote is still there, unchanged."""
    if not record.exists():
        return False
    content = json.loads(record.read_text())
    return content["key"] == key and all(_hash(path) == value for path, value in content["outputs"].items())


def record_of(notebook: Path, profile: Profile, settings: str) -> Path:
    """Where it is kept what a notebook's last whole run wrote; the executed copy lies beside it.

    Those of a run with overrides lie beside the plain run's, as its exhibits do.
    """
    folder = variant_name("notebooks", parse_settings(settings))
    return paths.results() / profile.name / folder / f"{notebook.stem}.json"


def run_notebook(notebook: Path, record: Path, key: str, parameters: dict, variant: str) -> None:
    """Execute one notebook and record what it wrote; a failure keeps the executed copy and is raised."""
    record.parent.mkdir(parents=True, exist_ok=True)
    output, failed = record.with_name(notebook.name), record.with_suffix(".failed.ipynb")
    started, clock = time.time_ns(), time.monotonic()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(failed),  # renamed when it has gone through, so that an earlier good copy survives a failure
            parameters=parameters,
            kernel_name="python3",
            cwd=str(Path.cwd()),
            progress_bar=False,
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],  # of the kernel, whose notices are not about the study
        )
    except PapermillExecutionError as error:
        error.add_note(f"Its executed copy is kept as {failed}.")
        raise
    failed.rename(output)
    written = [
        path
        for root in (paths.figures(), paths.tables())
        for path in sorted((root / variant).rglob("*"))
        if path.is_file()
    ]
    outputs = [
        output.as_posix(),
        *(path.as_posix() for path in written if path.stat().st_mtime_ns >= started),
    ]
    whole = record.with_suffix(".tmp")
    whole.write_text(
        json.dumps({"key": key, "outputs": {path: _hash(path) for path in outputs}}, indent=1) + "\n"
    )
    whole.rename(record)
    seconds = time.monotonic() - clock
    print(f"   {notebook.stem} took {seconds:.0f} s and wrote {len(outputs) - 1} files", flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="run_all.sh",
        description="Run the study: its notebooks in order. Finished work is found again, a killed run goes on.",
    )
    parser.add_argument(
        "--profile",
        default="laptop",
        help="ci: minutes, random models; laptop: two CPU cores, SmolLM2-135M and opt-pico (default); smollm: SmolLM2-135M at "
        "full scale, hours; gpu: one GPU, no hub; paper: OPT-2.7B and Llama-3.2-3B from the hub",
    )
    parser.add_argument("--from", dest="first", metavar="NN", help="start at this notebook, e.g. 04")
    parser.add_argument("--only", metavar="NN", help="run this notebook alone, e.g. 05")
    parser.add_argument(
        "--force", action="store_true", help="make the notebooks' stages anew, even if they are there"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a setting of the profile, e.g. evaluation.samples=50; may be repeated",
    )
    parser.add_argument(
        "--graph",
        action="store_true",
        help="print the study's graph instead: what is made, by which function, from what",
    )
    parser.add_argument(
        "--executor",
        metavar="NAME",
        help="run the nodes by executors/NAME/config.yaml, e.g. slurm, instead of on this machine",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check what the profile's run left and what is kept of it in reference/; writes nothing",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="hold the profile's run against what is kept of it in reference/",
    )
    parser.add_argument(
        "--site",
        action="store_true",
        help="build the site of what is kept of the profile in reference/, in build/site/; needs the extra [site]",
    )
    parser.add_argument(
        "--no-venv", action="store_true", help="use the active environment (read by run_all.sh itself)"
    )
    return parser.parse_args(arguments)


def chosen_notebooks(args: argparse.Namespace) -> dict[str, Path]:
    """The notebooks that --from or --only ask for."""
    everything = notebooks()
    for option in (args.first, args.only):
        if option is not None and option not in everything:
            raise InputError(f"There is no notebook {option!r}: allowed are {', '.join(everything)}.")
    if args.first is not None and args.only is not None:
        raise InputError("--from and --only exclude each other: give one of them.")
    if args.only is not None:
        return {args.only: everything[args.only]}
    return {number: path for number, path in everything.items() if number >= (args.first or "")}


def run(args: argparse.Namespace) -> None:
    """Make the nodes of the chosen notebooks that are not up to date, then run these; stop at the first that fails."""
    if args.graph:
        from eelib.study.described import described

        print(described())
        return
    if args.verify or args.compare:
        from eelib.study.verify import main as verifying

        sys.exit(verifying.run(args))
    if args.site:
        site = [sys.executable, str(paths.ROOT / "scripts" / "site.py"), args.profile]
        sys.exit(subprocess.run(site, check=False).returncode)
    settings = shlex.join(args.settings)
    profile = load_profile(args.profile, parse_settings(settings))
    variant = variant_name(profile.name, parse_settings(settings))
    chosen = chosen_notebooks(args)
    if args.executor is not None:
        executors = sorted(path.parent.name for path in paths.ROOT.glob("executors/*/config.yaml"))
        check_choice("executor", args.executor, executors)
    started = time.monotonic()
    print(f"Profile {profile.name} of {', '.join(profile_names())}: {profile.description}", flush=True)
    parameters = {"profile": profile.name} | ({"settings": settings} if settings else {})
    records = {number: record_of(notebook, profile, settings) for number, notebook in chosen.items()}
    keys = {number: run_key(notebook, parameters, profile) for number, notebook in chosen.items()}
    stale = {number for number in chosen if args.force or not is_current(records[number], keys[number])}
    if stale:  # what follows imports all of the study, which takes seconds
        from eelib.study.graph import NODES
        from eelib.study.jobs import make_nodes
        from eelib.study.study import Study

        make_nodes(Study("", profile, variant, args.force), stale, settings, args.executor)
    os.environ["TQDM_DISABLE"] = "1"  # progress bars are for a person at a notebook, not for an executed copy
    for number, notebook in chosen.items():
        print(f"{number} {notebook.stem}{'' if number in stale else ': up to date'}", flush=True)
        if number in stale:
            # The nodes are made; what stands beside the graph, a notebook makes itself.
            beside = number not in {node.notebook for node in NODES.values()}
            force = {"force": True} if args.force and beside else {}
            with room_on_disk(records[number].with_name(notebook.name)):
                run_notebook(notebook, records[number], keys[number], parameters | force, variant)
    print(
        f"Done in {(time.monotonic() - started) / 60:.1f} minutes: figures/, tables/, results/.", flush=True
    )


def main() -> None:
    """Command line; see the module's docstring for exit codes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(parse())
    except KeyboardInterrupt:
        sys.exit(130)
    except FailedJob as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PapermillExecutionError as error:
        if error.ename in ("InputError", "MissingStage"):
            print(f"error: {error.evalue}", file=sys.stderr)
            sys.exit(2)
        print(f"error: a notebook failed with {error.ename}: {error.evalue}", file=sys.stderr)
        print("\n".join(error.traceback[-15:]), file=sys.stderr)
        print("\n".join(error.__notes__), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
