"""The early-exit environment (thesis, Section 5.1), one episode at a time and many side by side."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from eelib.rl.reward import PRINTED, Reward, RewardCoefficients
from eelib.rl.rollouts import Episode, Rollouts, optimal_index

CONTINUE, EXIT = 0, 1


class EpisodeSource(Protocol):
    """Where episodes come from: recorded rollouts, or a model that completes a prompt at each reset."""

    exit_points: list[int]
    total_layers: int

    def draw(self, rng: np.random.Generator) -> Episode:
        """A prompt drawn at random, completed by the full model."""


class EarlyExitEnv(gymnasium.Env):
    """Decides for every token of a completion at which exit point to stop.

    Observation: the (D,) float32 hidden state at the current exit point, before the final norm. Action 1 exits: on to
    the next token's first exit point. Action 0 continues to the next exit point; past the last one the token is done at
    full depth. The episode ends with the last token; there is no truncation.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        source: EpisodeSource,
        width: int,
        coefficients: RewardCoefficients,
        reward: Reward = PRINTED,
    ):
        self.source = source
        self.coefficients = coefficients
        self.reward = reward
        self.layers = np.array([*source.exit_points, source.total_layers])
        self.longest = source.total_layers - source.exit_points[0]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Draw a new episode; the observation is its first token's state at the first exit point."""
        super().reset(seed=seed, options=options)
        self.start(self.source.draw(self.np_random))
        return self._observation(), {}

    def start(self, episode: Episode) -> None:
        """Begin a given episode."""
        self.episode = episode
        self.correct = episode.predictions == episode.last[:, None]
        self.optimal = self.layers[optimal_index(self.correct)]
        self.token = self.point = 0

    def _observation(self) -> np.ndarray:
        # A copy, as gymnasium asks: a wrapper that works in place must not change the rollouts.
        return self.episode.states[self.token, self.point].astype(np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One decision. `info` holds the layer it was taken at and the token's optimal one."""
        layer, following = self.layers[self.point], self.layers[self.point + 1]
        optimal, correct = self.optimal[self.token], self.correct[self.token, self.point]
        if action == EXIT:
            reward = self.reward.exit(layer, optimal, correct, self.coefficients, self.longest)
        else:
            reward = self.reward.proceed(layer, optimal, following, self.coefficients, self.longest)
        info = {"layer": int(layer), "optimal": int(optimal)}
        if action == EXIT or self.point + 1 == len(self.source.exit_points):
            self.token, self.point = self.token + 1, 0
        else:
            self.point += 1
        terminated = self.token == len(self.episode.last)
        # The observation after the end is never acted on; it repeats the last token's.
        if terminated:
            observation = self.episode.states[-1, 0].astype(np.float32)
        else:
            observation = self._observation()
        return observation, float(reward), terminated, False, info


class RolloutVecEnv(VecEnv):
    """The same environment, `n` episodes side by side over recorded rollouts, each step one array operation.

    Environment i draws its prompts as an `EarlyExitEnv` seeded with `seed + i` does. A finished episode restarts within
    the step, its last observation in `info["terminal_observation"]` and its mean reward per step in `info["episode"]`, where
    "optimal" counts its decisions by the optimal exit of the token they were on, (E + 1,) int64.
    """

    render_mode = None

    def __init__(
        self,
        rollouts: Rollouts,
        n: int,
        coefficients: RewardCoefficients,
        seed: int,
        reward: Reward = PRINTED,
    ):
        self.rollouts = rollouts
        self.coefficients = coefficients
        self.reward = reward
        self.layers = np.array([*rollouts.exit_points, rollouts.total_layers])
        self.longest = rollouts.total_layers - rollouts.exit_points[0]
        self.correct = rollouts.correct
        self.optimal = optimal_index(self.correct)
        self.rngs = [gymnasium.utils.seeding.np_random(seed + i)[0] for i in range(n)]
        self.prompt, self.token, self.point = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.total = np.zeros(n)
        self.met = np.zeros((n, len(self.layers)), dtype=np.int64)
        width = rollouts.states.shape[-1]
        super().__init__(
            n, gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32), gymnasium.spaces.Discrete(2)
        )

    def _begin(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.prompt[row] = self.rngs[row].integers(len(self.rollouts))
        self.token[rows], self.point[rows] = 0, 0
        self.total[rows], self.met[rows] = 0.0, 0

    def _observations(self) -> np.ndarray:
        states = self.rollouts.states[self.prompt, self.token, self.point]
        return states.astype(np.float32, copy=False)

    def reset(self) -> np.ndarray:
        self._begin(range(self.num_envs))
        return self._observations()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        layer, following = self.layers[self.point], self.layers[self.point + 1]
        optimal_at = self.optimal[self.prompt, self.token]
        optimal = self.layers[optimal_at]
        correct = self.correct[self.prompt, self.token, self.point]
        exits = self.actions == EXIT
        rewards = np.where(
            exits,
            self.reward.exit(layer, optimal, correct, self.coefficients, self.longest),
            self.reward.proceed(layer, optimal, following, self.coefficients, self.longest),
        )
        self.total += rewards
        self.met[np.arange(self.num_envs), optimal_at] += 1
        finished = exits | (self.point + 1 == len(self.rollouts.exit_points))
        self.token = np.where(finished, self.token + 1, self.token)
        self.point = np.where(finished, 0, self.point + 1)
        done = self.token == self.rollouts.last.shape[1]
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(done):
            infos[row]["terminal_observation"] = self.rollouts.states[self.prompt[row], -1, 0].astype(
                np.float32
            )
            length = int(self.met[row].sum())
            infos[row]["episode"] = {
                "r": self.total[row] / length,
                "l": length,
                "t": 0.0,
                "optimal": self.met[row].copy(),
            }
        self._begin(np.flatnonzero(done))
        return self._observations(), rewards.astype(np.float32), done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("rollouts are fixed once recorded")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("there are no single environments to call")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))
