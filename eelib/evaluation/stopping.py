"""The study's optimal stopping policies, fitted at the prices that they are judged by."""

from dataclasses import replace
from pathlib import Path

from eelib.evaluation.cost import stop_prices
from eelib.models.loading import load_config
from eelib.rl.agent import one_thread
from eelib.rl.rollouts import Rollouts
from eelib.rl.stopping import RECIPE, train_stopping


def fit_stopping(
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
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
    chosen: rollouts of validation prompts.
    max_tokens: the longest context, after which a token is priced; its own looks, a few ten-thousandths of a token, are not.
    """
    costs = stop_prices(load_config(model), rollouts.stops, max_tokens)
    recipe = replace(RECIPE, steps=stopping_steps)
    with one_thread():
        learnt_from = rollouts.joined(prefixes)
        train_stopping(learnt_from, chosen, costs, seed, tuned_key, recipe).save(folder)
