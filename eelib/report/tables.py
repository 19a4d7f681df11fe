"""How a table is saved: a CSV for programs and a Markdown file for readers, both saying which run they came
from.

The CSV opens with the stamp as a comment line, `# laptop profile · commit ...`. Text is quoted wherever it
holds a `#`, so that `pandas.read_csv(path, comment="#", na_values="not measured")` returns every cell whole
(pandas looks for comments outside quotes only); `read_table` does just that. The Markdown file has the stamp
as its last line.
"""

import io
import math
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from eelib.errors import InputError
from eelib.report.files import exhibit_path, write_whole

NOT_MEASURED = "not measured"


def save_table(
    frame: pd.DataFrame, name: str, folder: Path | str, stamp: str, floats: dict[str, str] | None = None
) -> list[Path]:
    """Write `<folder>/<name>.csv` and `.md`, each whole or not at all; the index is not written.

    Args:
        floats: printf formats by column, e.g. `{"codebleu": "%.2f"}`; other floats are written with `%.6g`.

    NaN is written "not measured" in columns of energy (whose name holds "energy" or "joule" or ends in "_wh"
    or "_j"); elsewhere it is an empty cell in the CSV and a dash in Markdown.

    Returns:
        The two paths, CSV first.

    Raises:
        InputError: when `floats` names a column that the frame lacks, or the stamp has more than one line.
    """
    floats = floats or {}
    unknown = [column for column in floats if column not in frame]
    if unknown:
        raise InputError(f"{name}: a format is given for {', '.join(unknown)}, which the table lacks.")
    if "\n" in stamp or "\r" in stamp:
        raise InputError(f"The stamp of {name} must be a single line; it is {stamp!r}.")
    columns = [str(column) for column in frame]
    rows = [
        [_cell(value, column, floats.get(column, "%.6g")) for column, value in zip(columns, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    return [
        write_whole(exhibit_path(folder, name, ".csv"), _csv(columns, rows, stamp).encode()),
        write_whole(exhibit_path(folder, name, ".md"), _markdown(columns, rows, numeric, stamp).encode()),
    ]


def shown(frame: pd.DataFrame, floats: dict[str, str] | None = None) -> Styler:
    """The table as a notebook shows it: every cell as `save_table` writes it, without the index."""
    floats = floats or {}
    style = Styler(frame.reset_index(drop=True), uuid_len=0, cell_ids=False).hide(axis="index")
    for column in frame:
        name, printed = str(column), floats.get(column, "%.6g")
        style = style.format(
            lambda value, name=name, printed=printed: _cell(value, name, printed) or "–", subset=[column]
        )
    return style


def read_table(path: Path | str) -> pd.DataFrame:
    """A CSV of `save_table` as a frame; "not measured" and empty cells are NaN."""
    return pd.read_csv(path, comment="#", keep_default_na=False, na_values=["", NOT_MEASURED])


def is_energy(column: str) -> bool:
    """Whether a column of this name holds energy."""
    lower = column.lower()
    return "energy" in lower or "joule" in lower or lower.endswith(("_wh", "_j"))


def _cell(value: object, column: str, float_format: str) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return NOT_MEASURED if is_energy(column) else ""
    return float_format % value if isinstance(value, float) else str(value)


def _csv(columns: list[str], rows: list[list[str]], stamp: str) -> str:
    # Quoted by hand: csv.writer leaves a `#` bare or, told to quote all text, quotes the formatted numbers too.
    buffer = io.StringIO()
    buffer.write(f"# {stamp}\n")
    for row in [columns, *rows]:
        buffer.write(",".join(_quoted(cell) for cell in row) + "\n")
    return buffer.getvalue()


def _quoted(cell: str) -> str:
    if any(sign in cell for sign in '#,"\n\r') or cell != cell.strip():
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _markdown(columns: list[str], rows: list[list[str]], numeric: list[bool], stamp: str) -> str:
    lines = [
        columns,
        ["---:" if right else "---" for right in numeric],
        *[[cell if cell else "–" for cell in row] for row in rows],
    ]
    escaped = [[_escaped(cell) for cell in line] if i != 1 else line for i, line in enumerate(lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + f"\n\n{stamp}\n"


def _escaped(cell: str) -> str:
    for sign in ("\\", "`", "*", "<", "|"):
        cell = cell.replace(sign, "\\" + sign)
    return cell.replace("__", "\\_\\_").replace("\r", " ").replace("\n", " ")
