"""What a check says: one sentence a thing that is wrong, and what could not be looked at."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from eelib import paths


@dataclass
class Report:
    """What checks found.

    Attributes
    ----------
    wrong: (check, sentence) of everything that is not right.
    said: sentences about what was not looked at, and why.
    looked_at: how many things each check looked at.
    """

    wrong: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)

    def looked(self, check: str, count: int = 1) -> None:
        """Count what was looked at."""
        self.looked_at[check] = self.looked_at.get(check, 0) + count

    def find(self, check: str, sentence: str) -> None:
        """Something is wrong."""
        self.wrong.append((check, sentence))

    def say(self, sentence: str) -> None:
        """Something was not looked at; each reason once."""
        if sentence not in self.said:
            self.said.append(sentence)


@dataclass(frozen=True)
class Place:
    """Where a run, or what is kept of one, lies.

    Attributes
    ----------
    results: folder with the datasets, a folder or a `.parquet` file each.
    figures, tables, stages: of the run; None for what is kept, which has pages instead.
    pages: folder of the kept pages; None for a run.
    """

    profile: str
    results: Path
    figures: Path | None = None
    tables: Path | None = None
    stages: Path | None = None
    pages: Path | None = None

    @classmethod
    def of_run(cls, profile: str, root: Path | None = None) -> "Place":
        """A run of a profile, where runs write or in another folder."""
        root = root or paths.output()
        results = root / "results" / profile
        return cls(
            profile, results, root / "figures" / profile, root / "tables" / profile, results / "stages"
        )

    @classmethod
    def of_reference(cls, profile: str, root: Path | None = None) -> "Place":
        """What is kept of a profile, in this repository or in another folder."""
        pages = (root or paths.ROOT) / "reference" / profile
        return cls(profile, pages / "results", pages=pages)

    @property
    def whole(self) -> Path:
        """The folder of all that is named by it, for a sentence."""
        return self.pages or self.results

    @property
    def suffix(self) -> str:
        return ".parquet" if self.pages else ""

    def dataset(self, name: str) -> Path:
        """Where a dataset lies: a folder of parts, or a file."""
        return self.results / f"{name}{self.suffix}"


def where(rows: pd.DataFrame, columns: list[str], limit: int = 1) -> str:
    """The first rows by some columns, as a sentence names them: "opt-pico, java, 0.2", and how many more there are."""
    named = [
        ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row)
        for row in rows[columns].head(limit).itertuples(index=False, name=None)
    ]
    more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return "; ".join(named) + more
