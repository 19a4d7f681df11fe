"""A stage of notebook 04: what each observation candidate of Table 5.1 costs to have."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from eelib.decoding.cache import KeyValueCache
from eelib.evaluation.decisions import costs
from eelib.evaluation.energy import EnergyMonitor
from eelib.models.parts import ModelParts
from eelib.pipeline.models import fine_tuned, load_kind
from eelib.pipeline.study import Study
from eelib.report import thesis_numbers
from eelib.study.stages import Artifact, Stage

VOTERS = 3  # preceding exit points whose predictions are compared
LAYER = "one decoder layer, cached"
MOST_STATES = 500  # two of the candidates look at the vocabulary, up to 10 ms each on a CPU


def observation_cost(study: Study, model: str, language: str) -> Artifact:
    """Time and energy of making each candidate from a state that is there, and of one layer beside: `costs.parquet`."""
    tuned = fine_tuned(study, model, language)
    count, context = min(study.profile.evaluation.decisions, MOST_STATES), study.profile.context.max_tokens
    stage = Stage(
        f"observation_cost/{model}-{language}",
        layer="evaluation",
        config={"count": count, "context": context, "dtype": study.profile.dtype},
        inputs=(tuned,),
    )

    def measure(folder: Path) -> None:
        parts, _ = load_kind(study, model, language, "aggregated")
        methods = candidates(parts, context)
        table = costs(methods, parts.width, count, EnergyMonitor(), parts.device, study.dtype)
        table.to_parquet(folder / "costs.parquet", index=False)

    return study.stage(stage, "04", measure, timed=True)


def candidates(parts: ModelParts, context: int) -> dict[str, Callable[[Tensor], object]]:
    """How each candidate of Table 5.1 is made from a (1, D) state; the names are the thesis's.

    The layer beside them attends to `context` cached positions and its own.
    """
    cache = KeyValueCache(parts, 1, context + 1)
    layer = parts.fused.layers[0]
    rotation = parts.fused.rotation(torch.tensor([[context]], device=parts.device))

    def one_layer(state: Tensor) -> Tensor:
        cache.lengths[0] = context
        return layer(state[None], rotation, cache)

    return {
        "Confidence": lambda state: parts.logits(state).softmax(-1).amax(-1),
        "Current layer": lambda state: None,
        "Last token": lambda state: None,
        "Prediction of current layer and token": lambda state: parts.logits(state).argmax(-1),
        "Hidden State of current layer": lambda state: None,
        "Prediction of preceding X layers": lambda state: parts.logits(state.expand(VOTERS, -1)).argmax(-1),
        LAYER: one_layer,
    }


def observation_frame(study: Study, model: str, language: str) -> pd.DataFrame:
    """Table 5.1: the thesis's judgement of each candidate, and what it takes here.

    Columns: `microseconds`; `of_a_layer`, the share of a decoder layer that attends to `cached_positions`, the longest
    context of the profile.
    """
    measured = pd.read_parquet(observation_cost(study, model, language).path / "costs.parquet")
    measured = measured.set_index("method")
    # A candidate that is there already costs what calling an empty function does, give or take the timer.
    measured = (measured - measured.loc["Hidden State of current layer"]).clip(lower=0)
    printed = thesis_numbers.load("table_5_1")
    frame = printed.join(measured, on="observation")
    frame["of_a_layer"] = frame["microseconds"] / measured.loc[LAYER, "microseconds"]
    return frame.assign(cached_positions=study.profile.context.max_tokens, model=model)
