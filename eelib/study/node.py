"""What a node of the study's graph is: a function, what it is computed from, and what decides its result.

A node stands for many stages, one for each place: a model, a language, a seed and so on, as its axes say. Its function is an
ordinary one, and its signature is the contract. An argument is

- an axis: the place's value (`language`), or a list of values where they are made together (`thresholds`);
- an input: what another node made, loaded (`corpus`), or its key (`tuned_key`);
- a field of the profile, by its last name (`evaluation.samples` is `samples`);
- `folder`: where to write. A function without it gives a table, which is kept with the place's values as columns.

So a function cannot read what its stage's key does not hold.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from eelib.profile import Profile

Place = dict[str, Any]  # axis -> value
TABLE = "table.parquet"


def read_table(folder: Path, profile: Profile) -> pd.DataFrame:
    """The table that a stage keeps."""
    return pd.read_parquet(folder / TABLE)


@dataclass(frozen=True)
class Input:
    """Where an input comes from.

    Attributes
    ----------
    node: its name.
    at: values of its axes; the others are those of the place that asks.
    over: an axis of which all values are taken, in a dictionary by value.
    unread: hand over its folder instead of loading it.
    """

    node: str
    at: Place = field(default_factory=dict)
    over: str | None = None
    unread: bool = False


@dataclass(frozen=True)
class Node:
    """One kind of thing that the study makes.

    Attributes
    ----------
    name: its folder below `results/<profile>/stages`.
    notebook: the one that makes it; later ones find it.
    function: what makes it.
    axes: what its places differ in.
    inputs: argument -> where it comes from.
    fields: of the profile, by dotted name; `name=dotted` gives the argument another name, `{axis}` stands for the place's
        value, and `section without a b` is a whole section with some fields set to None.
    where: whether a place belongs to the study.
    given: further arguments that no field holds, such as the hashes of files; part of the key.
    ready: what is taken as it is there already, as arguments of `take`; then neither fields nor inputs decide.
    timed: its result belongs to the threads and the kind of device that measured it, and nothing may run beside it.
    together: an axis whose missing values are made in one call.
    load: what an input of this node is, from its folder; `loaded_by` are the fields that `load` takes into account.
    dataset: the tidy dataset that its table is a part of.
    """

    name: str
    notebook: str
    function: Callable
    axes: tuple[str, ...] = ()
    inputs: Mapping[str, Input] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    where: Callable[[Profile, Place], bool] = lambda profile, place: True
    given: Callable[[Profile, Place], dict] = lambda profile, place: {}
    ready: Callable[[Profile, Place], dict | None] = lambda profile, place: None
    take: Callable | None = None
    timed: bool = False
    together: str | None = None
    load: Callable[[Path, Profile], Any] = read_table
    loaded_by: tuple[str, ...] = ()
    dataset: str = ""

    @property
    def arguments(self) -> list[str]:
        """Names of the function's arguments that have no default."""
        parameters = inspect.signature(self.function).parameters.values()
        return [item.name for item in parameters if item.default is inspect.Parameter.empty]

    @property
    def is_table(self) -> bool:
        """Whether its result is a table."""
        return "folder" not in self.arguments

    def stage_name(self, place: Place) -> str:
        """`agent/opt-pico-java-seed0`."""
        where = "-".join(_text(axis, place[axis]) for axis in self.axes)
        return f"{self.name}/{where or self.name}"

    def settings(self, profile: Profile, place: Place) -> dict[str, Any]:
        """The profile's fields that decide, by argument; a model has some for itself."""
        profile = profile.of(place["model"]) if "model" in place else profile
        return dict(_field(profile, text.format(**place)) for text in self.fields)


def _text(axis: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{axis}{value}"
    return re.sub(r"[^\w./+-]+", "_", value)


def _field(profile: Profile, text: str) -> tuple[str, Any]:
    name, _, dotted = text.rpartition("=")
    dotted, _, without = dotted.partition(" without ")
    value: Any = profile
    for part in dotted.split("."):
        value = getattr(value, part)
    if without:
        value = dataclasses.replace(value, **dict.fromkeys(without.split()))
    return name or dotted.rpartition(".")[2], value


def plain(value: Any) -> Any:
    """A setting as JSON takes it."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return value


def matches(place: Place, asked: Place) -> bool:
    """Whether a place has the values asked for."""
    return all(
        value == place[axis] or (isinstance(value, float) and math.isclose(value, place[axis]))
        for axis, value in asked.items()
    )


def products(axes: Mapping[str, list]) -> Iterator[Place]:
    """All combinations of some axes' values, the first axis slowest."""
    if not axes:
        yield {}
        return
    (axis, values), *rest = axes.items()
    for value in values:
        for place in products(dict(rest)):
            yield {axis: value} | place
