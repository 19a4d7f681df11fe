"""The tidy datasets against the data dictionary, and against the stages that they are made of."""

import json
import math

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from eelib.study.datasets import DATASETS, as_part
from eelib.study.graph import NODES
from eelib.study.node import TABLE
from eelib.study.store import RECORD
from eelib.study.verify.allowed import ALLOWED, CROSSED, ROWS, Values
from eelib.study.verify.finding import Place, Report, where


def check_parts(place: Place, report: Report) -> None:
    """Every part of a dataset is its stage's table, and every stage's table has a part."""
    tables = {}
    for record in sorted(place.stages.glob(f"*/*/{RECORD}")):
        content = json.loads(record.read_text(encoding="utf-8"))
        if (record.parent / TABLE).exists():
            tables.setdefault(content["name"].replace("/", "-"), []).append(record.parent)
    for dataset in DATASETS:
        for path in sorted(place.dataset(dataset).glob("*.parquet")):
            report.looked("parts")
            folders = tables.pop(path.stem, [])
            if not folders:
                report.find("parts", f"{path} belongs to no stage: none is called {path.stem}.")
                continue
            node = folders[0].parent.name
            part = parquet.read_table(path)
            expected = [as_part(pd.read_parquet(folder / TABLE), node, dataset) for folder in folders]
            if not any(_same(part, one) for one in expected):
                report.find(
                    "parts",
                    f"{path} is not the table of its stage {folders[-1].name}: {_difference(part, expected[-1])}.",
                )
    for name, folders in tables.items():
        node = NODES.get(folders[0].parent.name)
        if node is not None and place.dataset(node.dataset).exists():
            report.find(
                "parts", f"{folders[0]} has a table that {place.dataset(node.dataset)} lacks: {name}.parquet."
            )


def _same(part: pa.Table, expected: pa.Table) -> bool:
    return (
        part.schema.equals(expected.schema) and part.to_pylist().__repr__() == expected.to_pylist().__repr__()
    )


def _difference(part: pa.Table, expected: pa.Table) -> str:
    """How a part differs from what it should be, in a few words."""
    if part.column_names != expected.column_names:
        return f"its columns are {', '.join(part.column_names)}"
    if part.num_rows != expected.num_rows:
        return f"it has {part.num_rows} rows, the stage {expected.num_rows}"
    for name in part.column_names:
        own, other = part[name].to_pylist(), expected[name].to_pylist()
        for row, (here, there) in enumerate(zip(own, other, strict=True), start=1):
            if repr(here) != repr(there):
                return f"{name} of row {row} is {str(here)[:60]!r}, the stage says {str(there)[:60]!r}"
    return "its types are others"


def check_columns(place: Place, report: Report) -> None:
    """Columns and types are those of the data dictionary."""
    for dataset, columns in DATASETS.items():
        path = place.dataset(dataset)
        for part in sorted(path.glob("*.parquet")) if path.is_dir() else [path] * path.exists():
            report.looked("dictionary")
            schema = parquet.read_schema(part)
            if schema.names != list(columns):
                odd = ", ".join(sorted(set(schema.names) ^ set(columns))) or "their order"
                report.find("dictionary", f"{part} has other columns than the data dictionary: {odd}.")
                continue
            for name, (kind, _) in columns.items():
                if not _is_of(schema.field(name).type, kind, kept=place.pages is not None):
                    report.find(
                        "dictionary",
                        f"{part}: {name} is {schema.field(name).type}, the data dictionary says {kind}.",
                    )


def _is_of(found: pa.DataType, kind: pa.DataType, kept: bool) -> bool:
    """Whether a type is the declared one; pandas, which writes what is kept, has counts with gaps as numbers, and no type for gaps alone."""
    if pa.types.is_list(kind) and pa.types.is_list(found):
        return found.value_type == kind.value_type
    if pa.types.is_string(kind) and pa.types.is_large_string(found):
        return True
    return found == kind or (
        kept and (pa.types.is_null(found) or (kind == pa.int64() and found == pa.float64()))
    )


def check_values(datasets: dict[str, pd.DataFrame], report: Report) -> None:
    """Every value is one that its column may hold."""
    for dataset, rows in datasets.items():
        for column, allowed in ALLOWED[dataset].items():
            if column not in rows:
                continue  # said by check_columns
            report.looked("dictionary", len(rows))
            wrong = rows[_wrong(rows[column], allowed)]
            if len(wrong):
                value = wrong[column].iloc[0]
                report.find(
                    "dictionary",
                    f"{dataset}: {column} is {value} ({where(wrong, ['node', 'model', 'language'])}): allowed is {allowed}.",
                )
        texts = [
            name
            for name, (kind, _) in DATASETS[dataset].items()
            if name in ("node", "model", "sample", "project", "method")
        ]
        for column in texts:
            if column in rows and (rows[column].isna() | (rows[column].astype(str) == "")).any():
                report.find(
                    "dictionary", f"{dataset}: {column} is missing in {rows[column].isna().sum()} rows."
                )


def _wrong(values: pd.Series, allowed: Values) -> pd.Series:
    missing = values.isna()
    if allowed.names:
        bad = ~values.isin(allowed.names)
    else:
        numbers = pd.to_numeric(values, errors="coerce")
        bad = ~numbers.between(allowed.least, math.inf if allowed.most is None else allowed.most)
    return bad & ~missing if allowed.gaps else bad


def check_whole(datasets: dict[str, pd.DataFrame], report: Report) -> None:
    """Within a place every combination of what is crossed is there, once."""
    for dataset, rows in datasets.items():
        places, crossed = CROSSED[dataset]
        inner = [column for group in crossed for column in group]
        if missing := [column for column in (*places, *inner) if column not in rows]:
            report.say(f"{dataset} lacks {', '.join(missing)}, so that its rows were not counted.")
            continue
        for names, group in rows.groupby(list(places), dropna=False, sort=False):
            report.looked("rows")
            told = ", ".join(str(name) for name in names if not pd.isna(name))
            twice = group.duplicated(inner)
            if twice.any():
                report.find("rows", f"{dataset} has a row twice: {told}: {where(group[twice], inner)}.")
            sizes = [len(group.drop_duplicates(list(columns))) for columns in crossed]
            if not twice.any() and len(group) != math.prod(sizes):
                report.find(
                    "rows",
                    f"{dataset} has {len(group)} rows of {told}: {' x '.join(map(str, sizes))} are {math.prod(sizes)}.",
                )
            if len(group) != ROWS.get(dataset, len(group)):
                report.find("rows", f"{dataset} has {len(group)} rows of {told}: there are {ROWS[dataset]}.")
