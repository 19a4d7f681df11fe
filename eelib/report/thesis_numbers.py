"""The thesis's own numbers, and the raw results its authors published, as tidy frames.

They stand beside the numbers of a run, labelled by their `origin` column, and are never mixed with them.
`thesis/README.md` says what every file is and where it comes from; `contradictions.py` lists where the published numbers
contradict each other.
"""

from pathlib import Path

import pandas as pd

from eelib.errors import InputError

FOLDER = Path(__file__).parent / "thesis"
TEXT_COLUMNS = ("label", "value", "version", "min", "max", "introduced", "note", "remark")

PRINTED_SCORES = [
    "codebleu",
    "rouge_l",
    "chrf",
    "exact_match",
    "levenshtein",
    "energy_wh",
    "time_s",
    "mean_layers",
]
PRINTED_ROUNDING = 0.0051  # two digits, and a hair


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
    texts = {column: str for column in columns if column in TEXT_COLUMNS}
    # Only an empty cell is missing: the thesis prints "None" where it means none.
    frame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    for column in ("remark", "note"):
        if column in frame:
            frame[column] = frame[column].fillna("")
    return frame


def savings() -> pd.DataFrame:
    """What Tables 6.7 to 6.10 save and lose, each early exit against the full model of its own table and context.

    The contexts of a table are matched in their order, since Table 6.9 calls the third one 0.5 for the full model and 0.6
    for the early exits; `context_fraction` is the early exit's. Columns: `model`, `language`, `context_fraction`,
    `threshold`, the shares `energy_saved`, `time_saved` and `layers_saved`, `rouge_l_lost`, `origin`, and the table's
    `remark`. A row that repeats another table's measured nothing of its own setting: its shares are NaN.
    """
    printed = load("results")
    contexts = printed.groupby(["origin", printed["threshold"].isna()])["context_fraction"]
    printed["place"] = contexts.rank("dense")
    full, exits = printed[printed["threshold"].isna()], printed[printed["threshold"].notna()]
    both = exits.merge(full, on=["origin", "place"], suffixes=("", "_full"), validate="many_to_one")
    for saved, column in {"energy": "energy_wh", "time": "time_s", "layers": "mean_layers"}.items():
        both[f"{saved}_saved"] = 1 - both[column] / both[f"{column}_full"]
    both["rouge_l_lost"] = both["rouge_l_full"] - both["rouge_l"]
    saved = ["energy_saved", "time_saved", "layers_saved", "rouge_l_lost"]
    both.loc[both["remark"].str.startswith("repeats"), saved] = float("nan")
    keys = ["model", "language", "context_fraction", "threshold"]
    return both[[*keys, *saved, "origin", "remark"]]


def differing_cells() -> pd.DataFrame:
    """Cells of Tables 6.7 to 6.10 at context 0.2 that differ from the raw results by more than their rounding.

    Columns: `model`, `language`, `label`, `column`, `printed`, `raw`, and `raw_index_plus_1`: mean layers if the index that
    is recorded for OPT's last layer, 32 instead of 31, were raised by one like the others.
    """
    printed, raw = load("results"), load("raw_ctx20")
    printed = printed[printed["context_fraction"] == 0.2]
    label = printed["threshold"].map("{:g}".format).where(printed["threshold"].notna(), "full")
    both = printed.assign(label=label).merge(raw, on=["model", "language", "label"], suffixes=("", "_raw"))
    cells = []
    for column in PRINTED_SCORES:
        differing = both[(both[column] - both[f"{column}_raw"]).abs() > PRINTED_ROUNDING]
        for _, row in differing.iterrows():
            cells.append(
                {name: row[name] for name in ("model", "language", "label")}
                | {"column": column, "printed": row[column], "raw": row[f"{column}_raw"]}
                | {"raw_index_plus_1": row["mean_index_plus_1"] if column == "mean_layers" else float("nan")}
            )
    return pd.DataFrame(cells)


def load_exit_layers() -> pd.DataFrame:
    """The layer that each generated token left at, from the raw results: what is replayed at the thesis's sizes.

    One row a token, in published order: `model`, `language`, `context_fraction` (0.2), `threshold`, `layer` (1..L; the
    last layer counts as L in both models), `origin`. The files do not say where one completion ends and the next begins:
    they are 15 tokens long but for the few that ended early.
    """
    return pd.read_parquet(FOLDER / "exit_layers.parquet")
