"""The reward of exiting and continuing: the thesis's (Eq. 5.1 and 5.2), and two others to compare it with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eelib.errors import InputError
from eelib.models.exits import FIRST_EXIT


@dataclass(frozen=True)
class RewardCoefficients:
    """Trade-off of the reward, each in [0, 1] with alpha <= beta (InputError otherwise).

    alpha: price of leaving late; beta: of leaving too early; gamma: of going on for nothing; epsilon: of the rare exit
    after the optimal layer with another token.
    """

    alpha: float
    beta: float
    gamma: float
    epsilon: float

    def __post_init__(self):
        for name in ("alpha", "beta", "gamma", "epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"The reward's {name} is {getattr(self, name)}: allowed are values from 0 to 1."
                )
        if self.alpha > self.beta:
            raise InputError(
                f"The reward's alpha is {self.alpha}, more than its beta {self.beta}: it may not be."
            )


def exit_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    correct: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """Reward of exiting (Eq. 5.1).

    Parameters
    ----------
    layer: layer of the exit, counted 1..L. All arrays have the same shape.
    optimal: the first exit point (or L) whose prediction equals the last layer's.
    correct: bool, whether this layer's prediction equals the last layer's.
    longest: distance in layers that a penalty of -1 stands for: L minus the first exit point, the longest there is. It
        scales the penalties into [-1, 0).

    Returns
    -------
    float64 rewards: 1 at the optimal layer; `-(l - l_opt) / longest * alpha` if correct but late;
    `-(l_opt - l) / longest * beta` if wrong and early; -epsilon otherwise.
    """
    distance = np.abs(layer - optimal) / longest
    return np.select(
        [correct & (layer == optimal), correct, layer < optimal],
        [np.ones_like(distance), -distance * coefficients.alpha, -distance * coefficients.beta],
        -coefficients.epsilon,
    )


def continue_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    following: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """Reward of continuing (Eq. 5.2): 1 before the optimal layer, else `-(l_next - l_opt) / longest * gamma`.

    `following` is the next exit point, or L after the last one; the rest as in `exit_reward`.
    """
    return np.where(layer < optimal, 1.0, -(following - optimal) / longest * coefficients.gamma)


def position_scaled_exit_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    correct: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """`exit_reward`, where a right exit earns more the deeper it is: `1 + (l - l_1) / longest` of the first exit point l_1.

    Deep exits end long trajectories of which few are met in training (Section 5.2); their share of what is earned grows.
    """
    reward = exit_reward(layer, optimal, correct, coefficients, longest)
    return np.where(correct & (layer == optimal), reward + _position(layer, longest), reward)


def position_scaled_continue_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    following: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """`continue_reward`, where a right continuation earns more the deeper it is, as exits do."""
    reward = continue_reward(layer, optimal, following, coefficients, longest)
    return np.where(layer < optimal, reward + _position(layer, longest), reward)


def _position(layer: np.ndarray, longest: int) -> np.ndarray:
    """How far a layer lies from the first exit point to the last layer, in [0, 1)."""
    return (layer - FIRST_EXIT) / longest


def expected_cost_exit_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    correct: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """The cost of a token that is not the last layer's: -beta if so, else 0. What layers cost is paid by continuing."""
    return np.where(correct, 0.0, -coefficients.beta)


def expected_cost_continue_reward(
    layer: np.ndarray,
    optimal: np.ndarray,
    following: np.ndarray,
    coefficients: RewardCoefficients,
    longest: int,
) -> np.ndarray:
    """The price of the layers up to the next stop, `-(l_next - l) / longest * alpha`: alpha buys all layers.

    With a discount of 1 the return of a token is minus its expected cost, beta for a wrong token and alpha for full depth.
    """
    return -(following - layer) / longest * coefficients.alpha


class Reward(NamedTuple):
    """What the environment pays; functions of the signatures of `exit_reward` and `continue_reward`."""

    exit: Callable[..., np.ndarray]
    proceed: Callable[..., np.ndarray]


PRINTED = Reward(exit_reward, continue_reward)
REWARDS = {
    "printed": PRINTED,
    "position-scaled": Reward(position_scaled_exit_reward, position_scaled_continue_reward),
    "expected-cost": Reward(expected_cost_exit_reward, expected_cost_continue_reward),
}
