"""Exit criteria: given the states at an exit point, which rows stop here?

Everything else (caches, metrics, energy, notebooks) works with any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from eelib.decoding.policy import ExitPolicy, threshold_margin
from eelib.models.parts import ModelParts
from eelib.study.errors import InputError
from eelib.study.profile import check_threshold


@dataclass(frozen=True)
class ExitState:
    """What a criterion may look at.

    Attributes
    ----------
    hidden_states: (B, D) states of the current token after `layer`, before the final norm.
    layer: an exit point, counted 1..L.
    token: index of the token being generated, from 0.
    logits: gives (B, V) logits decoded from these states; a head over the vocabulary, so costly.
    """

    hidden_states: Tensor
    layer: int
    token: int
    logits: Callable[[], Tensor]


class ExitCriterion(Protocol):
    """The interface of all criteria."""

    def check(self, parts: ModelParts) -> None:
        """InputError if the criterion does not fit the model."""

    def exits(self, state: ExitState) -> Tensor:
        """(B,) bool: rows that stop at this exit point."""


@dataclass(frozen=True)
class FullDepth:
    """Never stops: the full model."""

    def check(self, parts: ModelParts) -> None:
        pass

    def exits(self, state: ExitState) -> Tensor:
        return torch.zeros(len(state.hidden_states), dtype=torch.bool, device=state.hidden_states.device)


@dataclass(frozen=True)
class FixedLayer:
    """Always stops at one layer (an exit point, or the last)."""

    layer: int

    def check(self, parts: ModelParts) -> None:
        allowed = [*parts.exit_points, parts.total_layers]
        if self.layer not in allowed:
            raise InputError(f"The fixed exit layer is {self.layer}: this model can stop at {allowed}.")

    def exits(self, state: ExitState) -> Tensor:
        return torch.full(
            (len(state.hidden_states),),
            state.layer == self.layer,
            dtype=torch.bool,
            device=state.hidden_states.device,
        )


@dataclass(frozen=True)
class Scripted:
    """Stops where a recorded run stopped: row b's token t at `layers[b][t]`. Replays a trace without its decisions."""

    layers: list[list[int]]

    def check(self, parts: ModelParts) -> None:
        allowed = {*parts.exit_points, parts.total_layers}
        for trace in self.layers:
            if not allowed.issuperset(trace):
                raise InputError(
                    f"A scripted exit is at none of this model's layers {sorted(allowed)}: {trace}."
                )

    def exits(self, state: ExitState) -> Tensor:
        return self._table.to(state.hidden_states.device)[:, state.token] == state.layer

    @cached_property
    def _table(self) -> Tensor:
        """(B, T) exit layers; made once, so that replaying a trace costs a comparison."""
        return torch.tensor(self.layers)


@dataclass(frozen=True)
class Agent:
    """Stops where the policy's probability of exiting is above a threshold (Section 5.3)."""

    policy: ExitPolicy
    threshold: float
    temperature: float = 1.0

    def check(self, parts: ModelParts) -> None:
        check_threshold(self.threshold)
        if self.policy.width != parts.width:
            raise InputError(
                f"The agent reads states of width {self.policy.width}; the model's have {parts.width}."
            )

    def exits(self, state: ExitState) -> Tensor:
        return self.policy.margin(state.hidden_states) > threshold_margin(self.threshold, self.temperature)


@dataclass(frozen=True)
class Confidence:
    """Stops where the largest softmax probability of the intermediate logits is above a threshold (CALM, Sec. 3.5)."""

    threshold: float

    def check(self, parts: ModelParts) -> None:
        check_threshold(self.threshold)

    def exits(self, state: ExitState) -> Tensor:
        return state.logits().float().softmax(-1).amax(-1) > self.threshold
