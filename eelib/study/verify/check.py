"""`./run_all.sh --verify`: whether what a run left, and what is kept of one, is right. It writes nothing.

Four kinds of checks. *hashes*: files are as they were written. *records, stamps, parts*: stages, datasets, stamps and exhibits belong
to each other. *dictionary, rows, relations*: the data can be true. *drawn, pages*: exhibits and sentences are what the data gives.
"""

import json
from pathlib import Path

import pandas as pd

from eelib import paths
from eelib.errors import InputError
from eelib.profile import Profile
from eelib.study.exhibits import hashes_of
from eelib.study.graph import NODES
from eelib.study.notebooks import notebooks
from eelib.study.verify import completions, exhibits, records, relations, rivals, tidy
from eelib.study.verify.finding import Place, Report, where
from eelib.study.verify.kept import KeptStudy, read_datasets
from eelib.study.verify.redraw import Redrawn, redraw

MANIFEST = "manifest.json"  # of what is kept: hashes by path


def verify(profile: Profile, root: Path | None = None) -> int:
    """Check a profile's run and what is kept of it, print what is wrong, and give the exit code."""
    places = [
        place
        for place in (Place.of_run(profile.name, root), Place.of_reference(profile.name, root))
        if place.whole.exists()
    ]
    if not places:
        raise InputError(
            f"There is nothing of the profile {profile.name!r} to verify: neither results/{profile.name} nor reference/{profile.name} exists."
        )
    wrong = 0
    for place in places:
        report = checked(place, profile)
        for sentence in report.said:
            print(f"{paths.shown(place.whole)}: {sentence}")
        for check, sentence in report.wrong:
            print(f"wrong ({check}): {sentence}")
        wrong += len(report.wrong)
        looked = ", ".join(f"{count:,} {check}" for check, count in report.looked_at.items())
        print(
            f"{paths.shown(place.whole)}: {'right' if not report.wrong else f'{len(report.wrong)} wrong'}; looked at {looked}."
        )
    return 1 if wrong else 0


def checked(place: Place, profile: Profile, pages: list[Redrawn] | None = None) -> Report:
    """All checks of one place.

    Parameters
    ----------
    pages: what the notebooks give, where that is known already.
    """
    report, made_by = Report(), {}
    has_stages = place.stages is not None and place.stages.exists()
    try:
        datasets = read_datasets(place.results, place.suffix)
    except Exception as error:  # noqa: BLE001 - whatever a file that is no parquet does
        report.find("dictionary", f"{place.results} cannot be read: {error}.")
        return report
    if has_stages:
        made_by = records.check_records(place, report)
        records.check_stamps(place, made_by, report)
        tidy.check_parts(place, report)
        records.check_files(place, report)
    tidy.check_columns(place, report)
    tidy.check_values(datasets, report)
    tidy.check_whole(datasets, report)
    check_relations(datasets, report)
    if place.figures is not None:
        exhibits.check_stamped(place, report)
        exhibits.check_hashes(place, report)
    else:
        check_manifest(place, report)
    drawn_by_others = records.other_code(made_by)
    for sentence in drawn_by_others:
        report.say(f"{sentence}: what they hold is not drawn anew.")
    if not drawn_by_others:
        if pages is None:
            pages = redrawn(place, profile, datasets, has_stages)
        check_shown(place, pages, report)
    return report


def check_relations(datasets: dict[str, pd.DataFrame], report: Report, touching: str = "") -> None:
    """What must hold within and between datasets; with `touching` only what that dataset takes part in."""
    checks = [(relation, ("predictions",)) for relation in completions.RELATIONS]
    checks += [*relations.RELATIONS.items(), *rivals.RELATIONS.items()]
    for relation, needed in checks:
        if not set(needed) <= set(datasets) or (touching and needed and touching not in needed):
            continue
        given = datasets["predictions"] if relation in completions.RELATIONS else datasets
        try:
            for why, broken in relation(given):
                report.looked("relations")
                if len(broken):
                    names = [
                        name
                        for name in (
                            "node",
                            "model",
                            "language",
                            "kind",
                            "criterion",
                            "threshold",
                            "seed",
                            "cache",
                            "method",
                            "layer",
                            "sample",
                        )
                        if name in broken
                    ]
                    report.find("relations", f"Not so: {why} ({where(broken, names)}).")
        except Exception as error:  # noqa: BLE001 - what data makes of a relation's code is a finding
            report.find(
                "relations", f"{relation.__name__} cannot be looked at: {type(error).__name__}: {error}."
            )


def check_manifest(place: Place, report: Report) -> None:
    """What is kept is as it was kept."""
    path = place.pages / MANIFEST
    if not path.exists():
        report.say(f"No hashes were kept ({MANIFEST}), so that they are not compared.")
        return
    then, now = json.loads(path.read_text(encoding="utf-8")), hashes_of(place.pages, leave_out=(MANIFEST,))
    report.looked("hashes", len(then))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            report.find("hashes", f"{place.pages / name} is not as it was kept.")


def check_shown(place: Place, pages: list[Redrawn], report: Report) -> None:
    """Exhibits, sentences and pages are what the data gives."""
    for page in pages:
        for sentence in page.failed:
            report.find("drawn", f"Notebook {page.notebook} cannot be drawn from what is kept, {sentence}.")
    if place.figures is not None:
        exhibits.check_drawn(place, pages, report)
    exhibits.check_pages(place, pages, report)
    skipped = sum(len(page.skipped) for page in pages)
    if skipped:
        report.say(
            f"{skipped} cells of notebooks were not drawn anew, for they need a model, or a stage that is not kept."
        )


def redrawn(
    place: Place,
    profile: Profile,
    datasets: dict[str, pd.DataFrame],
    has_stages: bool,
    touching: str = "",
) -> list[Redrawn]:
    """Every notebook on what is kept, if the run or the pages have it; with `touching` only those that name a node of that dataset."""
    stamps = (
        {
            name: exhibits.stamp_of(next(iter(files.values())))
            for name, files in exhibits.files_of(place).items()
        }
        if place.figures
        else {}
    )
    study = KeptStudy(
        "",
        profile,
        profile.name,
        datasets=datasets,
        stages=place.stages if has_stages else None,
        stamps=stamps,
    )
    there = place.pages or place.results / "notebooks"
    suffix = ".md" if place.pages else ".ipynb"
    names = [touching, *(node.name for node in NODES.values() if node.dataset == touching)]
    return [
        redraw(path, study)
        for path in notebooks().values()
        if (there / f"{path.stem}{suffix}").exists() and any(name in path.read_text() for name in names)
    ]
