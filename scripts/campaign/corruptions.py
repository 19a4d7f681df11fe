"""Inject corruptions into a copy of a run, one at a time, and report which of them `./run_all.sh --verify` finds.

    .venv/bin/python scripts/campaign/corruptions.py ci --count 200 --quick

Each is one careless or dishonest change: a number, a unit, a label, a row, a stamp, a picture, a cell. A corruption is *found* if
any check says something. It is found *without hashes* if a check says something that reads no kept hash of a file: as if whoever
changed the file had hashed it again. It is found *by the data alone* if besides no stage is read: as in `reference/`.

The run must be right before. Of each corruption only the checks are run that read what was changed, since the others have found
nothing before and read the same. Without `--quick` notebooks are drawn anew where nothing but hashes and stages has told.
"""

import argparse
import json
import random
import re
import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_float_dtype, is_integer_dtype
from PIL import Image, PngImagePlugin
from pyarrow import parquet

from eelib.profile import load_profile
from eelib.study.datasets import DATASETS
from eelib.study.verify import exhibits, records, tidy
from eelib.study.verify.check import check_relations, check_shown, checked, redrawn
from eelib.study.verify.finding import Place, Report
from eelib.study.verify.kept import read_datasets

HASHES, STAGES = {"hashes"}, {"records", "parts", "stamps"}
UNITS = {"seconds", "milliseconds", "microseconds", "loss", "flops"}


def _part(place: Place, draw: random.Random) -> tuple[Path, pd.DataFrame]:
    """A part of a dataset, the dataset drawn first, so that small ones are changed as often as large ones."""
    dataset = draw.choice([name for name in DATASETS if place.dataset(name).exists()])
    path = draw.choice(sorted(place.dataset(dataset).glob("*.parquet")))
    return path, pd.read_parquet(path, dtype_backend="numpy_nullable")


def _numbers(rows: pd.DataFrame) -> list[str]:
    """Columns of measured or computed numbers."""
    given = {
        "threshold",
        "seed",
        "step",
        "repeat",
        "layer",
        "key",
        "prompt",
        "prompts",
        "context_fraction",
        "tolerated",
    }
    return [
        name
        for name in rows
        if name not in given
        and rows[name].notna().any()
        and (is_float_dtype(rows[name]) or is_integer_dtype(rows[name]))
    ]


def _kept(path: Path, rows: pd.DataFrame) -> str:
    schema = parquet.read_schema(path)
    arrays = [
        pa.array(rows[name].tolist(), schema.field(name).type, from_pandas=True)
        if name in rows
        else pa.nulls(len(rows), schema.field(name).type)
        for name in schema.names
    ]
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    return path.parent.name


def changed_number(place: Place, draw: random.Random) -> str:
    """One number of a dataset is a tenth to a half larger or smaller."""
    path, rows = _part(place, draw)
    column = draw.choice(_numbers(rows))
    row = draw.choice(list(rows.index[rows[column].notna()]))
    value = rows.loc[row, column]
    new = value * draw.choice([0.5, 0.7, 0.9, 1.1, 1.3, 1.5]) if value else 0.5
    rows.loc[row, column] = (
        (round(new) if round(new) != value else value + 1) if is_integer_dtype(rows[column]) else new
    )
    return _kept(path, rows)


def changed_unit(place: Place, draw: random.Random) -> str:
    """A column of a part is a thousand times larger or smaller."""
    while True:
        path, rows = _part(place, draw)
        if columns := [name for name in _numbers(rows) if name in UNITS]:
            break
    column = draw.choice(columns)
    rows[column] = (
        rows[column] * 1000 if is_integer_dtype(rows[column]) or draw.random() < 0.5 else rows[column] / 1000
    )
    return _kept(path, rows)


def swapped_values(place: Place, draw: random.Random) -> str:
    """Two rows of a part exchange one column."""
    while True:
        path, rows = _part(place, draw)
        columns = [name for name in _numbers(rows) if rows[name].nunique() > 1]
        if columns:
            break
    column = draw.choice(columns)
    one = draw.choice(list(rows.index))
    other = draw.choice(list(rows.index[rows[column].fillna(-1) != (rows[column].fillna(-1))[one]]))
    rows.loc[[one, other], column] = rows.loc[[other, one], column].to_numpy()
    return _kept(path, rows)


def wrong_label(place: Place, draw: random.Random) -> str:
    """One row says another model, language, kind, criterion, cache, method or sample that occurs elsewhere."""
    names = [
        "model",
        "language",
        "kind",
        "criterion",
        "cache",
        "method",
        "sample",
        "variant",
        "learnt_from",
        "against",
        "measured",
        "node",
    ]
    path, rows = _part(place, draw)
    whole = pd.read_parquet(path.parent)
    columns = [
        name for name in names if name in rows and whole[name].nunique() > 1 and rows[name].notna().any()
    ]
    column = draw.choice(columns)
    row = draw.choice(list(rows.index[rows[column].notna()]))
    rows.loc[row, column] = draw.choice(sorted(set(whole[column].dropna()) - {rows.loc[row, column]}))
    return _kept(path, rows)


def dropped_row(place: Place, draw: random.Random) -> str:
    """A row is missing."""
    path, rows = _part(place, draw)
    return _kept(path, rows.drop(index=draw.choice(list(rows.index))))


def doubled_row(place: Place, draw: random.Random) -> str:
    """A row is there twice."""
    path, rows = _part(place, draw)
    return _kept(path, pd.concat([rows, rows.loc[[draw.choice(list(rows.index))]]], ignore_index=True))


def changed_text(place: Place, draw: random.Random) -> str:
    """A completion, its reference, a token, an exit layer or whether it agrees is another."""
    path = draw.choice(sorted(place.dataset("predictions").glob("*.parquet")))
    rows = pd.read_parquet(path)
    row, column = (
        draw.randrange(len(rows)),
        draw.choice(["prediction", "reference", "tokens", "exit_layers", "agrees"]),
    )
    value = rows.at[row, column]
    if isinstance(value, str):
        rows.at[row, column] = (
            (value + " x")
            if draw.random() < 0.5
            else value[: len(value) // 2] + "_" + value[len(value) // 2 :]
        )
    else:
        if not len(value):
            column, value = "tokens", rows.at[row, "tokens"]
        value, place_in_it = np.array(value), draw.randrange(len(value))
        value[place_in_it] = (
            not value[place_in_it] if value.dtype == bool else value[place_in_it] + draw.choice([1, 2])
        )
        rows.at[row, column] = value
    return _kept(path, rows)


def edited_cell(place: Place, draw: random.Random) -> str:
    """A digit in a table's file is another."""
    path = draw.choice(sorted([*place.tables.glob("*.csv"), *place.tables.glob("*.md")]))
    lines = path.read_text().split("\n")
    own = [number for number, line in enumerate(lines) if re.search(r"\d", line) and "profile ·" not in line]
    number = draw.choice(own)
    digit = draw.choice(list(re.finditer(r"\d", lines[number])))
    lines[number] = (
        lines[number][: digit.start()]
        + str((int(digit[0]) + draw.randint(1, 9)) % 10)
        + lines[number][digit.end() :]
    )
    path.write_text("\n".join(lines))
    return "exhibits"


def exchanged_pictures(place: Place, draw: random.Random) -> str:
    """Two figures exchange their pixels, and keep what they say about themselves."""
    one, other = draw.sample(sorted(place.figures.glob("*.png")), 2)
    images = {path: Image.open(path).copy() for path in (one, other)}
    notes = {path: Image.open(path).info for path in (one, other)}
    for path, source in ((one, other), (other, one)):
        info = PngImagePlugin.PngInfo()
        for key in ("Title", "Description"):
            info.add_itxt(key, notes[path][key])
        images[source].save(path, pnginfo=info)
    return "exhibits"


def painted_picture(place: Place, draw: random.Random) -> str:
    """A square of a figure is painted over."""
    path = draw.choice(sorted(place.figures.glob("*.png")))
    image, info = Image.open(path).convert("RGBA"), PngImagePlugin.PngInfo()
    for key in ("Title", "Description"):
        info.add_itxt(key, Image.open(path).info[key])
    x, y = draw.randrange(image.width - 30), draw.randrange(image.height - 30)
    image.paste((200, 30, 30, 255), (x, y, x + 30, y + 30))
    image.save(path, pnginfo=info)
    return "exhibits"


def stale_stamp(place: Place, draw: random.Random) -> str:
    """An exhibit says other inputs, commit or profile, in one of its files or all of them."""
    stamps = sorted((place.results / "stamps").glob("*.json"))
    path = draw.choice(sorted(place.tables.glob("*.csv")))
    old = exhibits.stamp_of(path)
    new = {
        "inputs": re.sub(r"inputs \w+", f"inputs {draw.choice(stamps).stem}", old),
        "commit": re.sub(r"commit [^·]+ ·", "commit 0a1b2c3 ·", old),
        "profile": old.replace(place.profile, "paper", 1),
    }[draw.choice(["inputs", "commit", "profile"])]
    if new == old:
        new = old.replace("commit", "commit 1", 1)
    for file in [path, path.with_suffix(".md")][: draw.choice([1, 2])]:
        file.write_text(file.read_text().replace(old, new))
    return "exhibits"


def changed_stamp(place: Place, draw: random.Random) -> str:
    """What a stamp stands for lists one stage fewer."""
    path = draw.choice(sorted((place.results / "stamps").glob("*.json")))
    listed = json.loads(path.read_text())
    listed.pop(draw.randrange(len(listed)))
    path.write_text(json.dumps(listed, indent=1) + "\n")
    return "records"


def missing_file(place: Place, draw: random.Random) -> str:
    """A file of an exhibit is not there."""
    draw.choice(sorted([*place.tables.glob("*"), *place.figures.glob("*")])).unlink()
    return "exhibits"


def changed_sentence(place: Place, draw: random.Random) -> str:
    """A number in a computed sentence of an executed notebook is another."""
    path = draw.choice(sorted((place.results / "notebooks").glob("0[2-7]*.ipynb")))
    content = json.loads(path.read_text())
    said = [
        output["data"]
        for cell in content["cells"]
        for output in cell.get("outputs", [])
        if re.search(r"\d", "".join(output.get("data", {}).get("text/markdown", "")))
    ]
    data = draw.choice(said)
    text = "".join(data["text/markdown"])
    digit = draw.choice(list(re.finditer(r"\d", text)))
    data["text/markdown"] = (
        text[: digit.start()] + str((int(digit[0]) + draw.randint(1, 9)) % 10) + text[digit.end() :]
    )
    path.write_text(json.dumps(content))
    return "exhibits"


def changed_record(place: Place, draw: random.Random) -> str:
    """A stage's record says another setting, input, commit or package."""
    path = draw.choice(sorted(place.stages.glob("*/*/stage.json")))
    record = json.loads(path.read_text())
    match draw.choice(["config", "inputs", "code", "name", "packages"]):
        case "config":
            record["config"]["temperature"] = 0.5
        case "inputs":
            record["inputs"]["corpus"] = "0" * 64
        case "packages":
            record["packages"]["torch"] = "2.0.0"
        case what:
            record[what] += "0"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return "records"


KINDS = (
    changed_number,
    changed_unit,
    swapped_values,
    wrong_label,
    dropped_row,
    doubled_row,
    changed_text,
    edited_cell,
)
KINDS += (
    exchanged_pictures,
    painted_picture,
    stale_stamp,
    changed_stamp,
    missing_file,
    changed_sentence,
    changed_record,
)


def told(place: Place, touched: str, profile, pages, root: Path, quick: bool) -> set[str]:
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
            check_shown(place, redrawn(place, profile, datasets, False, root), report)
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
    root, profile = Path(__file__).parent.parent.parent, load_profile(args.profile, {})
    run = Place.of_run(args.profile, root)
    pages = redrawn(run, profile, read_datasets(run.results, ""), True, root)
    before = checked(run, profile, root, pages)
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
            checks = told(copy, touched, profile, pages, root, args.quick)
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
