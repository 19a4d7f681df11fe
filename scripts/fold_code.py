"""Fold the notebooks' code: every code cell but the parameters is tagged `hide-input`, so that a notebook reads as a chapter.

    .venv/bin/python scripts/fold_code.py

`hide-input` is the tag that Jupyter Book, myst-nb and Quarto read; JupyterLab reads `source_hidden` beside it. A cell is a click away,
and runs as before. A test holds the notebooks to it.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
TAG = "hide-input"
SHOWN = "parameters"  # the tag of the one cell that a reader is meant to change


def folded(notebook: dict) -> dict:
    """A notebook with its code folded."""
    cells = [cell | {"metadata": _folded(cell)} for cell in notebook["cells"]]
    return notebook | {"cells": cells}


def _folded(cell: dict) -> dict:
    metadata = cell["metadata"]
    tags = metadata.get("tags", [])
    if cell["cell_type"] != "code" or SHOWN in tags:
        return metadata
    hidden = metadata.get("jupyter", {}) | {"source_hidden": True}
    return metadata | {"jupyter": hidden, "tags": [*tags, *([] if TAG in tags else [TAG])]}


def write(path: Path) -> None:
    """Fold a notebook's file in place, in the form in which notebooks are kept."""
    content = folded(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for notebook in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        write(notebook)
