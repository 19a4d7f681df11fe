"""Stages of notebook 06: what deciding costs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.evaluation.decisions import costs
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.sweep import Setting, summarise_timings
from eelib.models.parts import ModelParts
from eelib.pipeline.agents import agent, policy_of
from eelib.pipeline.models import fine_tuned, load_kind
from eelib.pipeline.results import agent_settings, chosen_samples, decoding_stage, timed_settings
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage

THESIS_CONTEXTS = (0.2, 0.5)  # of Figure 6.12


def thesis_contexts(study: Study) -> dict[float, list[float]]:
    """The timed context fractions that stand for those of Figure 6.12, each with the thesis's that it is nearest to."""
    timed, drawn = study.profile.evaluation.timed_fractions, {}
    for wanted in THESIS_CONTEXTS:
        nearest = min(timed, key=lambda fraction: abs(fraction - wanted))
        drawn.setdefault(nearest, []).append(wanted)
    return drawn


def overhead(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """The agent's share of time and energy: `overhead.parquet` (Figure 6.12).

    Each prompt is decoded by the agent, and again along the same exits without it (a scripted trace), interleaved. The
    difference is what its decisions cost, end to end. `full` is the full model on the same prompts, and `never` the same
    with an agent that decides at every exit point and never leaves, both without and with a cache; the rest is uncached.
    `decisions` counts them.
    """
    config = study.profile.evaluation
    stage = decoding_stage(study, "overhead", model, language, fraction, "timing_samples", "timing_repeats")

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = chosen_samples(study, language, tokenizer, fraction, config.timing_samples)
        new_tokens, end = study.profile.context.new_tokens, tokenizer.eos_token_id
        never = Agent(policy_of(study, model, language, 0), 1.0)
        settings = [
            Setting(name, rule, cache=cache)
            for cache in (CacheMode.NONE, CacheMode.PROPAGATE)
            for name, rule in (("full", FullDepth()), ("never", never))
        ]
        decisions: dict[tuple[float, str], int] = {}
        for setting in agent_settings(study, model, language, [0]):
            # This cache is exact: the layers of the uncached agent, sooner.
            traces = {
                sample.id: generate(
                    parts, sample.context, new_tokens, setting.rule, CacheMode.RECOMPUTE, end
                ).exit_layers
                for sample in samples
            }
            for sample, trace in traces.items():
                passed = sum(point <= layer for layer in trace for point in parts.exit_points)
                decisions[setting.threshold, sample] = passed
            replay = {sample: Scripted([trace]) for sample, trace in traces.items()}
            settings += [setting, Setting("scripted", replay, setting.threshold)]
        rows = timed_settings(study, parts, tokenizer, samples, settings)
        rows["decisions"] = [
            decisions.get(key) for key in zip(rows["threshold"], rows["sample"], strict=True)
        ]
        rows.to_parquet(folder / "overhead.parquet", index=False)

    return study.stage(stage, "06", measure, timed=True)


def overhead_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """`threshold`, and the agent's cost as shares of the full model's and of the early-exit model's time and energy.

    `windows_of_exit_time` is the same share of the early-exit model's time by another measure: the number of decisions
    times what one takes alone (`decision_cost`), as one gets by windows around decisions. `thesis_context` is what the
    context fraction stands for in Figure 6.12, as text.
    """
    rows = pd.read_parquet(overhead(study, model, language, fraction).path / "overhead.parquet")
    uncached = rows[rows["cache"] == "none"]
    costs = summarise_timings(uncached, ["criterion", "threshold"]).set_index(["criterion", "threshold"])
    full = costs.loc["full"].iloc[0]
    made = uncached[uncached["criterion"] == "agent"].drop_duplicates(["threshold", "sample"])
    decisions = made.groupby("threshold")["decisions"].sum()
    alone = pd.read_parquet(decision_cost(study, model, language).path / "decisions.parquet")
    alone = alone.set_index("method").loc["agent", "microseconds"] / 1e6
    table = []
    for threshold in study.profile.evaluation.thresholds:
        with_agent, without = costs.loc[("agent", threshold)], costs.loc[("scripted", threshold)]
        entry = {
            "threshold": threshold,
            "windows_of_exit_time": decisions[threshold] * alone / with_agent["seconds"],
        }
        for column, name in (("seconds", "time"), ("joules", "energy")):
            difference = with_agent[column] - without[column]
            entry[f"of_full_{name}"] = difference / full[column]
            entry[f"of_exit_{name}"] = difference / with_agent[column]
        table.append(entry)
    stands_for = " and ".join(f"{wanted:.0%}" for wanted in thesis_contexts(study)[fraction])
    return pd.DataFrame(table).assign(
        model=model, language=language, context_fraction=fraction, thesis_context=stands_for
    )


def never_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """What an agent that never leaves adds to the full model's time and energy, without and with a cache.

    Columns: `cache`, `time` and `energy`, each a ratio to the full model's of the same cache.
    """
    rows = pd.read_parquet(overhead(study, model, language, fraction).path / "overhead.parquet")
    rows = rows[rows["criterion"].isin(["full", "never"])]
    costs = summarise_timings(rows, ["cache", "criterion"]).set_index(["cache", "criterion"])
    ratios = costs[["seconds", "joules"]].xs("never", level="criterion") / costs[["seconds", "joules"]].xs(
        "full", level="criterion"
    )
    ratios = ratios.rename(columns={"seconds": "time", "joules": "energy"}).reset_index()
    return ratios.assign(model=model, language=language, context_fraction=fraction)


def decision_cost(study: Study, model: str, language: str) -> Artifact:
    """Time and energy of one decision on random states, for four kinds of criterion: `decisions.parquet` (Figure 6.13)."""
    first, tuned = agent(study, model, language, 0), fine_tuned(study, model, language)
    count = study.profile.evaluation.decisions
    stage = Stage(
        f"decision_cost/{model}-{language}",
        layer="evaluation",
        config={"decisions": count, "dtype": study.profile.dtype},
        inputs=(tuned, first),
    )

    def measure(folder: Path) -> None:
        parts, _ = load_kind(study, model, language, "aggregated")
        methods = decision_methods(parts, study, model, language)
        table = costs(methods, parts.width, count, EnergyMonitor(), parts.device, study.dtype)
        table.to_parquet(folder / "decisions.parquet", index=False)

    return study.stage(stage, "06", measure, timed=True)


def decision_methods(
    parts: ModelParts, study: Study, model: str, language: str
) -> dict[str, Callable[[Tensor], bool]]:
    """How long a decision takes is measured as the decoder takes it: on one (1, D) state, up to a Python bool.

    "agent" decides by its margin, as it does here; the others are the three of Figure 6.13, each ending in a softmax
    (Section 6.4.3).
    """
    policy = policy_of(study, model, language, 0)
    classifier = nn.Linear(parts.width, 2).to(parts.device, study.dtype)

    return {
        "agent": lambda state: bool(policy.margin(state) > 1.0),
        "agent with softmax": lambda state: bool(policy.logits(state).softmax(-1)[0, 1] > 0.9),
        "linear classifier": lambda state: bool(classifier(state).softmax(-1)[0, 1] > 0.9),
        "norm + head + softmax": lambda state: bool(parts.logits(state).softmax(-1).amax() > 0.9),
    }
