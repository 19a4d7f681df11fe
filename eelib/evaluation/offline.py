"""What agents do on unseen rollouts, beside fixed exits, softmax confidence and the oracle."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.frontier import Curve, Frontier, first_above
from eelib.rl.rollouts import Rollouts

CONFIDENCE_POINTS = np.linspace(0.1, 0.9, 9)  # quantiles of the confidences at which the rival is drawn


def probabilities(recorded: Rollouts, policy: ExitPolicy, temperature: float) -> np.ndarray:
    """(N, T, E) float32 probability of exiting at every recorded state, computed where the policy is."""
    return _of_states(recorded, lambda states: policy.probability(states, temperature), policy.device)


def _of_states(recorded: Rollouts, score: Callable[[Tensor], Tensor], device: torch.device) -> np.ndarray:
    """(N, T, E) scores of the recorded states, (B, D) to (B,), some prompts at a time."""
    chunks = np.array_split(recorded.states, max(1, len(recorded) // 64))
    found = [
        score(torch.tensor(chunk, device=device).flatten(0, -2).float()).cpu().view(chunk.shape[:-1])
        for chunk in chunks
    ]
    return torch.cat(found).numpy()


def policy_exits(
    recorded: Rollouts, policy: ExitPolicy, thresholds: Sequence[float], temperature: float = 1.0
) -> list[np.ndarray]:
    """(N, T) index of the stop where a policy leaves each recorded token, at each threshold."""
    if policy.price is None:
        scores = probabilities(recorded, policy, temperature)
        return [first_above(scores, threshold) for threshold in thresholds]
    rules = (policy.at(threshold) for threshold in thresholds)
    return [
        first_above(_of_states(recorded, priced.margin, priced.device), margin) for priced, margin in rules
    ]


def exit_frame(recorded: Rollouts, scores: np.ndarray, threshold: float) -> pd.DataFrame:
    """`layer`, `exits`, `matches`: how many exits of an agent with these `probabilities` agree with the last layer."""
    frontier = Frontier(recorded)
    index = first_above(scores, threshold)
    matches = np.take_along_axis(frontier.correct, index[..., None], -1)[..., 0]
    rows = []
    for stop, layer in enumerate(frontier.stops):
        here = index == stop
        rows.append({"layer": int(layer), "exits": int(here.sum()), "matches": int(matches[here].sum())})
    return pd.DataFrame(rows)


def frontier_frame(recorded: Rollouts, scores: list[np.ndarray], thresholds: list[float]) -> pd.DataFrame:
    """Agreement with the last layer against mean layers on unseen rollouts.

    Parameters
    ----------
    scores: `probabilities` of every agent.

    Returns
    -------
    `series` ("fixed", "agent", "confidence", "oracle"), `threshold` (of a fixed exit its layer; NaN for the oracle),
    `mean_layers`, `agreement`; an agent's are means over agents.
    """
    frontier = Frontier(recorded)
    everyone = frontier.prompts
    fixed = pd.DataFrame(
        {
            "threshold": frontier.stops,
            "mean_layers": frontier.stops,
            "agreement": frontier.fixed.mean(0),
        }
    )
    curves = [frontier.curve(score, thresholds) for score in scores]
    layers, agreement = np.mean([curve.points(everyone) for curve in curves], axis=0)
    agent = pd.DataFrame({"threshold": thresholds, "mean_layers": layers, "agreement": agreement})
    confident = np.quantile(recorded.confidences, CONFIDENCE_POINTS)
    layers, agreement = frontier.curve(recorded.confidences, confident).points(everyone)
    confidence = pd.DataFrame({"threshold": confident, "mean_layers": layers, "agreement": agreement})
    depths = np.array(
        [*frontier.stops[frontier.stops < recorded.optimal_exits.mean()], recorded.optimal_exits.mean()]
    )
    oracle = pd.DataFrame({"mean_layers": depths, "agreement": frontier.oracle(depths, everyone)})
    series = {"fixed": fixed, "agent": agent, "confidence": confidence, "oracle": oracle}
    return pd.concat([rows.assign(series=name) for name, rows in series.items()], ignore_index=True)


def recovered(
    rollouts: Rollouts, agents: dict[int, ExitPolicy], thresholds: list[float], temperature: float
) -> pd.DataFrame:
    """How much of what an oracle wins over fixed exits is won by the agents, and by softmax confidence.

    Returns
    -------
    Rows: `against` ("best fixed exit", "coin between fixed exits"), `over` ("all depths": the area between the curves,
    "thresholds": at the depths of the profile's), `method`, `share`, `low`, `high` (95%, bootstrap over prompts), and
    `least` and `most` over agents.
    """
    frontier = Frontier(rollouts)
    scores = [probabilities(rollouts, policy, temperature) for policy in agents.values()]
    whole = {"agent": [frontier.whole_curve(score) for score in scores]}
    whole["confidence"] = [frontier.whole_curve(rollouts.confidences)]
    at = {"agent": [frontier.curve(score, sorted(thresholds)) for score in scores]}
    measures = {"all depths": (frontier.recovered_area, whole), "thresholds": (frontier.recovered_at, at)}
    bases = {
        "best fixed exit": frontier.best_fixed,
        "coin between fixed exits": frontier.mixed_fixed,
    }
    return pd.DataFrame(
        [
            {"against": against, "over": over, "method": method} | _share(frontier, share_of, curves, fixed)
            for against, fixed in bases.items()
            for over, (share_of, methods) in measures.items()
            for method, curves in methods.items()
        ]
    )


def _share(frontier: Frontier, share_of, curves: list[Curve], fixed) -> dict[str, float]:
    interval = frontier.interval(lambda prompts: share_of(curves, prompts, fixed))
    single = [share_of([curve], frontier.prompts, fixed) for curve in curves]
    return {
        "share": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "least": min(single),
        "most": max(single),
    }


def calibration_frame(recorded: Rollouts, scores: list[np.ndarray], thresholds: list[float]) -> pd.DataFrame:
    """What a threshold promises and what it keeps, over the tokens of all agents.

    Parameters
    ----------
    scores: `probabilities` of every agent.

    Returns
    -------
    `threshold`, `early` (share of tokens that leave before the last layer), `agreement_early` (of these with the
    last layer; NaN if there are none), `kept` (whether that is the threshold or more; missing if there are none),
    `over_random` (agreement of all tokens, less that of the same exits dealt out to tokens at random).
    """
    frontier, rows = Frontier(recorded), []
    for threshold in thresholds:
        index = np.stack([first_above(score, threshold) for score in scores])
        left = index < len(recorded.exit_points)
        matches = np.take_along_axis(frontier.correct[None], index[..., None], -1)[..., 0]
        curves = [frontier.curve(score, [threshold]) for score in scores]
        agreement = matches[left].mean() if left.any() else np.nan
        rows.append(
            {
                "threshold": threshold,
                "early": left.mean(),
                "agreement_early": agreement,
                "kept": agreement >= threshold if left.any() else None,
                "over_random": frontier.over_random(curves, scores, [threshold]),
            }
        )
    return pd.DataFrame(rows).astype({"kept": "boolean"})
