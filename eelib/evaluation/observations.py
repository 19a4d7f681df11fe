"""What each observation candidate of Table 5.1 costs to have."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from eelib.decoding.cache import KeyValueCache
from eelib.evaluation.decisions import costs
from eelib.evaluation.energy import EnergyMonitor
from eelib.models.loading import CodeModel
from eelib.models.parts import ModelParts

VOTERS = 3  # preceding exit points whose predictions are compared
LAYER = "one decoder layer, cached"
MOST_STATES = 300  # two of the candidates look at the vocabulary, up to 10 ms each on a CPU


def observation_cost(tuned: CodeModel, decisions: int, max_tokens: int) -> pd.DataFrame:
    """Time and energy of making each candidate from a state that is there, and of one layer beside: rows of
    `decisions.costs`, over at most `decisions` states."""
    parts = tuned.parts
    methods, count = candidates(parts, max_tokens), min(decisions, MOST_STATES)
    return costs(methods, parts.width, count, EnergyMonitor(), parts.device, parts.model.dtype)


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


def observation_frame(measured: pd.DataFrame, printed: pd.DataFrame, max_tokens: int) -> pd.DataFrame:
    """Table 5.1: the thesis's judgement of each candidate (`printed`), and what it takes here.

    Columns: `microseconds`; `of_a_layer`, the share of a decoder layer that attends to `cached_positions`, the longest
    context of the profile.
    """
    by_method = measured.set_index("method")[["microseconds", "joules"]]
    # A candidate that is there already costs what calling an empty function does, give or take the timer.
    by_method = (by_method - by_method.loc["Hidden State of current layer"]).clip(lower=0)
    frame = printed.join(by_method, on="observation")
    frame["of_a_layer"] = frame["microseconds"] / by_method.loc[LAYER, "microseconds"]
    return frame.assign(cached_positions=max_tokens)
