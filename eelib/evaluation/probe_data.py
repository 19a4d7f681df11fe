"""What a probe's training data is worth: completions of the full model, real text, and more of it."""

import pandas as pd

from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.equal_cost import Account
from eelib.models.loading import load_config
from eelib.rl.agent import one_thread
from eelib.rl.perceptron import Recipe
from eelib.rl.probe import train_probe
from eelib.rl.rollouts import Rollouts

PARTS = (0.25, 0.5, 1.0)  # of the prefixes


def probe_data(
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
    unseen: Rollouts,
    probe: ExitPolicy,
    model: str,
    max_tokens: int,
    probe_steps: int,
) -> pd.DataFrame:
    """Probes of one seed fitted to different data, all judged along the full model's own completions of unseen prompts.

    Parameters
    ----------
    chosen: rollouts of validation prompts, which choose a probe's state, its exit points and thresholds.
    probe: the study's of the same seed, which was fitted to both.
    max_tokens: the longest context, after which a token is priced.

    Returns
    -------
    One row a probe: `learnt_from` ("completions", "real text", "both"), `tokens`, and its `share` of coin to oracle at equal cost with
    `low` and `high` (95%, bootstrap over prompts).
    """
    account = Account(load_config(model), unseen, chosen, max_tokens)
    sets = [("completions", rollouts)]
    sets += [("real text", prefixes.first(max(1, int(part * len(prefixes))))) for part in PARTS]
    recipe = Recipe(steps=probe_steps)
    with one_thread():
        probes = [(name, own.last.size, train_probe(own, chosen, 0, model, recipe)) for name, own in sets]
    probes.append(("both", rollouts.last.size + prefixes.last.size, probe))
    rows = []
    for name, tokens, policy in probes:
        curve = account.of_policy(policy)
        interval = account.frontier.interval(lambda prompts, curve=curve: account.share([curve], prompts))
        row = {"learnt_from": name, "tokens": tokens, "share": interval.mean}
        rows.append(row | {"low": interval.low, "high": interval.high})
    return pd.DataFrame(rows)
