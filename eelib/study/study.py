"""The study under one profile: its stages, made or found, their tables, and where figures and tables go."""

import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from eelib import paths, provenance
from eelib.errors import InputError
from eelib.profile import Profile
from eelib.report.figures import save_figure
from eelib.report.tables import save_table, shown
from eelib.rl.agent import one_thread
from eelib.study.datasets import write_rows
from eelib.study.exhibits import inputs_name, inputs_stamp, keep_exhibit, others_stamp
from eelib.study.graph import AXES, NODES
from eelib.study.node import TABLE, Input, Node, Place, matches, plain, products
from eelib.study.notebooks import notebooks
from eelib.study.store import Artifact, Stage, find, make

# Keys of the stages that `force` has made anew in this process: once is enough.
made_keys: set[str] = set()


class MissingStage(InputError):
    """A stage that an earlier notebook makes has not been made."""


@dataclass(frozen=True)
class Study:
    """An opened study. `profile` is already narrowed to the models, languages, thresholds and contexts asked for.

    Attributes
    ----------
    notebook: its number, "01" say; it makes the stages of its own nodes and only finds those of earlier notebooks.
    variant: name of the folders of its figures and tables: the profile's, or the profile's with what was overridden.
    force: make this notebook's stages anew.
    """

    notebook: str
    profile: Profile
    variant: str
    force: bool = False
    _stages: dict[str, Stage] = field(default_factory=dict, compare=False, repr=False)
    _published: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(model, language) of every setting."""
        return [(model, language) for model in self.profile.models for language in self.profile.languages]

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.profile.dtype)

    @property
    def contexts(self) -> list[Place]:
        """`model`, `language` and `context_fraction` of everything that is evaluated."""
        axes = ("model", "language", "context_fraction")
        return list(products({axis: AXES[axis](self.profile) for axis in axes}))

    @property
    def root(self) -> Path:
        """Where the stages are: runs with other settings share what these do not change."""
        return paths.results() / self.profile.name / "stages"

    # --- stages ---

    def places(self, node: str | Node, **asked: Any) -> list[Place]:
        """A node's places in this study that have the values asked for."""
        node = as_node(node)
        if unknown := set(asked) - set(node.axes):
            raise ValueError(f"{node.name} has the axes {list(node.axes)}, not {sorted(unknown)}")
        everywhere = products({axis: AXES[axis](self.profile) for axis in node.axes})
        return [place for place in everywhere if node.where(self.profile, place) and matches(place, asked)]

    def stage(self, node: Node, place: Place) -> Stage:
        """What decides the result of a node at a place; nothing is read but what is hashed."""
        name = node.stage_name(place)
        if name not in self._stages:
            ready = node.ready(self.profile, place)
            if ready is None:
                config = node.settings(self.profile, place) | node.given(self.profile, place)
                inputs = {
                    label: self.stage(source, where).key for label, source, where in self.sources(node, place)
                }
                for input in node.inputs.values():
                    config |= {
                        dotted: getattr(self.profile, dotted) for dotted in NODES[input.node].loaded_by
                    }
            else:
                config, inputs = ready, {}
            config = {key: plain(value) for key, value in config.items()} | {"place": place}
            if node.timed:
                device = "cuda" if torch.cuda.is_available() else "cpu"
                config |= {"threads": self.profile.threads, "device": device}
            code = provenance.code_hash(node.function.__module__)
            self._stages[name] = Stage(name, code, config, inputs)
        return self._stages[name]

    def sources(self, node: Node, place: Place) -> Iterable[tuple[str, Node, Place]]:
        """(label, node, place) of everything that a place reads."""
        for name, input in node.inputs.items():
            for source, where, value in self._places_of(input, place):
                yield name if value is None else f"{name} {value}", source, where

    def _places_of(self, input: Input, place: Place) -> Iterable[tuple[Node, Place, Any]]:
        source = NODES[input.node]
        shared = {axis: place[axis] for axis in source.axes if axis in place and axis not in input.at}
        if input.over is None:
            yield source, shared | input.at, None
            return
        for value in AXES[input.over](self.profile):
            yield source, shared | input.at | {input.over: value}, value

    def need(self, node: str | Node, **place: Any) -> Artifact:
        """What a node has at one place: found, or made if it is this notebook's; else MissingStage says which one makes it."""
        node = as_node(node)
        return self._made(node, [place])[0]

    def make(self, node: str | Node, **asked: Any) -> list[Artifact]:
        """All of a node that has the values asked for, in the order of its axes, found or made.

        What is not timed is made with one thread, so that a result is the same however many jobs run beside it.
        """
        node = as_node(node)
        places = self.places(node, **asked)
        with nullcontext() if node.timed else one_thread():
            artifacts = [made for some in grouped(node, places) for made in self._made(node, some)]
        self._publish(node, places, artifacts)
        return artifacts

    def missing(self, node: Node, places: list[Place]) -> list[Place]:
        """Places that have to be made: those that are not there, and with `force` those that this run has not made."""
        force = self.force and node.notebook == self.notebook
        stages = [(place, self.stage(node, place)) for place in places]
        return [
            place
            for place, stage in stages
            if (force and stage.key not in made_keys) or find(stage, self.root) is None
        ]

    def _made(self, node: Node, places: list[Place]) -> list[Artifact]:
        """Find or make some places that one call may make together."""
        missing = self.missing(node, places)
        if missing and node.notebook != self.notebook:
            raise MissingStage(
                f"{node.stage_name(missing[0])} is missing for the {self.profile.name} profile as it is configured now: run "
                f"notebooks/{notebooks()[node.notebook].name} first (./run_all.sh --profile {self.profile.name} --only {node.notebook})."
            )
        call = _Call(self, node, missing)
        for place in missing:
            stage = self.stage(node, place)
            make(stage, self.root, partial(call.write, place), self.force)
            made_keys.add(stage.key)
        return [find(self.stage(node, place), self.root) for place in places]

    def load(self, node: str, **place: Any) -> Any:
        """What a node has at one place, as other nodes are given it."""
        return NODES[node].load(self.need(node, **place).path, self.profile)

    def table_of(self, node: str | Node, **asked: Any) -> pd.DataFrame:
        """The rows of a node at all places that have the values asked for; these stand in columns of their own."""
        tables = [pd.read_parquet(artifact.path / TABLE) for artifact in self.make(node, **asked)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def arguments(self, node: Node, place: Place) -> dict[str, Any]:
        """What a node's function is called with at a place, but for `folder`."""
        given = place | node.settings(self.profile, place) | node.given(self.profile, place)
        wanted = set(node.arguments)
        for name, input in node.inputs.items():
            if not {name, f"{name}_key"} & wanted:
                continue
            loaded = {}
            for source, where, value in self._places_of(input, place):
                artifact = replace(self, force=False).need(source, **where)  # made anew when it is asked for
                given[f"{name}_key"] = artifact.key
                if name in wanted:
                    unread = input.unread
                    loaded[value] = artifact.path if unread else source.load(artifact.path, self.profile)
            given[name] = loaded if input.over else loaded.get(None)
        return {name: value for name, value in given.items() if name in wanted}

    def _publish(self, node: Node, places: list[Place], artifacts: list[Artifact]) -> None:
        """Write tables into the dataset that `pandas.read_parquet("results/<variant>/<dataset>")` reads."""
        if not node.is_table:
            return
        folder = paths.results() / self.variant / node.dataset
        folder.mkdir(parents=True, exist_ok=True)
        for place, artifact in zip(places, artifacts, strict=True):
            part = folder / f"{node.stage_name(place).replace('/', '-')}.parquet"
            if self._published.get(part) != artifact.key:
                write_rows(pd.read_parquet(artifact.path / TABLE), node.name, node.dataset, part)
                self._published[part] = artifact.key

    # --- exhibits ---

    def inputs(self, *nodes: str | Node, **asked: Any) -> list[Artifact]:
        """Artifacts of some nodes, each at those of the values asked for that it has axes for."""
        return [
            artifact
            for node in map(as_node, nodes)
            for artifact in self.make(
                node, **{axis: value for axis, value in asked.items() if axis in node.axes}
            )
        ]

    def stamp(self, *nodes: str | Node, **asked: Any) -> str:
        """Profile, commit and inputs of an exhibit, as its footer says them.

        The commits are those that made the inputs. What their hash stands for is in `results/<profile>/stamps/`.
        """
        if not nodes:
            return f"{self.variant} profile · commit {provenance.commit()} · from the configuration alone"
        inputs = sorted(self.inputs(*nodes, **asked), key=lambda artifact: artifact.key)
        keys = [artifact.key for artifact in inputs]
        kept = self.root.with_name("stamps") / f"{inputs_name(keys)}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([paths.shown(artifact.path) for artifact in inputs], indent=1) + "\n")
        return inputs_stamp(self.variant, keys, [artifact.record["commit"] for artifact in inputs])

    def figure(
        self, figure: Figure, name: str, *nodes: str | Node, published_by: str | None = None, **asked: Any
    ) -> Figure:
        """Save a figure as PNG and PDF with the stamp of the nodes it shows, and return it for the notebook to show.

        One of others' published numbers says whose they are instead (`published_by`).
        """
        stamp = self.stamp(*nodes, **asked) if published_by is None else others_stamp(published_by)
        files = save_figure(figure, name, paths.figures() / self.variant, stamp)
        keep_exhibit(paths.results() / self.variant, name, stamp, files)
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
        """Save a table as CSV and Markdown with its stamp, as `figure` does, and return it for the notebook to show."""
        stamp = self.stamp(*nodes, **asked) if published_by is None else others_stamp(published_by)
        files = save_table(frame, name, paths.tables() / self.variant, stamp, floats or {})
        keep_exhibit(paths.results() / self.variant, name, stamp, files)
        return shown(frame, floats)


class _Call:
    """One call of a node's function for one place, or for several that are made together."""

    def __init__(self, study: Study, node: Node, places: list[Place]):
        self.study, self.node, self.places = study, node, places
        self.rows: pd.DataFrame | None = None

    def write(self, place: Place, folder: Path) -> None:
        """Make what belongs into a place's folder."""
        node = self.node
        ready = node.ready(self.study.profile, place)
        if ready is not None:
            node.take(**ready, folder=folder)
        elif not node.is_table:
            node.function(**self.study.arguments(node, place), folder=folder)
        else:
            self._table(place).to_parquet(folder / TABLE, index=False)

    def _table(self, place: Place) -> pd.DataFrame:
        node = self.node
        if self.rows is None:
            arguments = self.study.arguments(node, self.places[0])
            if node.together:
                arguments[f"{node.together}s"] = [other[node.together] for other in self.places]
            self.rows = node.function(**arguments)
        rows = self.rows
        if node.together:
            rows = rows[rows[node.together] == place[node.together]]
        columns = {axis: value for axis, value in place.items() if axis != node.together}
        rows = rows.assign(**columns)
        return rows[[*columns, *rows.columns.drop(list(columns))]]


def as_node(node: str | Node) -> Node:
    """A node by name; one that stands beside the graph, as the endpoint's, is itself."""
    return NODES[node] if isinstance(node, str) else node


def grouped(node: Node, places: list[Place]) -> list[list[Place]]:
    """Places that one call may make together, in order."""
    groups: dict[tuple, list[Place]] = {}
    for place in places:
        apart = tuple(value for axis, value in place.items() if axis != node.together)
        groups.setdefault(apart, []).append(place)
    return list(groups.values())
