"""What the claims are judged on, from an opened study: its datasets, what was recorded for them, and what a token costs."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from eelib.data.statistics import files_frame
from eelib.evaluation.claims.results import Results
from eelib.evaluation.cost import criterion_prices, look_price, policy_flops, stop_prices
from eelib.models.exits import exit_points
from eelib.models.loading import load_config
from eelib.report.naming import family
from eelib.rl.trained import rewards
from eelib.study.graph import NODES
from eelib.study.node import Node
from eelib.study.study import Study, as_node


def gathered(study: Study, **beside: pd.DataFrame) -> Results:
    """All of a study; MissingStage says what has not been run. `beside` are datasets of no node of the graph, by name."""
    frames = _datasets(study, [node for node in NODES.values() if node.is_table])
    frames |= {"optimal": _optimal(study), "episodes": _episodes(study), "files": _files(study)} | beside
    looks = {name: _looks(study, name) for name in study.profile.models}
    return Results(
        frames,
        study.settings,
        {name: family(name) for name in study.profile.models},
        {name: prices for name, (prices, _, _) in looks.items()},
        {name: flops for name, (_, flops, _) in looks.items()},
        {name: price for name, (_, _, price) in looks.items()},
        hub=study.profile.data.source == "hub",
    )


def of_nodes(study: Study, *nodes: str | Node, **beside: pd.DataFrame) -> Results:
    """Some nodes of a study, for what a notebook can say before all of it has run: without what a token costs."""
    families = {name: family(name) for name in study.profile.models}
    hub = study.profile.data.source == "hub"
    return Results(_datasets(study, map(as_node, nodes)) | beside, study.settings, families, hub=hub)


def _datasets(study: Study, nodes: Iterable[Node]) -> dict[str, pd.DataFrame]:
    """The rows of some nodes by dataset."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for node in nodes:
        if len(rows := study.table_of(node)):
            parts.setdefault(node.dataset, []).append(rows.assign(node=node.name))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _looks(study: Study, model: str) -> tuple[dict[int, float], int, float]:
    """Price of a token by exit layer, decisions included; FLOPs of a decision; its price. After the profile's longest context."""
    config, positions = load_config(model), study.profile.context.max_tokens
    agent = study.load("agent", model=model, language=study.profile.languages[0], seed=0)
    layers = config.num_hidden_layers
    stops = np.array([*exit_points(layers), layers])
    look = look_price(config, layers, positions, agent)
    everywhere = np.ones(len(stops) - 1, dtype=bool)
    prices = criterion_prices(stop_prices(config, stops, positions), look, everywhere, says=False)
    return dict(zip(stops.tolist(), prices.tolist(), strict=True)), policy_flops(agent), look


def _optimal(study: Study) -> pd.DataFrame:
    """A row a token of the recorded training completions: its optimal exit."""
    tables = []
    for model, language in study.settings:
        layers = study.load("rollouts", model=model, language=language, split="train").optimal_exits
        prompts = np.repeat(np.arange(len(layers)), layers.shape[1])
        rows = {"model": model, "language": language, "prompt": prompts, "layer": layers.ravel()}
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


def _episodes(study: Study) -> pd.DataFrame:
    places = zip(study.places("agent"), study.make("agent"), strict=True)
    return pd.concat(
        [rewards(pd.read_parquet(made.path / "log.parquet")).assign(**place) for place, made in places],
        ignore_index=True,
    )


def _files(study: Study) -> pd.DataFrame:
    return files_frame({name: study.load("corpus", language=name) for name in study.profile.languages})
