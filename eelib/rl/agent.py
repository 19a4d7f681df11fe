"""Training the exit agent with PPO (stable-baselines3) and exporting it to plain tensors."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn
from tqdm import tqdm

from eelib.decoding.policy import ExitPolicy
from eelib.profile import Reinforcement
from eelib.rl.env import RolloutVecEnv
from eelib.rl.reward import REWARDS, RewardCoefficients
from eelib.rl.rollouts import Rollouts


class Standardised(BaseFeaturesExtractor):
    """Fixed standardisation of the states, so that tanh units see all layers at one scale.

    It is affine, so the exported policy folds it into its first layer and reads raw states.
    """

    def __init__(self, observation_space, mean: Tensor, deviation: Tensor):
        super().__init__(observation_space, features_dim=observation_space.shape[0])
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, observations: Tensor) -> Tensor:
        return (observations - self.mean) / self.deviation


class NoisyStates(VecEnvWrapper):
    """Adds Gaussian noise to every observation in training, so that a few hundred prompts are not learnt by heart.

    Parameters
    ----------
    deviation: (D,) standard deviation of the noise, by coordinate.
    """

    def __init__(self, env: VecEnv, deviation: np.ndarray, seed: int):
        super().__init__(env)
        self.deviation = deviation
        self.rng = np.random.default_rng(seed)

    def _noisy(self, states: np.ndarray) -> np.ndarray:
        return states + self.deviation * self.rng.standard_normal(states.shape, dtype=np.float32)

    def reset(self) -> np.ndarray:
        return self._noisy(self.venv.reset())

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        states, rewards, dones, infos = self.venv.step_wait()
        return self._noisy(states), rewards, dones, infos


class EpisodeLog(BaseCallback):
    """Collects mean step reward, length and optimal exits of every finished episode, and shows progress."""

    def __init__(self, progress: tqdm, stops: np.ndarray):
        super().__init__()
        self.progress = progress
        self.columns = [f"optimal_{layer}" for layer in stops]
        self.rows: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        self.progress.update(self.training_env.num_envs)
        for info in self.locals["infos"]:
            if "episode" in info:
                self.rows.append(
                    {
                        "steps": self.num_timesteps,
                        "reward": info["episode"]["r"],
                        "length": info["episode"]["l"],
                    }
                    | dict(zip(self.columns, info["episode"]["optimal"], strict=True))
                )
        return True


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread for as long as it lasts: what is small is faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def coefficients_for(language: str, config: Reinforcement) -> RewardCoefficients:
    """The reward's coefficients of a language (Section 6.3: gamma equals beta, which is lower for Python)."""
    beta = {"java": config.beta_java, "python": config.beta_python}[language]
    return RewardCoefficients(config.alpha, beta, beta, config.epsilon)


def train_agent(
    rollouts: Rollouts,
    coefficients: RewardCoefficients,
    config: Reinforcement,
    seed: int,
    model: str,
    tensorboard: Path | None = None,
) -> tuple[ExitPolicy, pd.DataFrame]:
    """Train one agent with PPO on recorded rollouts.

    Parameters
    ----------
    model: fingerprint of the model the states come from, kept with the policy.
    tensorboard: folder for what stable-baselines3 logs of every update.

    Returns
    -------
    The policy, and a log with one row a finished episode: `episode`, `steps` (so far), `reward` (mean per step),
    `length` (decisions), and `optimal_<layer>` for each exit point and L, the decisions of these on tokens whose optimal exit
    it is.
    """
    mean, deviation = rollouts.moments()
    deviation = np.where(deviation > 1e-6, deviation, np.float32(1))  # a constant coordinate is left alone
    env: VecEnv = RolloutVecEnv(
        rollouts, config.environments, coefficients, seed=1_000 * seed, reward=REWARDS[config.reward]
    )
    if config.observation_noise:
        env = NoisyStates(env, np.float32(config.observation_noise) * deviation, seed)
    progress = tqdm(total=config.steps, desc=f"PPO, seed {seed}", unit="step", unit_scale=True, leave=False)
    log = EpisodeLog(progress, rollouts.stops)
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=config.buffer // config.environments,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        learning_rate=lambda remaining: config.learning_rate * remaining,
        gamma=config.gamma,
        ent_coef=config.entropy_coefficient,
        tensorboard_log=None if tensorboard is None else str(tensorboard),
        policy_kwargs={
            "net_arch": [config.hidden_units] * config.hidden_layers,
            "activation_fn": nn.Tanh,
            "features_extractor_class": Standardised,
            "features_extractor_kwargs": {
                "mean": torch.from_numpy(mean),
                "deviation": torch.from_numpy(deviation),
            },
        },
        seed=seed,
        device="cpu",  # so small a network is faster there
    )
    agent.learn(config.steps, callback=log, tb_log_name=f"seed{seed}")
    progress.close()
    rows = pd.DataFrame(log.rows, columns=["steps", "reward", "length", *log.columns])
    rows.insert(0, "episode", np.arange(1, len(rows) + 1))
    return export(agent, model), rows


def export(agent: PPO, model: str) -> ExitPolicy:
    """Policy and action networks of a PPO agent as plain tensors, the standardisation folded into the first layer."""
    layers = [module for module in agent.policy.mlp_extractor.policy_net if isinstance(module, nn.Linear)]
    layers.append(agent.policy.action_net)
    weights = [layer.weight.detach().clone() for layer in layers]
    biases = [layer.bias.detach().clone() for layer in layers]
    scaling = agent.policy.pi_features_extractor
    biases[0] -= weights[0] @ (scaling.mean / scaling.deviation)
    weights[0] /= scaling.deviation
    return ExitPolicy(weights, biases, model)
