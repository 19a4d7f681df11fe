"""The study's optimal stopping policies, fitted at the prices that they are judged by."""

from pathlib import Path

from eelib.evaluation.cost import stop_prices
from eelib.models.loading import load_config
from eelib.rl.agent import one_thread
from eelib.rl.perceptron import Recipe
from eelib.rl.rollouts import Rollouts
from eelib.rl.stopping import train_stopping


def fit_stopping(
    rollouts: Rollouts,
    prefixes: Rollouts,
    tuned_key: str,
    model: str,
    seed: int,
    max_tokens: int,
    stopping_steps: int,
    folder: Path,
) -> None:
    """One policy of optimal stopping: `policy.safetensors`, `policy.json`.

    Parameters
    ----------
    max_tokens: the longest context, after which a token is priced; its own looks, a few ten-thousandths of a token, are not.
    """
    costs = stop_prices(load_config(model), rollouts.stops, max_tokens)
    with one_thread():
        train_stopping(rollouts.joined(prefixes), costs, seed, tuned_key, Recipe(steps=stopping_steps)).save(
            folder
        )
