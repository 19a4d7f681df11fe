"""What the agents of notebook 04 do on unseen rollouts, beside fixed exits, softmax confidence and the oracle."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.frontier import Curve, Frontier
from eelib.pipeline.agents import agents, policy_of, read_rollouts, rollouts
from eelib.pipeline.study import Study
from eelib.rl.rollouts import Rollouts
from eelib.study.stages import Artifact, Stage

CONFIDENCE_POINTS = np.linspace(0.1, 0.9, 9)  # quantiles of the confidences at which the rival is drawn


def probabilities(recorded: Rollouts, policy: ExitPolicy, temperature: float) -> np.ndarray:
    """(N, T, E) float32 probability of exiting at every recorded state, computed where the policy is."""
    chunks = np.array_split(recorded.states, max(1, len(recorded) // 64))
    found = [
        policy.probability(torch.tensor(chunk, device=policy.device).flatten(0, -2).float(), temperature)
        .cpu()
        .view(chunk.shape[:-1])
        for chunk in chunks
    ]
    return torch.cat(found).numpy()


def unseen(study: Study, model: str, language: str) -> Rollouts:
    """Rollouts on prompts from test files."""
    return read_rollouts(rollouts(study, model, language, "test"))


def agent_scores(study: Study, model: str, language: str, recorded: Rollouts) -> list[np.ndarray]:
    """Probabilities of every agent of a setting, in the order of their seeds."""
    temperature = study.profile.evaluation.temperature
    return [
        probabilities(recorded, policy_of(study, model, language, seed), temperature)
        for seed, _ in agents(study, model, language)
    ]


def agent_exit_frame(
    study: Study, model: str, language: str, threshold: float, seed: int = 0
) -> pd.DataFrame:
    """`layer`, `exits`, `matches` of an agent on unseen rollouts: how many of its exits agree with the last layer."""
    recorded = unseen(study, model, language)
    frontier, policy = Frontier(recorded), policy_of(study, model, language, seed)
    scores = probabilities(recorded, policy, study.profile.evaluation.temperature)
    index = frontier.exits(scores, threshold)
    matches = np.take_along_axis(frontier.correct, index[..., None], -1)[..., 0]
    rows = []
    for stop, layer in enumerate(frontier.stops):
        here = index == stop
        rows.append({"layer": int(layer), "exits": int(here.sum()), "matches": int(matches[here].sum())})
    return pd.DataFrame(rows).assign(model=model, language=language, threshold=threshold)


def frontier_frame(study: Study, model: str, language: str) -> pd.DataFrame:
    """Agreement with the last layer against mean layers on unseen rollouts.

    Columns: `series` ("fixed", "agent", "confidence", "oracle"), `threshold` (of a fixed exit its layer; NaN for the
    oracle), `mean_layers`, `agreement`; an agent's are means over seeds.
    """
    recorded = unseen(study, model, language)
    frontier, thresholds = Frontier(recorded), study.profile.evaluation.thresholds
    everyone = frontier.prompts
    fixed = pd.DataFrame(
        {
            "threshold": frontier.stops,
            "mean_layers": frontier.stops,
            "agreement": frontier.fixed.mean(0),
        }
    )
    curves = [frontier.curve(scores, thresholds) for scores in agent_scores(study, model, language, recorded)]
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
    frame = pd.concat([rows.assign(series=name) for name, rows in series.items()], ignore_index=True)
    return frame.assign(model=model, language=language)


def recovered(study: Study, model: str, language: str) -> Artifact:
    """How much of what an oracle wins over fixed exits is won by the agents, and by softmax confidence: `recovered.parquet`.

    Rows: `against` ("best fixed exit", "coin between fixed exits"), `over` ("all depths": the area between the curves,
    "thresholds": at the depths of the profile's), `method`, `share`, `low`, `high` (95%, bootstrap over prompts), and
    `least` and `most` over agents.
    """
    recorded = rollouts(study, model, language, "test")
    trained = [artifact for _, artifact in agents(study, model, language)]
    evaluation = study.profile.evaluation
    stage = Stage(
        f"recovered/{model}-{language}",
        layer="evaluation",
        config={"thresholds": evaluation.thresholds, "temperature": evaluation.temperature},
        inputs=(recorded, *trained),
    )

    def measure(folder: Path) -> None:
        test = read_rollouts(recorded)
        frontier, scores = Frontier(test), agent_scores(study, model, language, test)
        whole = {"agent": [frontier.whole_curve(score) for score in scores]}
        whole["confidence"] = [frontier.whole_curve(test.confidences)]
        at = {"agent": [frontier.curve(score, sorted(evaluation.thresholds)) for score in scores]}
        measures = {"all depths": (frontier.recovered_area, whole), "thresholds": (frontier.recovered_at, at)}
        rows = []
        for against, fixed in {
            "best fixed exit": frontier.best_fixed,
            "coin between fixed exits": frontier.mixed_fixed,
        }.items():
            for over, (share_of, methods) in measures.items():
                for method, curves in methods.items():
                    rows.append(
                        {"against": against, "over": over, "method": method}
                        | _share(frontier, share_of, curves, fixed)
                    )
        pd.DataFrame(rows).to_parquet(folder / "recovered.parquet", index=False)

    return study.stage(stage, "04", measure)


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


def recovered_frame(study: Study) -> pd.DataFrame:
    """The rows of `recovered` of every setting, with `model` and `language`."""
    frames = []
    for model, language in study.settings:
        rows = pd.read_parquet(recovered(study, model, language).path / "recovered.parquet")
        frames.append(rows.assign(model=model, language=language))
    frame = pd.concat(frames, ignore_index=True)
    return frame[["model", "language", *frame.columns.drop(["model", "language"])]]


def calibration_frame(study: Study, model: str, language: str) -> pd.DataFrame:
    """What a threshold promises and what it keeps, over the tokens of all agents.

    Columns: `threshold`, `early` (share of tokens that leave before the last layer), `agreement_early` (of these with the
    last layer; NaN if there are none), `kept` (whether that is the threshold or more; missing if there are none),
    `over_random` (agreement of all tokens, less that of the same exits dealt out to tokens at random).
    """
    recorded = unseen(study, model, language)
    frontier, rows = Frontier(recorded), []
    everyone = agent_scores(study, model, language, recorded)
    for threshold in study.profile.evaluation.thresholds:
        index = np.stack([frontier.exits(scores, threshold) for scores in everyone])
        left = index < len(recorded.exit_points)
        matches = np.take_along_axis(frontier.correct[None], index[..., None], -1)[..., 0]
        curves = [frontier.curve(scores, [threshold]) for scores in everyone]
        agreement = matches[left].mean() if left.any() else np.nan
        rows.append(
            {
                "threshold": threshold,
                "early": left.mean(),
                "agreement_early": agreement,
                "kept": agreement >= threshold if left.any() else None,
                "over_random": frontier.over_random(curves, everyone, [threshold]),
            }
        )
    frame = pd.DataFrame(rows).astype({"kept": "boolean"})
    return frame.assign(model=model, language=language)
