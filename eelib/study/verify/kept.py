"""A study that only reads: its tables are the tidy datasets that are kept, its exhibits are drawn and not written.

Notebooks run on it as they are. So what they show is made anew from the data, by the same code, and can be held against what is kept.
What needs more than the datasets, a model or recorded states, is read from the stages where there are some.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from eelib.errors import InputError
from eelib.report.figures import save_figure
from eelib.report.tables import save_table, shown
from eelib.study.datasets import COUNT, DATASETS
from eelib.study.exhibits import inputs_stamp, others_stamp
from eelib.study.node import Node
from eelib.study.node import Place as At
from eelib.study.store import RECORD, Artifact
from eelib.study.study import Study, as_node

SERVED = "09"  # talks to an endpoint, which is measured and not drawn


class Unread(InputError):
    """What is kept does not hold what is asked for."""


@dataclass(frozen=True)
class Drawn:
    """An exhibit made anew: its files' bytes by suffix, and the stamp that belongs under it, None where no stages are."""

    name: str
    stamp: str | None
    files: dict[str, bytes]


@dataclass(frozen=True)
class KeptStudy(Study):
    """A study that reads datasets and stages and writes nothing.

    Attributes
    ----------
    datasets: the rows of every dataset that is there, by name.
    stages: where the stages are; None where only datasets are kept.
    stamps: what the kept exhibits say under them, by name; only for those whose stages are not kept.
    drawn: what notebooks have drawn so far.
    """

    datasets: dict[str, pd.DataFrame] = field(default_factory=dict)
    stages: Path | None = None
    stamps: dict[str, str] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)

    # --- stages ---

    def find(self, node: Node, place: At) -> Artifact:
        """The stage at a place by its name, whatever code made it; Unread if there is none, or more than one."""
        name = node.stage_name(place)
        if self.stages is None:
            raise Unread(f"{name} is not kept: only the datasets are.")
        folder, own = (self.stages / name).parent, (self.stages / name).name
        length = len(own) + 13  # a dash and twelve signs of the key
        found = [
            path for path in folder.glob(f"{own}-*") if len(path.name) == length and (path / RECORD).exists()
        ]
        if len(found) != 1:
            raise Unread(f"{len(found)} stages are kept of {name}: allowed is one.")
        return Artifact(found[0], json.loads((found[0] / RECORD).read_text(encoding="utf-8"))["key"])

    def need(self, node: str | Node, **place: Any) -> Artifact:
        """A stage as it is kept."""
        if self.notebook == SERVED:
            raise Unread("No endpoint is started.")
        return self.find(as_node(node), place)

    def make(self, node: str | Node, **asked: Any) -> list[Artifact]:
        """All of a node as it is kept; nothing of a table whose stages are not, for `table_of` has its rows."""
        if self.stages is None and as_node(node).is_table:
            return []
        return [self.find(as_node(node), place) for place in self.places(node, **asked)]

    def inputs(self, *nodes: str | Node, **asked: Any) -> list[Artifact]:
        """As a study's, of the stages that are kept."""
        found = []
        for node in map(as_node, nodes):
            here = {axis: value for axis, value in asked.items() if axis in node.axes}
            found += [self.find(node, place) for place in self.places(node, **here)]
        return found

    # --- tables ---

    def table_of(self, node: str | Node, **asked: Any) -> pd.DataFrame:
        """A node's rows in its dataset, in the order of its places, without columns of which it has none."""
        node = as_node(node)
        if node.dataset not in self.datasets:
            raise Unread(f"The dataset {node.dataset} is not kept.")
        rows = self.datasets[node.dataset]
        rows = rows[rows["node"] == node.name].drop(columns="node")
        parts = [rows[_at(rows, place)] for place in self.places(node, **asked)]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        # Beside other nodes' gaps a count is read as a number.
        counts = [
            name for name in table if DATASETS[node.dataset][name][0] == COUNT and table[name].notna().all()
        ]
        return table.astype(dict.fromkeys(counts, int))

    # --- exhibits ---

    def figure(
        self, figure: Figure, name: str, *nodes: str | Node, published_by: str | None = None, **asked: Any
    ) -> Figure:
        """Keep the figure among what was drawn."""
        stamp = others_stamp(published_by) if published_by else self._stamp(*nodes, **asked)
        self._draw(name, stamp, lambda folder, text: save_figure(figure, name, folder, text))
        return figure

    def table(
        self,
        frame: pd.DataFrame,
        name: str,
        *nodes: str | Node,
        floats: dict[str, str] | None = None,
        published_by: str | None = None,
        **asked: Any,
    ) -> Styler:
        """Keep the table among what was drawn."""
        stamp = others_stamp(published_by) if published_by else self._stamp(*nodes, **asked)
        self._draw(name, stamp, lambda folder, text: save_table(frame, name, folder, text, floats or {}))
        return shown(frame, floats)

    def _stamp(self, *nodes: str | Node, **asked: Any) -> str | None:
        """What belongs under an exhibit; None where that cannot be told."""
        if not nodes:
            return None  # the commit that was checked out, which no stage keeps
        try:
            inputs = self.inputs(*nodes, **asked)
        except Unread:
            return None
        commits = [artifact.record["commit"] for artifact in inputs]
        return inputs_stamp(self.variant, [artifact.key for artifact in inputs], commits)

    def _draw(self, name: str, stamp: str | None, save: Callable[[str, str], list[Path]]) -> None:
        with TemporaryDirectory() as folder:
            written = save(folder, stamp or self.stamps.get(name, ""))
            self.drawn.append(Drawn(name, stamp, {path.suffix: path.read_bytes() for path in written}))


def _at(rows: pd.DataFrame, place: At) -> pd.Series:
    """Which rows are at a place."""
    here = pd.Series(True, index=rows.index)
    for axis, value in place.items():
        near = (rows[axis] - value).abs() < 1e-9 if isinstance(value, float) else rows[axis] == value
        here &= near.fillna(False)
    return here


def read_datasets(results: Path, suffix: str) -> dict[str, pd.DataFrame]:
    """The datasets that are there, by name."""
    paths = {name: results / f"{name}{suffix}" for name in DATASETS}
    return {name: pd.read_parquet(path) for name, path in paths.items() if path.exists()}
