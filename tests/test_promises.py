"""Choosing a threshold by risk control: bounds by hand, and promises that are kept."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.evaluation.promises import (
    bentkus_p_value,
    betting_rejects,
    choose,
    conformal_risk_control,
    learn_then_test,
    methods,
    naive,
    promises,
    promises_across,
    prompts_needed,
)
from eelib.rl.rollouts import Rollouts


def test_a_p_value_by_hand():
    """No loss in 50: Hoeffding's (1 - a)^n is the least. Five of 50 at 0.1: nothing is rejected. All: 1."""
    assert bentkus_p_value(np.zeros(50), 0.1) == pytest.approx(0.9**50)
    assert bentkus_p_value(np.repeat([1.0, 0.0], [5, 45]), 0.1) == 1.0
    assert bentkus_p_value(np.ones(50), 0.1) == 1.0
    few = np.repeat([1.0, 0.0], [1, 99])
    divergence = 0.01 * math.log(0.01 / 0.1) + 0.99 * math.log(0.99 / 0.9)
    expected = min(math.exp(-100 * divergence), math.e * stats.binom.cdf(1, 100, 0.1))
    assert bentkus_p_value(few, 0.1) == pytest.approx(expected)


def test_a_bet_by_hand():
    """Without losses the first stake is all (variance 1/4), and capital grows by at most 1 + a each time."""
    assert not betting_rejects(np.zeros(20), 0.05, 0.05)  # 1.05^20 = 2.65 < 20
    assert betting_rejects(np.zeros(100), 0.05, 0.05)
    assert not betting_rejects(np.ones(1000), 0.05, 0.05)


def test_testing_ends_with_the_first_failure():
    losses = np.array([[0.0, 0.0, 0.9, 0.0]] * 40)
    assert learn_then_test(losses, lambda column: column.mean() < 0.5) == 1
    assert learn_then_test(losses[:, 2:], lambda column: column.mean() < 0.5) is None
    assert naive(losses, 0.5) == 3 and naive(losses[:, 2:3], 0.5) is None


def test_conformal_risk_control_adds_the_worst_prompt():
    losses = np.array([[0.0, 0.1, 0.2]] * 9)
    assert conformal_risk_control(losses, 0.1) == 0  # (0 + 1) / 10, then (0.9 + 1) / 10
    assert conformal_risk_control(losses, 0.19) == 1
    assert conformal_risk_control(losses, 0.05) is None


def test_what_can_be_promised_is_said():
    assert prompts_needed(0.02, 0.05) == 149 and 0.98**149 <= 0.05 < 0.98**148
    losses = np.zeros((148, 3))
    with pytest.raises(InputError, match="148 calibration prompts cannot promise .* at least 149 are needed"):
        choose(losses, 0.02)
    with pytest.raises(InputError, match=r"The tolerated share is 1.5: allowed are numbers between 0 and 1"):
        choose(losses, 1.5)
    with pytest.raises(InputError, match="The delta is 0"):
        choose(losses, 0.02, 0)
    assert choose(np.zeros((400, 3)), 0.02) == 2


def test_promises_are_kept_and_the_naive_choice_breaks_its_own():
    """Risks rise along the thresholds from 0 to 0.3; prompts are coins of that bias, one number deciding all thresholds."""
    rng, risks, tolerated = np.random.default_rng(0), np.linspace(0, 0.3, 31), 0.1
    broken = dict.fromkeys(methods(tolerated, 0.05), 0)
    for _ in range(300):
        losses = (rng.random((200, 1)) < risks).astype(float)
        for name, method in methods(tolerated, 0.05).items():
            place = method(losses)
            broken[name] += place is not None and risks[place] > tolerated + 1e-9
    assert broken["Learn-then-Test, betting"] <= 0.05 * 300
    assert broken["Learn-then-Test, Hoeffding-Bentkus"] <= 0.05 * 300
    assert broken["naive"] > 0.2 * 300


def recorded(right: float) -> Rollouts:
    """150 prompts of a model of 8 layers, one exit point at 4, right on a share of the tokens; the state says nothing."""
    correct = np.random.default_rng(0).random((150, 15, 1)) < right
    states = np.zeros((150, 15, 1, 2), np.float32)
    zeros = np.zeros(correct.shape, np.float32)
    return Rollouts(states, np.where(correct, 7, 8), zeros, np.full((150, 15), 7), [4], 8)


def test_a_promise_made_at_home_is_broken_where_the_exits_are_worse():
    """A policy that leaves at every token below T = 0.9: right on 99% at home, on half of the tokens elsewhere."""
    policy = ExitPolicy([torch.zeros(2, 2)], [torch.tensor([0.0, math.log(9)])], "model")
    rollouts = {"java": recorded(0.99), "python": recorded(0.5)}
    keys = ["tolerated", "prompts", "method"]
    home = promises(rollouts["java"], policy).set_index(keys)
    both = promises_across(rollouts, dict.fromkeys(rollouts, policy))
    away = both[both["language"] == "java"].set_index(keys)
    assert set(away["tested_on"]) == {"python"} and (away["early"] == home["early"]).all()
    betting = away.loc[(0.1, 200, "Learn-then-Test, betting")]
    assert home.loc[(0.1, 200, "Learn-then-Test, betting"), "broken"] == 0
    assert betting["early"] == 1 and betting["broken"] == 1 and betting["depth"] == 0.5
    assert set(both["language"]) == {"java", "python"} and (both["language"] != both["tested_on"]).all()
    alike = {"java": rollouts["java"], "python": rollouts["java"]}
    same = promises_across(alike, {"java": policy}).set_index(keys)
    columns = ["broken", "early", "depth"]
    assert (same[columns] == home[columns]).all(axis=None)
