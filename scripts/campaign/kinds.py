"""The kinds of corruptions: each changes one thing of a run in place and says what it touched, a dataset, "exhibits" or "records"."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_float_dtype, is_integer_dtype
from PIL import Image, PngImagePlugin
from pyarrow import parquet

from eelib.study.datasets import DATASETS
from eelib.study.verify import exhibits
from eelib.study.verify.finding import Place

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
    while True:
        path, rows = _part(place, draw)
        if columns := _numbers(rows):
            break
    column = draw.choice(columns)
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
