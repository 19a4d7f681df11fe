"""What the rewards ask for: how clearly they tell exiting from going on, and what a policy is worth that follows them perfectly.

With a discount of 0, what PPO strives for at a state is the reward of exiting less that of going on, its *margin*. A recorded rollout holds
both, so that a network can be fitted to it without any sampling: PPO's goal without PPO.
"""

import numpy as np
import pandas as pd
import torch.nn.functional as F

from eelib.evaluation.equal_cost import Account
from eelib.models.loading import load_config
from eelib.profile import Reinforcement
from eelib.rl.agent import coefficients_for, one_thread
from eelib.rl.perceptron import Recipe, per_token
from eelib.rl.probe import fit
from eelib.rl.reward import REWARDS, Reward, RewardCoefficients
from eelib.rl.rollouts import Rollouts


def reward_audit(
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
    unseen: Rollouts,
    tuned_key: str,
    model: str,
    language: str,
    reinforcement: Reinforcement,
    max_tokens: int,
) -> pd.DataFrame:
    """Each reward's margins on unseen states, and the network that is fitted to them.

    Returns
    -------
    One row a reward: `reward`; `before`, `at` and `past`, its mean margin at exit points before the first right one (where the exit's
    token differs), at it, and past it where the token is right again; `share` of coin to oracle at equal cost that the fitted network
    wins, with `low` and `high` (95%, bootstrap over prompts).
    """
    account = Account(load_config(model), unseen, chosen, max_tokens)
    coefficients = coefficients_for(language, reinforcement)
    recipe, learnt, rows = Recipe(steps=reinforcement.probe_steps), rollouts.joined(prefixes), []
    for name, reward in REWARDS.items():
        row = {"reward": name} | margins_by_place(unseen, margins(unseen, reward, coefficients))
        targets = [per_token(margins(recorded, reward, coefficients)) for recorded in (learnt, chosen)]
        with one_thread():
            policy = fit(learnt, chosen, *targets, F.mse_loss, 0, tuned_key, recipe)
        curve = account.of_policy(policy)
        interval = account.frontier.interval(lambda prompts, curve=curve: account.share([curve], prompts))
        rows.append(row | {"share": interval.mean, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows)


def margins(recorded: Rollouts, reward: Reward, coefficients: RewardCoefficients) -> np.ndarray:
    """(N, T, E) reward of exiting less that of going on, at every recorded state."""
    layer, following = recorded.stops[:-1], recorded.stops[1:]
    optimal, longest = recorded.optimal_exits[..., None], recorded.total_layers - recorded.exit_points[0]
    leaving = reward.exit(layer, optimal, recorded.correct, coefficients, longest)
    return leaving - reward.proceed(layer, optimal, following, coefficients, longest)


def margins_by_place(recorded: Rollouts, margin: np.ndarray) -> dict[str, float]:
    """Mean margins `before`, `at` and `past` the first right exit point; NaN where there is no such state."""
    layer, optimal = recorded.stops[:-1], recorded.optimal_exits[..., None]
    places = {"before": layer < optimal, "at": layer == optimal, "past": (layer > optimal) & recorded.correct}
    return {name: float(margin[place].mean()) if place.any() else np.nan for name, place in places.items()}
