"""The reward of exiting and continuing (thesis, Eq. 5.1 and 5.2)."""

from dataclasses import dataclass

import numpy as np

from eelib.study.errors import InputError


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
