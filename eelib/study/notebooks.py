"""The study's notebooks, in one list."""

from pathlib import Path

OF_NO_PROFILE = ("10",)  # reads what a GPU measured; run it with papermill


def notebooks(root: Path = Path()) -> dict[str, Path]:
    """The notebooks by number, of the repository at `root`, but for those that no profile has to do with."""
    found = {path.name[:2]: path for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    return {number: path for number, path in found.items() if number not in OF_NO_PROFILE}
