"""What a captured decoder must know of a criterion: the layer beforehand, or what to ask the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from eelib.decoding.criteria import (
    Agent,
    Confidence,
    Entropy,
    ExitCriterion,
    ExitState,
    FixedLayer,
    FullDepth,
    Scripted,
    Shadowed,
)
from eelib.errors import InputError


def scripted_layer(criterion: ExitCriterion, token: int, total_layers: int) -> int | None:
    """The layer that a token leaves at where the host knows it beforehand, else None."""
    match criterion:
        case FullDepth():
            return total_layers
        case FixedLayer(layer):
            return layer
        case Scripted(layers):
            return layers[0][token]
        case Shadowed(_, script):
            return script.layers[0][token]
    return None


def asked_criterion(criterion: ExitCriterion) -> ExitCriterion | None:
    """The criterion that looks at states and is captured, if any; one that cannot be captured gives InputError."""
    if isinstance(criterion, FullDepth | FixedLayer | Scripted):
        return None
    asked = criterion.asked if isinstance(criterion, Shadowed) else criterion
    if not isinstance(asked, Agent | Confidence | Entropy):
        raise InputError(
            f"{type(asked).__name__} cannot be captured as a CUDA graph: allowed are FullDepth, FixedLayer, Scripted, "
            "Agent, Confidence and Entropy."
        )
    return asked


def ask(asked: ExitCriterion, decode: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """What a criterion says of (1, D) states: (1,) uint8."""
    return asked.exits(ExitState(decode, hidden)).to(torch.uint8)
