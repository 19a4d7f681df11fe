"""Exit criteria: given the states at an exit point, which rows stop here?

Everything else (caches, metrics, energy, notebooks) works with any of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.checks import check_threshold
from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.models.parts import ModelParts


@dataclass(slots=True)
class ExitState:
    """What a criterion may look at. One object serves a whole decoding: the decoder fills it anew at every exit point.

    Attributes
    ----------
    decode: (B, D) states -> (B, V) logits, by the model's own norm and head.
    hidden_states: (B, D) states of the current token after `layer`, before the final norm.
    previous: those at the exit point before, None at the first.
    layer: an exit point, counted 1..L.
    token: index of the token being generated, from 0.
    """

    decode: Callable[[Tensor], Tensor]
    hidden_states: Tensor | None = None
    previous: Tensor | None = None
    layer: int = 0
    token: int = 0

    def logits(self) -> Tensor:
        """(B, V) logits decoded from these states: a head over the vocabulary, so costly."""
        return self.decode(self.hidden_states)


class ExitCriterion(Protocol):
    """The interface of all criteria. A further action, such as ending the completion, would be a further method."""

    def check(self, parts: ModelParts) -> None:
        """InputError if the criterion does not fit the model."""

    def exits(self, state: ExitState) -> Tensor | bool:
        """(B,) bool: rows that stop at this exit point; a plain bool stands for all of them."""


@dataclass(frozen=True)
class FullDepth:
    """Never stops: the full model."""

    def check(self, parts: ModelParts) -> None:
        pass

    def exits(self, state: ExitState) -> bool:
        return False


@dataclass(frozen=True)
class FixedLayer:
    """Always stops at one layer (an exit point, or the last)."""

    layer: int

    def check(self, parts: ModelParts) -> None:
        allowed = [*parts.exit_points, parts.total_layers]
        if self.layer not in allowed:
            raise InputError(f"The fixed exit layer is {self.layer}: this model can stop at {allowed}.")

    def exits(self, state: ExitState) -> bool:
        return state.layer == self.layer


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

    def exits(self, state: ExitState) -> Tensor | bool:
        if len(self.layers) == 1:  # nothing that a GPU would have to be asked
            return self.layers[0][state.token] == state.layer
        return self._table.to(state.hidden_states.device)[:, state.token] == state.layer

    @cached_property
    def _table(self) -> Tensor:
        """(B, T) exit layers; made once, so that replaying a trace costs a comparison."""
        return torch.tensor(self.layers)


@dataclass(frozen=True)
class Agent:
    """Stops where the policy's probability of exiting is above a threshold (Section 5.3), or, of a priced policy, where
    exiting is worth more at the threshold's price.

    A decision is the policy's products on the states where they are, and one comparison with a constant.
    """

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
        policy, margin = self._rule
        return policy.margin(state.hidden_states) > margin

    @cached_property
    def _rule(self) -> tuple[ExitPolicy, float]:
        return self.policy.at(self.threshold, self.temperature)


@dataclass(frozen=True)
class Shadowed:
    """Asks a criterion at every exit point and waits for its answer, but stops where a script says.

    What deciding costs at a known depth, on a model whose states mean nothing.
    """

    asked: ExitCriterion
    script: Scripted

    def check(self, parts: ModelParts) -> None:
        self.asked.check(parts)
        self.script.check(parts)

    def exits(self, state: ExitState) -> Tensor | bool:
        answer = self.asked.exits(state)
        if isinstance(answer, Tensor):
            answer.tolist()
        return self.script.exits(state)


@dataclass(frozen=True)
class Confidence:
    """Stops where the largest softmax probability of the intermediate logits is above a threshold (CALM, Sec. 3.5)."""

    threshold: float

    def check(self, parts: ModelParts) -> None:
        check_threshold(self.threshold)

    def exits(self, state: ExitState) -> Tensor:
        return state.logits().float().softmax(-1).amax(-1) > self.threshold


@dataclass(frozen=True)
class Entropy:
    """Stops where the entropy of the intermediate prediction, as a share of its maximum log V, is below a threshold.

    BERxiT and DeeBERT (Xin et al. 2020) stop by entropy; here it lies in [0, 1] whatever the vocabulary.
    """

    threshold: float

    def check(self, parts: ModelParts) -> None:
        check_threshold(self.threshold)

    def exits(self, state: ExitState) -> Tensor:
        logits = state.logits().float()
        log_probabilities = logits.log_softmax(-1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        return entropy / math.log(logits.shape[-1]) < self.threshold


@dataclass(frozen=True)
class Saturation:
    """Stops where the state has stopped turning: cosine similarity to that of the exit point before above a threshold.

    CALM's hidden-state saturation (Schuster et al. 2022, Sec. 3.5), over exit points. Never stops at the first one.
    """

    threshold: float

    def check(self, parts: ModelParts) -> None:
        check_threshold(self.threshold)

    def exits(self, state: ExitState) -> Tensor | bool:
        if state.previous is None:
            return False
        return F.cosine_similarity(state.hidden_states, state.previous, dim=-1) > self.threshold
