"""The environment: checked by gymnasium and stable-baselines3, and the vectorised one held to the plain one."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as stable_baselines_check

from eelib.models.exits import exit_points
from eelib.rl.env import CONTINUE, EXIT, EarlyExitEnv, RolloutVecEnv
from eelib.rl.reward import RewardCoefficients
from eelib.rl.rollouts import Rollouts

COEFFICIENTS = RewardCoefficients(alpha=0.5, beta=0.75, gamma=0.6, epsilon=0.1)
WIDTH = 3


def random_rollouts(seed: int, prompts: int = 4, tokens: int = 3, layers: int = 12) -> Rollouts:
    """Rollouts of a model that does not exist; with three tokens in the vocabulary every kind of exit occurs."""
    rng = np.random.default_rng(seed)
    points = exit_points(layers)
    shape = (prompts, tokens, len(points))
    return Rollouts(
        states=rng.normal(size=(*shape, WIDTH)).astype(np.float32),
        predictions=rng.integers(3, size=shape),
        confidences=np.full(shape, 0.5, np.float32),
        last=rng.integers(3, size=shape[:2]),
        exit_points=points,
        total_layers=layers,
    )


def by_hand() -> Rollouts:
    """One prompt of two tokens at layers 4, 6, 10 of 12: the first is right from layer 6 on, the second never."""
    states = np.arange(2 * 3 * WIDTH, dtype=np.float32).reshape(1, 2, 3, WIDTH)
    predictions = np.array([[[5, 7, 7], [1, 2, 3]]])
    confidences = np.full(predictions.shape, 0.5, np.float32)
    return Rollouts(states, predictions, confidences, np.array([[7, 9]]), [4, 6, 10], 12)


def play(env: EarlyExitEnv, actions) -> list[tuple]:
    env.reset(seed=0)
    return [env.step(action) for action in actions]


@pytest.fixture
def env():
    return EarlyExitEnv(random_rollouts(0), WIDTH, COEFFICIENTS)


# Both checkers remark that hidden states have no bounds, which is so.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m(in|ax)imum value is -?infinity.*:UserWarning")
def test_gymnasium_accepts_the_environment(env):
    gymnasium_check(env, skip_render_check=True)


def test_stable_baselines_accepts_the_environment(env):
    stable_baselines_check(env, warn=True)


def test_changing_an_observation_changes_no_rollout():
    rollouts = random_rollouts(0)
    before = rollouts.states.copy()
    env, together = EarlyExitEnv(rollouts, WIDTH, COEFFICIENTS), RolloutVecEnv(rollouts, 2, COEFFICIENTS, 0)
    env.reset(seed=0)[0].fill(9)
    together.reset().fill(9)
    for _ in range(3):
        env.step(EXIT)[0].fill(9)
        observations, _, _, infos = together.step(np.array([EXIT, EXIT]))
        observations.fill(9)
    infos[0]["terminal_observation"].fill(9)
    np.testing.assert_array_equal(rollouts.states, before)


def test_an_episode_by_hand():
    env = EarlyExitEnv(by_hand(), WIDTH, COEFFICIENTS)
    states = by_hand().states[0]
    first, info = env.reset(seed=0)
    np.testing.assert_array_equal(first, states[0, 0])
    assert info == {}
    script = [  # action, observation after it, reward, layer, optimal
        (CONTINUE, states[0, 1], 1.0, 4, 6),
        (CONTINUE, states[0, 2], -(4 / 8) * 0.6, 6, 6),
        (CONTINUE, states[1, 0], -(6 / 8) * 0.6, 10, 6),  # past the last exit point: done at full depth
        (CONTINUE, states[1, 1], 1.0, 4, 12),
        (EXIT, states[1, 0], -(6 / 8) * 0.75, 6, 12),  # the end; the observation is no longer acted on
    ]
    for number, (action, observation, reward, layer, optimal) in enumerate(script, start=1):
        seen, earned, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(seen, observation)
        assert earned == pytest.approx(reward)
        assert (terminated, truncated) == (number == len(script), False)
        assert info == {"layer": layer, "optimal": optimal}


def test_exiting_at_once_takes_one_decision_a_token():
    steps = play(EarlyExitEnv(by_hand(), WIDTH, COEFFICIENTS), [EXIT, EXIT])
    assert [step[2] for step in steps] == [False, True]
    assert [step[1] for step in steps] == pytest.approx([-(2 / 8) * 0.75, -(8 / 8) * 0.75])


def test_never_exiting_takes_every_exit_point_of_every_token():
    steps = play(EarlyExitEnv(by_hand(), WIDTH, COEFFICIENTS), [CONTINUE] * 6)
    assert [step[2] for step in steps] == [False] * 5 + [True]
    assert [step[1] for step in steps[3:]] == [1.0, 1.0, 1.0]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_an_oracle_earns_nothing_but_one(seed):
    rollouts = random_rollouts(seed)
    env = EarlyExitEnv(rollouts, WIDTH, COEFFICIENTS)
    env.reset(seed=seed)
    rewards, layers, terminated = [], [], False
    while not terminated:
        at_optimum = env.layers[env.point] == env.optimal[env.token]
        _, reward, terminated, _, info = env.step(EXIT if at_optimum else CONTINUE)
        rewards.append(reward)
        layers.append(info["layer"])
    assert set(rewards) == {1.0}
    assert layers.count(4) == 3  # each token began at the first exit point


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_only_the_oracles_decisions_earn_one(seed):
    env = EarlyExitEnv(random_rollouts(seed), WIDTH, COEFFICIENTS)
    env.reset(seed=seed)
    rng, terminated = np.random.default_rng(seed), False
    while not terminated:
        right = EXIT if env.layers[env.point] == env.optimal[env.token] else CONTINUE
        if env.layers[env.point] > env.optimal[env.token]:
            right = None  # too late for either
        action = int(rng.integers(2))
        _, reward, terminated, _, _ = env.step(action)
        assert (reward == 1.0) == (action == right)


@given(
    rollouts_seed=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 10_000),
    environments=st.integers(1, 4),
    layers=st.sampled_from([8, 12, 28]),
    action_seed=st.integers(0, 2**32 - 1),
    exit_rate=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_side_by_side_equals_one_at_a_time(rollouts_seed, seed, environments, layers, action_seed, exit_rate):
    """Same draws and actions give the same observations, rewards and ends of episodes."""
    rollouts = random_rollouts(rollouts_seed, layers=layers)
    together = RolloutVecEnv(rollouts, environments, COEFFICIENTS, seed)
    alone = [EarlyExitEnv(rollouts, WIDTH, COEFFICIENTS) for _ in range(environments)]
    observations = together.reset()
    for i, env in enumerate(alone):
        np.testing.assert_array_equal(env.reset(seed=seed + i)[0], observations[i])
    rng = np.random.default_rng(action_seed)
    earned: list[list[float]] = [[] for _ in alone]
    met: list[list[int]] = [[] for _ in alone]
    for _ in range(40):
        actions = (rng.random(environments) < exit_rate).astype(int)
        observations, rewards, dones, infos = together.step(actions)
        assert observations.dtype == rewards.dtype == np.float32
        for i, env in enumerate(alone):
            observation, reward, terminated, _, info = env.step(actions[i])
            earned[i].append(reward)
            met[i].append(info["optimal"])
            assert (rewards[i], dones[i]) == (np.float32(reward), terminated)
            if terminated:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                assert infos[i]["episode"]["l"] == len(earned[i])
                assert infos[i]["episode"]["r"] == pytest.approx(np.mean(earned[i]))
                assert infos[i]["episode"]["optimal"].tolist() == [met[i].count(stop) for stop in env.layers]
                earned[i], met[i] = [], []
                observation, _ = env.reset()
            else:
                assert infos[i] == {}
            np.testing.assert_array_equal(observations[i], observation)


def test_prompts_are_drawn_uniformly():
    rollouts = random_rollouts(0, prompts=4)
    env = EarlyExitEnv(rollouts, WIDTH, COEFFICIENTS)
    starts = [env.reset(seed=0)[0], *[env.reset()[0] for _ in range(999)]]
    drawn = [int(np.flatnonzero((rollouts.states[:, 0, 0] == start).all(-1))[0]) for start in starts]
    counts = np.bincount(drawn, minlength=4)
    assert (abs(counts - 250) < 4 * np.sqrt(1000 * 0.25 * 0.75)).all()


def test_the_environments_draw_differently():
    env = RolloutVecEnv(random_rollouts(0, prompts=50), 8, COEFFICIENTS, seed=0)
    env.reset()
    assert len(set(env.prompt.tolist())) > 4
