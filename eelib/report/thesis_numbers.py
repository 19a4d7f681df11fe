"""The thesis's own numbers, and the raw results its authors published, as tidy frames.

They stand beside the numbers of a run, labelled by their `origin` column, and are never mixed with them.
`thesis/README.md` says what every file is, where it comes from, and where the published numbers contradict
each other.
"""

from pathlib import Path

import pandas as pd

from eelib.study.errors import InputError

FOLDER = Path(__file__).parent / "thesis"
TEXT_COLUMNS = ("label", "value", "version", "min", "max", "introduced", "note", "remark")


def names() -> list[str]:
    """The names that `load` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load(name: str) -> pd.DataFrame:
    """One file of thesis numbers, e.g. `load("results")` for Tables 6.7 to 6.10.

    Every frame has a text column `origin` ("Table 6.8", "raw results, context 0.2"). Layers are counted from
    1, energy is in Wh (`energy_wh`) or J (`energy_j`), time in seconds over all samples, `levenshtein` in
    characters. `threshold` is NaN for the full and the base model; `remark` is empty unless a cell is
    doubtful.

    Raises:
        InputError: when there is no such file.
    """
    if name not in names():
        raise InputError(f"There are no thesis numbers called {name!r}; there are {', '.join(names())}.")
    path = FOLDER / f"{name}.csv"
    columns = pd.read_csv(path, nrows=0).columns
    frame = pd.read_csv(path, dtype={column: str for column in columns if column in TEXT_COLUMNS})
    for column in ("remark", "note"):
        if column in frame:
            frame[column] = frame[column].fillna("")
    return frame


def load_exit_layers() -> pd.DataFrame:
    """The layer that each generated token left at, from the raw results: what is replayed at the thesis's sizes.

    One row a token, in published order: `model`, `language`, `context_fraction` (0.2), `threshold`, `layer` (1..L; the
    last layer counts as L in both models), `origin`. The files do not say where one completion ends and the next begins:
    they are 15 tokens long but for the few that ended early.
    """
    return pd.read_parquet(FOLDER / "exit_layers.parquet")
