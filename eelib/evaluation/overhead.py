"""What deciding costs: end to end, and alone (Figures 6.12, 6.13)."""

from collections.abc import Callable

import pandas as pd
from torch import Tensor, nn

from eelib.data.corpus import CodeFile
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.decisions import costs
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.predict import agent_settings, test_samples
from eelib.evaluation.sweep import Setting, summarise_timings
from eelib.evaluation.timed import timed
from eelib.models.loading import CodeModel
from eelib.models.parts import ModelParts
from eelib.profile import Context

THESIS_CONTEXTS = (0.2, 0.5)  # of Figure 6.12


def thesis_contexts(timed_fractions: list[float]) -> dict[float, list[float]]:
    """The timed context fractions that stand for those of Figure 6.12, each with the thesis's that it is nearest to."""
    drawn: dict[float, list[float]] = {}
    for wanted in THESIS_CONTEXTS:
        nearest = min(timed_fractions, key=lambda fraction: abs(fraction - wanted))
        drawn.setdefault(nearest, []).append(wanted)
    return drawn


def overhead(
    tuned: CodeModel,
    corpus: list[CodeFile],
    agent: ExitPolicy,
    thresholds: list[float],
    temperature: float,
    context_fraction: float,
    timing_samples: int,
    timing_repeats: int,
    context: Context,
) -> pd.DataFrame:
    """An agent's share of time and energy (Figure 6.12).

    Each prompt is decoded by the agent, and again along the same exits without it (a scripted trace), interleaved. The
    difference is what its decisions cost, end to end. `full` is the full model on the same prompts, and `never` the same
    with an agent that decides at every exit point and never leaves, both without and with a cache; the rest is uncached.

    Returns
    -------
    Rows of `sweep.timings`, and `decisions`, how many an agent took.
    """
    parts, new_tokens, end = tuned.parts, context.new_tokens, tuned.tokenizer.eos_token_id
    samples, _ = test_samples(corpus, tuned.tokenizer, context_fraction, timing_samples, context)
    settings = [
        Setting(name, rule, cache=cache)
        for cache in (CacheMode.NONE, CacheMode.PROPAGATE)
        for name, rule in (("full", FullDepth()), ("never", Agent(agent, 1.0)))
    ]
    decisions: dict[tuple[float, str], int] = {}
    for setting in agent_settings(agent, thresholds, temperature):
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
    rows = timed(tuned, corpus, settings, context_fraction, timing_samples, timing_repeats, context)
    keys = zip(rows["threshold"], rows["sample"], strict=True)
    return rows.assign(decisions=[decisions.get(key) for key in keys])


def overhead_frame(rows: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """An agent's cost as shares of the full model's and of the early-exit model's time and energy, a row a `threshold`.

    `windows_of_exit_time` is the same share of the early-exit model's time by another measure: the number of decisions
    times what one takes alone, as one gets by windows around decisions.

    Parameters
    ----------
    rows: of `overhead`, of one model, language and context.
    alone: rows of `decision_cost` of the same model and language.
    """
    uncached = rows[rows["cache"] == "none"]
    costs = summarise_timings(uncached, ["criterion", "threshold"]).set_index(["criterion", "threshold"])
    full = costs.loc["full"].iloc[0]
    made = uncached[uncached["criterion"] == "agent"].drop_duplicates(["threshold", "sample"])
    decisions = made.groupby("threshold")["decisions"].sum()
    one = alone.set_index("method").loc["agent", "microseconds"] / 1e6
    table = []
    for threshold in made["threshold"].unique():
        with_agent, without = costs.loc[("agent", threshold)], costs.loc[("scripted", threshold)]
        entry = {
            "threshold": threshold,
            "windows_of_exit_time": decisions[threshold] * one / with_agent["seconds"],
        }
        for column, name in (("seconds", "time"), ("joules", "energy")):
            difference = with_agent[column] - without[column]
            entry[f"of_full_{name}"] = difference / full[column]
            entry[f"of_exit_{name}"] = difference / with_agent[column]
        table.append(entry)
    return pd.DataFrame(table)


def never_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """What an agent that never leaves adds to the full model's time and energy, without and with a cache.

    Returns
    -------
    `model`, `language`, `context_fraction`, `cache`, `time` and `energy`, each a ratio to the full model's of the same cache.
    """
    keys = ["model", "language", "context_fraction", "cache"]
    rows = rows[rows["criterion"].isin(["full", "never"])]
    costs = summarise_timings(rows, [*keys, "criterion"]).set_index([*keys, "criterion"])
    costs = costs[["seconds", "joules"]]
    ratios = costs.xs("never", level="criterion") / costs.xs("full", level="criterion")
    return ratios.rename(columns={"seconds": "time", "joules": "energy"}).reset_index()


def decision_cost(tuned: CodeModel, agent: ExitPolicy, decisions: int) -> pd.DataFrame:
    """Time and energy of one decision on random states, for four kinds of criterion: rows of `decisions.costs` (Figure 6.13)."""
    parts = tuned.parts
    methods = decision_methods(parts, agent)
    return costs(methods, parts.width, decisions, EnergyMonitor(), parts.device, parts.model.dtype)


def decision_methods(parts: ModelParts, policy: ExitPolicy) -> dict[str, Callable[[Tensor], bool]]:
    """How long a decision takes is measured as the decoder takes it: on one (1, D) state, up to a Python bool.

    "agent" decides by its margin, as it does here; the others are the three of Figure 6.13, each ending in a softmax
    (Section 6.4.3).
    """
    classifier = nn.Linear(parts.width, 2).to(parts.device, parts.model.dtype)

    return {
        "agent": lambda state: bool(policy.margin(state) > 1.0),
        "agent with softmax": lambda state: bool(policy.logits(state).softmax(-1)[0, 1] > 0.9),
        "linear classifier": lambda state: bool(classifier(state).softmax(-1)[0, 1] > 0.9),
        "norm + head + softmax": lambda state: bool(parts.logits(state).softmax(-1).amax() > 0.9),
    }
