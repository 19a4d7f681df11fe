"""The reward, case by case against a table computed by hand from Eq. 5.1 and 5.2."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eelib.errors import InputError
from eelib.evaluation import reward_audit
from eelib.models.exits import exit_points
from eelib.rl.reward import REWARDS, RewardCoefficients, continue_reward, exit_reward
from eelib.rl.rollouts import Rollouts

COEFFICIENTS = RewardCoefficients(alpha=0.5, beta=0.75, gamma=0.6, epsilon=0.1)
LONGEST = 24  # of 28 layers: from layer 4 to layer 28

UNIT = st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    ("layer", "optimal", "correct", "reward"),
    [
        (4, 4, True, 1.0),
        (26, 26, True, 1.0),
        (6, 4, True, -(2 / 24) * 0.5),  # correct, late
        (26, 4, True, -(22 / 24) * 0.5),
        (4, 6, False, -(2 / 24) * 0.75),  # wrong, early
        (4, 28, False, -(24 / 24) * 0.75),
        (22, 26, False, -(4 / 24) * 0.75),
        (8, 4, False, -0.1),  # wrong after the optimal layer: the rare case
        (26, 22, False, -0.1),
    ],
)
def test_exiting_by_hand(layer, optimal, correct, reward):
    arrays = np.array(layer), np.array(optimal), np.array(correct)
    assert exit_reward(*arrays, COEFFICIENTS, LONGEST) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("layer", "optimal", "following", "reward"),
    [
        (4, 6, 6, 1.0),
        (4, 28, 6, 1.0),
        (26, 28, 28, 1.0),
        (4, 4, 6, -(2 / 24) * 0.6),  # on from the optimal layer itself
        (14, 14, 18, -(4 / 24) * 0.6),
        (14, 4, 18, -(14 / 24) * 0.6),
        (26, 4, 28, -(24 / 24) * 0.6),
        (26, 26, 28, -(2 / 24) * 0.6),
    ],
)
def test_continuing_by_hand(layer, optimal, following, reward):
    arrays = np.array(layer), np.array(optimal), np.array(following)
    assert continue_reward(*arrays, COEFFICIENTS, LONGEST) == pytest.approx(reward)


def test_arrays_are_rewarded_element_by_element():
    layer, optimal = np.array([[4, 6], [8, 26]]), np.array([[4, 4], [28, 22]])
    correct = np.array([[True, True], [False, False]])
    rewards = exit_reward(layer, optimal, correct, COEFFICIENTS, LONGEST)
    np.testing.assert_allclose(rewards, [[1, -0.5 * 2 / 24], [-0.75 * 20 / 24, -0.1]])
    rewards = continue_reward(layer, optimal, np.array([[6, 8], [10, 28]]), COEFFICIENTS, LONGEST)
    np.testing.assert_allclose(rewards, [[-0.6 * 2 / 24, -0.6 * 4 / 24], [1, -0.6 * 6 / 24]])


@given(st.sampled_from([8, 12, 28, 32]), UNIT, UNIT, UNIT, UNIT)
def test_rewards_lie_between_minus_one_and_one(total, a, b, gamma, epsilon):
    coefficients = RewardCoefficients(min(a, b), max(a, b), gamma, epsilon)
    layers = np.array([*exit_points(total), total])
    longest = total - layers[0]
    layer, optimal = np.meshgrid(layers[:-1], layers, indexing="ij")
    following = np.repeat(layers[1:, None], len(layers), axis=1)
    exits = [
        exit_reward(layer, optimal, np.full(layer.shape, c), coefficients, longest) for c in (True, False)
    ]
    rewards = np.stack([*exits, continue_reward(layer, optimal, following, coefficients, longest)])
    assert rewards.min() >= -1 and rewards.max() <= 1
    # Nothing but a right decision is rewarded.
    right = np.stack([layer == optimal, np.zeros_like(layer, bool), layer < optimal])
    assert (rewards[right] == 1).all() and (rewards[~right] <= 0).all()


def test_the_longest_distance_costs_the_whole_coefficient():
    everything = RewardCoefficients(1, 1, 1, 1)
    assert exit_reward(np.array(4), np.array(28), np.array(False), everything, 24) == -1
    assert continue_reward(np.array(26), np.array(4), np.array(28), everything, 24) == -1


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "epsilon"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_coefficients_out_of_range_are_one_sentence(name, value):
    coefficients = {"alpha": 0.0, "beta": 1.0, "gamma": 1.0, "epsilon": 0.1} | {name: value}
    with pytest.raises(InputError, match=f"reward's {name} is {value}: allowed are values from 0 to 1"):
        RewardCoefficients(**coefficients)


def test_leaving_late_may_not_cost_more_than_leaving_early():
    with pytest.raises(InputError, match=r"alpha is 0.6, more than its beta 0.5"):
        RewardCoefficients(0.6, 0.5, 0.5, 0.1)
    assert RewardCoefficients(0.5, 0.5, 0.5, 0.1).alpha == 0.5


def test_position_scaled_rewards_by_hand():
    reward = REWARDS["position-scaled"]
    layer, optimal = np.array([4, 16, 26, 26]), np.array([4, 16, 28, 6])
    # Right at 4 and at 16, half way to 28; too early and too late as printed: -2/24 beta and -20/24 alpha.
    assert reward.exit(layer, optimal, layer >= optimal, COEFFICIENTS, 24) == pytest.approx(
        [1, 1.5, -2 / 24 * COEFFICIENTS.beta, -20 / 24 * COEFFICIENTS.alpha]
    )
    following = np.array([6, 18, 28, 28])
    assert reward.proceed(layer, optimal + 2, following, COEFFICIENTS, 24)[:3] == pytest.approx(
        [1, 1.5, 1 + 22 / 24]
    )
    assert reward.proceed(layer, optimal, following, COEFFICIENTS, 24)[3] == pytest.approx(
        -22 / 24 * COEFFICIENTS.gamma
    )


def test_expected_cost_by_hand():
    reward = REWARDS["expected-cost"]
    layer, following, correct = np.array([4, 14, 26]), np.array([6, 18, 28]), np.array([True, False, True])
    assert reward.exit(layer, layer, correct, COEFFICIENTS, 24).tolist() == [0, -COEFFICIENTS.beta, 0]
    paid = reward.proceed(layer, layer, following, COEFFICIENTS, 24)
    assert paid == pytest.approx(-COEFFICIENTS.alpha * np.array([2, 4, 2]) / 24)
    # All layers from the first exit to the last cost alpha.
    stops = np.array([*exit_points(28), 28])
    whole = reward.proceed(stops[:-1], stops[:-1], stops[1:], COEFFICIENTS, 24)
    assert whole.sum() == pytest.approx(-COEFFICIENTS.alpha)


# --- the audit ---


def audited() -> Rollouts:
    """Two tokens at exits 4, 6, 10 of 12: the first is right at 6 and 10, the second at none."""
    right = np.array([[[False, True, True], [False, False, False]]])
    states = np.zeros((1, 2, 3, 4), np.float32)
    return Rollouts(
        states, np.where(right, 7, 3), np.zeros(right.shape, np.float32), np.full((1, 2), 7), [4, 6, 10], 12
    )


def test_margins_by_hand():
    """Longest distance 8. Token one: -beta/4 - 1 at 4; 1 + gamma/2 at 6; -alpha/2 + gamma 6/8 at 10. Token two ends at 12."""
    coefficients = RewardCoefficients(alpha=0.5, beta=1.0, gamma=1.0, epsilon=0.1)
    found = reward_audit.margins(audited(), REWARDS["printed"], coefficients)
    np.testing.assert_allclose(found[0, 0], [-1.25, 1.5, 0.5])
    np.testing.assert_allclose(found[0, 1], [-2.0, -1.75, -1.25])
    places = reward_audit.margins_by_place(audited(), found)
    assert places == pytest.approx({"before": (-1.25 - 2 - 1.75 - 1.25) / 4, "at": 1.5, "past": 0.5})
