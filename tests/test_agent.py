"""PPO on rollouts: it finds an obvious rule, is reproducible, and its export decides as the trained network does."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eelib.rl.agent as agent_module
from eelib.profile import Reinforcement
from eelib.rl.agent import NoisyStates, coefficients_for, train_agent
from eelib.rl.agent import export as real_export
from eelib.rl.env import RolloutVecEnv
from eelib.rl.rollouts import Rollouts

POINTS, LAYERS, WIDTH = [4, 6, 10], 12, 4
# Far from zero and from one another in scale, as the coordinates of hidden states are: the standardisation matters.
OFFSET = np.array([40.0, -3.0, 0.5, 200.0], dtype=np.float32)
SCALE = np.array([5.0, 0.1, 1.0, 30.0], dtype=np.float32)

CONFIG = Reinforcement(
    train_prompts=1,
    validation_prompts=1,
    test_prompts=1,
    prefix_windows=1,
    probe_steps=1,
    stopping_steps=1,
    states_dtype="float32",
    reward="printed",
    steps=8_192,
    seeds=1,
    environments=8,
    buffer=1_024,
    batch_size=256,
    epochs=8,
    learning_rate=3e-3,
    gamma=0.9,
    entropy_coefficient=0.0,
    observation_noise=0.0,
    hidden_units=16,
    hidden_layers=2,
    alpha=0.5,
    beta_java=1.0,
    beta_python=0.75,
    epsilon=0.1,
)
SHORT = {"steps": 512, "buffer": 256, "batch_size": 64, "epochs": 2}


def obvious(seed: int, prompts: int = 64, tokens: int = 4) -> Rollouts:
    """States whose first coordinate is above its mean where, and only where, the exit point's token is right."""
    rng = np.random.default_rng(seed)
    shape = (prompts, tokens, len(POINTS))
    # Right from some exit point on, or at none.
    first_right = rng.integers(len(POINTS) + 1, size=shape[:2])
    right = np.arange(len(POINTS)) >= first_right[..., None]
    states = rng.normal(size=(*shape, WIDTH))
    states[..., 0] = np.where(right, 1, -1) * rng.uniform(0.5, 1.5, size=shape)
    return Rollouts(
        states=(states * SCALE + OFFSET).astype(np.float32),
        predictions=np.where(right, 7, 3),
        confidences=np.full(shape, 0.5, np.float32),
        last=np.full(shape[:2], 7),
        exit_points=POINTS,
        total_layers=LAYERS,
    )


def train(rollouts=None, seed=0, **changes):
    """Policy, log and the trained PPO object itself."""
    trained = []

    def export(ppo, model):
        trained.append(ppo)
        return real_export(ppo, model)

    config = Reinforcement(**(vars(CONFIG) | changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_module, "export", export)
        policy, log = train_agent(
            rollouts or obvious(0), coefficients_for("java", config), config, seed, model="fingerprint"
        )
    return policy, log, trained[0]


@pytest.fixture(scope="module")
def trained():
    """The one agent that is trained for long enough to know something."""
    return train()


def test_an_obvious_rule_is_found(trained):
    policy, log, _ = trained
    unseen = obvious(seed=1)
    probability = policy.probability(torch.from_numpy(unseen.states.reshape(-1, WIDTH))).numpy()
    assert ((probability > 0.5) == unseen.correct.reshape(-1)).mean() > 0.97
    early, late = log.reward[:50].mean(), log.reward[-50:].mean()
    assert early < 0.7 and late > 0.9  # an oracle's is 1


def test_the_log_has_a_row_an_episode():
    _, log, _ = train(**SHORT)
    met = ["optimal_4", "optimal_6", "optimal_10", "optimal_12"]
    assert list(log.columns) == ["episode", "steps", "reward", "length", *met]
    assert (log[met].sum(axis=1) == log.length).all() and (log[met].sum() > 0).all()
    assert log.episode.tolist() == list(range(1, len(log) + 1))
    assert log.steps.is_monotonic_increasing and log.steps.iloc[-1] <= 512
    # Four tokens take one to three decisions each; nearly all steps belong to an episode that has ended.
    assert log.length.between(4, 12).all()
    assert 512 - 8 * 12 <= log.length.sum() <= 512
    assert log.reward.between(-1, 1).all() and log.reward.std() > 0


def test_training_twice_gives_equal_tensors():
    (first, first_log, _), (second, second_log, _) = (train(seed=3, **SHORT) for _ in range(2))
    other, _, _ = train(seed=4, **SHORT)
    assert len(first.weights) == len(first.biases) == 3
    for a, b in zip([*first.weights, *first.biases], [*second.weights, *second.biases], strict=True):
        assert torch.equal(a, b)
    assert first_log.equals(second_log)
    assert not torch.equal(first.weights[0], other.weights[0])


def test_the_exported_policy_decides_as_the_trained_network(trained):
    policy, _, ppo = trained
    assert (policy.width, policy.model) == (WIDTH, "fingerprint")
    states = np.random.default_rng(5).normal(size=(200, WIDTH)).astype(np.float32) * 2 * SCALE + OFFSET
    states = torch.from_numpy(states)
    with torch.no_grad():
        theirs = ppo.policy.get_distribution(states).distribution.probs[:, 1]
        unscaled = ppo.policy.action_net(ppo.policy.mlp_extractor.policy_net(states)).softmax(-1)[:, 1]
    torch.testing.assert_close(policy.probability(states), theirs, rtol=1e-4, atol=1e-5)
    assert (theirs - unscaled).abs().max() > 0.3  # without the standardisation it would not be so
    assert theirs.min() < 0.1 and theirs.max() > 0.9


def test_states_are_standardised_by_the_rollouts():
    rollouts = obvious(0)
    _, _, ppo = train(rollouts, **SHORT)
    states = torch.from_numpy(rollouts.states.reshape(-1, WIDTH))
    features = ppo.policy.pi_features_extractor(states)
    torch.testing.assert_close(features.mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-4)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(WIDTH), rtol=1e-4, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_constant_coordinate_does_no_harm(value):
    rollouts = obvious(0)
    rollouts.states[..., 2] = value
    policy, _, ppo = train(rollouts, **SHORT)
    states = torch.from_numpy(rollouts.states.reshape(-1, WIDTH))
    probability = policy.probability(states)
    with torch.no_grad():
        theirs = ppo.policy.get_distribution(states).distribution.probs[:, 1]
    assert torch.isfinite(probability).all()
    torch.testing.assert_close(probability, theirs, rtol=1e-3, atol=1e-4)


def test_coefficients_of_a_language():
    java, python = coefficients_for("java", CONFIG), coefficients_for("python", CONFIG)
    assert (java.alpha, java.beta, java.gamma, java.epsilon) == (0.5, 1.0, 1.0, 0.1)
    assert (python.alpha, python.beta, python.gamma, python.epsilon) == (0.5, 0.75, 0.75, 0.1)
    with pytest.raises(KeyError):
        coefficients_for("rust", CONFIG)


def test_noise_changes_observations_and_nothing_else():
    rollouts = obvious(0)
    coefficients = coefficients_for("java", CONFIG)
    plain, under = (RolloutVecEnv(rollouts, 4, coefficients, seed=0) for _ in range(2))
    noisy = NoisyStates(under, np.full(WIDTH, 2.0, np.float32), seed=0)
    differences = [noisy.reset() - plain.reset()]
    for step in range(60):
        actions = np.full(4, step % 2)
        ours, theirs = noisy.step(actions), plain.step(actions)
        differences.append(ours[0] - theirs[0])
        assert ours[0].dtype == np.float32
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[2], theirs[2])
    spread = np.concatenate(differences)
    assert abs(spread.mean()) < 0.3 and spread.std() == pytest.approx(2.0, rel=0.1)


def test_updates_are_logged_for_tensorboard(tmp_path):
    config = Reinforcement(**(vars(CONFIG) | SHORT))
    train_agent(obvious(0), coefficients_for("java", config), config, 0, "fingerprint", tmp_path)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events))
    log.Reload()
    assert {"train/loss", "train/entropy_loss"} <= set(log.Tags()["scalars"])
