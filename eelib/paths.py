"""Where the project's folders are, from wherever it is imported or run.

What a run reads lies in the repository that this package is a part of. What it writes goes there too, or below the folder
that the environment variable EELIB_OUTPUT names. A path that a person types is relative to where the person stands.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent
MODELS = ROOT / "models"  # that ship
DATA = ROOT / "data"  # corpora that ship
PROFILES = ROOT / "profiles"
NOTEBOOKS = ROOT / "notebooks"
REFERENCE = ROOT / "reference"  # what runs found, kept to be read
PAPER_SCALE = ROOT / "results" / "gpu" / "paper_scale"  # measurements on a GPU, kept
CACHE = ROOT / "cache"  # downloads and what is made of them, checkpoints of long trainings


def results() -> Path:
    """Stages, tidy data and executed notebooks of runs."""
    return output() / "results"


def figures() -> Path:
    """Figures of runs."""
    return output() / "figures"


def tables() -> Path:
    """Tables of runs."""
    return output() / "tables"


def output() -> Path:
    """What holds the folders that runs write."""
    return Path(os.environ.get("EELIB_OUTPUT", ROOT))


def shown(path: Path) -> str:
    """A path as it is shown and recorded: below the repository, the same on every machine."""
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()
