"""Stages against their keys, their files' hashes and each other; stamps against the stages that they stand for."""

import json
import math
from pathlib import Path

from eelib import provenance
from eelib.study.exhibits import hashes_of, inputs_name
from eelib.study.graph import NODES
from eelib.study.store import RECORD, Stage
from eelib.study.verify.finding import Place, Report

KNOWN = (
    "name",
    "key",
    "config",
    "inputs",
    "code",
    "commit",
    "seconds",
    "hardware",
    "software",
    "packages",
    "threads",
)


def check_records(place: Place, report: Report) -> dict[str, dict]:
    """Every stage's record is what its key and folder say; gives the records by key."""
    records = {}
    for path in sorted(place.stages.glob(f"*/*/{RECORD}")):
        report.looked("records")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            report.find("records", f"{path} is not JSON: {error}.")
            continue
        if missing := [name for name in KNOWN if name not in record]:
            report.find("records", f"{path} does not say {', '.join(missing)}.")
            continue
        records[record["key"]] = record
        for sentence in _odd(path, record):
            report.find("records", f"{path}: {sentence}.")
    for record in records.values():
        for label, key in record["inputs"].items():
            if key not in records:
                report.find(
                    "records",
                    f"The stage {record['name']} is made from {label} {key[:12]}, which is not there.",
                )
    _check_machines(records, report)
    return records


def _odd(path: Path, record: dict) -> list[str]:
    """What a record says that cannot be."""
    stage = Stage(record["name"], record["code"], record["config"], record["inputs"])
    wrong = []
    if stage.key != record["key"]:
        wrong.append(
            f"its key is {record['key'][:12]}, but name, code, configuration and inputs give {stage.key[:12]}"
        )
    folder = f"{path.parent.parent.name}/{path.parent.name}"
    if folder != f"{record['name']}-{record['key'][:12]}":
        wrong.append(f"it is the record of {record['name']}-{record['key'][:12]}")
    node = NODES.get(record["name"].split("/")[0])
    at = record["config"].get("place")
    if (
        node is not None
        and at is not None
        and set(at) == set(node.axes)
        and node.stage_name(at) != record["name"]
    ):
        wrong.append(f"its place is {node.stage_name(at)}, its name {record['name']}")
    if not (isinstance(record["seconds"], int | float) and 0 <= record["seconds"] < math.inf):
        wrong.append(f"it took {record['seconds']!r} seconds")
    if record["config"].get("threads") not in (None, record["threads"]):
        wrong.append(
            f"it was timed with {record['threads']} threads, its configuration says {record['config']['threads']}"
        )
    return wrong


def _check_machines(records: dict[str, dict], report: Report) -> None:
    """One run is one environment: stages of one commit have the same packages."""
    by_commit: dict[str, dict[str, list[str]]] = {}
    for record in records.values():
        text = json.dumps({"packages": record["packages"], "software": record["software"]}, sort_keys=True)
        by_commit.setdefault(record["commit"], {}).setdefault(text, []).append(record["name"])
    for commit, found in by_commit.items():
        if len(found) > 1:
            fewest = min(found.values(), key=len)
            report.find(
                "records",
                f"Stages of commit {commit} were made with different packages: {fewest[0]} is one of {len(fewest)} apart.",
            )
    commits = {commit: sum(map(len, found.values())) for commit, found in by_commit.items()}
    if len(commits) > 1:
        told = ", ".join(f"{count} by {commit}" for commit, count in commits.items())
        report.say(f"Stages were made by several commits: {told}.")


def check_files(place: Place, report: Report) -> None:
    """What a stage holds is what it held when it was made."""
    for path in sorted(place.stages.glob(f"*/*/{RECORD}")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8")).get("files")
        except json.JSONDecodeError:
            continue  # said by check_records
        if kept is None:
            report.say(
                "Stages were made before hashes of their files were kept, so that these are not compared."
            )
            continue
        report.looked("hashes")
        now = hashes_of(path.parent, leave_out=(RECORD,))
        if changed := sorted(name for name in {*kept, *now} if kept.get(name) != now.get(name)):
            report.find("hashes", f"{path.parent} is not as it was made: {', '.join(changed)}.")


def check_stamps(place: Place, records: dict[str, dict], report: Report) -> None:
    """A stamp's name is the hash of the stages that it lists."""
    for path in sorted((place.results / "stamps").glob("*.json")):
        report.looked("stamps")
        folders = [Path(text) for text in json.loads(path.read_text(encoding="utf-8"))]
        by_folder = {f"{record['name']}-{key[:12]}": key for key, record in records.items()}
        names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        if gone := [name for name in names if name not in by_folder]:
            report.find("stamps", f"{path} stands for a stage that is not there: {gone[0]}.")
        elif inputs_name([by_folder[name] for name in names]) != path.stem:
            report.find("stamps", f"{path} lists stages whose hash is another.")


def other_code(records: dict[str, dict]) -> list[str]:
    """The commits of stages that other code than today's has made."""
    made_by = {}
    for record in records.values():
        node = NODES.get(record["name"].split("/")[0])
        if node is not None and provenance.code_hash(node.function.__module__) != record["code"]:
            made_by.setdefault(record["commit"], []).append(record["name"])
    return [
        f"{len(names)} of {len(records)} stages were made by other code than today's (commit {commit})"
        for commit, names in made_by.items()
    ]
