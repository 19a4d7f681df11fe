"""Inject corruptions into a copy of a run, one at a time, and report which of them `./run_all.sh --verify` finds.

    .venv/bin/python scripts/campaign/corruptions.py ci --count 200 --quick

Each is one careless or dishonest change: a number, a unit, a label, a row, a stamp, a picture, a cell. A corruption is *found* if
any check says something. It is found *without hashes* if a check says something that reads no kept hash of a file: as if whoever
changed the file had hashed it again. It is found *by the data alone* if besides no stage is read: as in `reference/`.

The run must be right before. Of each corruption only the checks are run that read what was changed, since the others have found
nothing before and read the same. Without `--quick` notebooks are drawn anew where nothing but hashes and stages has told.
"""

import argparse
import random
import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from kinds import KINDS

from eelib.profile import load_profile
from eelib.study.verify import exhibits, records, tidy
from eelib.study.verify.check import check_relations, check_shown, checked, redrawn
from eelib.study.verify.finding import Place, Report
from eelib.study.verify.kept import read_datasets

HASHES, STAGES = {"hashes"}, {"records", "parts", "stamps"}


def told(place: Place, touched: str, profile, pages, quick: bool) -> set[str]:
    """The checks that say something about what was changed."""
    report = Report()
    if touched == "exhibits":
        exhibits.check_stamped(place, report)
        exhibits.check_hashes(place, report)
        check_shown(place, pages, report)
    elif touched == "records":
        made_by = records.check_records(place, report)
        records.check_stamps(place, made_by, report)
        records.check_files(place, report)
    else:
        tidy.check_parts(place, report)
        datasets = read_datasets(place.results, place.suffix)
        tidy.check_columns(place, report)
        tidy.check_values(datasets, report)
        tidy.check_whole(datasets, report)
        check_relations(datasets, report, touched)
        if not quick and {check for check, _ in report.wrong} <= HASHES | STAGES:
            check_shown(place, redrawn(place, profile, datasets, False), report)
    return {check for check, _ in report.wrong}


def table(found: dict[str, list[set[str]]]) -> pd.DataFrame:
    """By kind: how many, how many are found, without hashes, and by the data alone (none: it is no data)."""
    rows = []
    for kind, said in found.items():
        alone = sum(bool(checks - HASHES - STAGES) for checks in said)
        rows.append(
            {
                "kind": kind.replace("_", " "),
                "injected": len(said),
                "found": sum(map(bool, said)),
                "without hashes": sum(bool(checks - HASHES) for checks in said),
                "without hashes and stages": alone,
            }
        )
    frame = pd.DataFrame(rows)
    return pd.concat([frame, frame.sum(numeric_only=True).to_frame().T.assign(kind="all")], ignore_index=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="whose run to corrupt a copy of, e.g. ci")
    parser.add_argument("--count", type=int, default=200, help="how many corruptions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="do not draw notebooks anew for corrupted datasets"
    )
    args = parser.parse_args()
    profile = load_profile(args.profile, {})
    run = Place.of_run(args.profile)
    pages = redrawn(run, profile, read_datasets(run.results, ""), True)
    before = checked(run, profile, pages)
    if before.wrong:
        parser.exit(2, f"error: the run is not right before: {before.wrong[0][1]}\n")
    found, draw = defaultdict(list), random.Random(args.seed)
    with TemporaryDirectory() as folder:
        copy = Place.of_run(args.profile, Path(folder))
        for own, there in (
            (run.results, copy.results),
            (run.figures, copy.figures),
            (run.tables, copy.tables),
        ):
            shutil.copytree(own, there)
        for number in range(args.count):
            kind = KINDS[number % len(KINDS)]
            touched = kind(copy, draw)
            checks = told(copy, touched, profile, pages, args.quick)
            found[kind.__name__].append(checks)
            print(
                f"{number + 1:3d} {kind.__name__:20s} {touched:18s} {', '.join(sorted(checks)) or 'not found'}",
                flush=True,
            )
            _restore(run, copy)
    print(table(found).to_string(index=False))


def _restore(run: Place, copy: Place) -> None:
    """Make the copy the run's again: files whose time or size is another are copied anew."""
    for own, there in ((run.results, copy.results), (run.figures, copy.figures), (run.tables, copy.tables)):
        for path in own.rglob("*"):
            target = there / path.relative_to(own)
            if path.is_file() and (
                not target.exists()
                or (path.stat().st_size, path.stat().st_mtime_ns)
                != (target.stat().st_size, target.stat().st_mtime_ns)
            ):
                shutil.copy2(path, target)


if __name__ == "__main__":
    main()
