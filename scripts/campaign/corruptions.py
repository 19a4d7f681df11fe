"""Inject corruptions into a copy of a run, one at a time, and report which of them `./run_all.sh --verify` finds.

    .venv/bin/python scripts/campaign/corruptions.py ci --count 200 --quick

Each is one careless or dishonest change: a number, a unit, a label, a row, a stamp, a picture, a cell. A corruption is *found* if
any check says something. It is found *without hashes* if a check says something that reads no kept hash of a file: as if whoever
changed the file had hashed it again. It is found *by the data alone* if neither a hash, a stage nor a stamp is read: by the dictionary,
by what must hold, or because notebooks draw something else from the datasets. Records and stamps are no data, and never found so.

The run must be right before. Of each corruption only the checks are run that read what was changed, since the others have found
nothing before and read the same. Without `--quick` notebooks that read a corrupted dataset are drawn anew where the data has told nothing yet.
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

HASHES = {"hashes"}
Told = tuple[set[str], bool]  # the checks that say something, and whether the data alone does


class Campaign:
    """Corrupting a copy of a run.

    Parameters
    ----------
    quick: do not draw notebooks anew for datasets that are corrupted.
    """

    def __init__(self, profile: str, quick: bool):
        self.profile, self.quick = load_profile(profile, {}), quick
        self.run = Place.of_run(profile)
        datasets = read_datasets(self.run.results, "")
        self.pages, self.alone = (
            redrawn(self.run, self.profile, datasets, has_stages) for has_stages in (True, False)
        )

    def right(self) -> Report:
        """What is wrong before anything is corrupted."""
        report = checked(self.run, self.profile, self.pages)
        check_shown(self.run, self.alone, report)
        return report

    def told(self, place: Place, touched: str) -> Told:
        """What is said about what was changed."""
        report, alone = Report(), Report()
        if touched == "exhibits":
            exhibits.check_stamped(place, report)
            exhibits.check_hashes(place, report)
            check_shown(place, self.pages, report)
            check_shown(place, self.alone, alone)
        elif touched == "records":
            made_by = records.check_records(place, report)
            records.check_stamps(place, made_by, report)
            records.check_files(place, report)
        else:
            tidy.check_parts(place, report)
            datasets = read_datasets(place.results, place.suffix)
            tidy.check_columns(place, alone)
            tidy.check_values(datasets, alone)
            tidy.check_whole(datasets, alone)
            check_relations(datasets, alone, touched)
            if not alone.wrong and not self.quick:
                pages = redrawn(place, self.profile, datasets, False, touched)
                check_shown(place, pages, alone)
        return {check for check, _ in report.wrong + alone.wrong}, bool(alone.wrong)


def table(found: dict[str, list[Told]]) -> pd.DataFrame:
    """By kind: how many, how many are found, without hashes, and by the data alone."""
    frame = pd.DataFrame(
        {
            "kind": kind.replace("_", " "),
            "injected": len(said),
            "found": sum(bool(checks) for checks, _ in said),
            "without hashes": sum(bool(checks - HASHES) for checks, _ in said),
            "by the data alone": sum(alone for _, alone in said),
        }
        for kind, said in found.items()
    )
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
    campaign = Campaign(args.profile, args.quick)
    run, before = campaign.run, campaign.right()
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
            checks, alone = campaign.told(copy, touched)
            found[kind.__name__].append((checks, alone))
            print(
                f"{number + 1:3d} {kind.__name__:20s} {touched:18s} {', '.join(sorted(checks)) or 'not found'}{'' if alone else ' (not by the data alone)'}",
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
