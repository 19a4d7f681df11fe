"""The study's notebooks, in one list."""

from pathlib import Path

from eelib import paths

OF_NO_PROFILE = ("10",)  # reads what a GPU measured; run it with papermill


def notebooks() -> dict[str, Path]:
    """The notebooks by number, but for those that no profile has to do with."""
    found = {path.name[:2]: path for path in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    return {number: path for number, path in found.items() if number not in OF_NO_PROFILE}
