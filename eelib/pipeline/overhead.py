"""Stages of notebook 06: what deciding costs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from eelib.decoding.criteria import FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.sweep import Setting, summarise_timings, timings
from eelib.models.parts import ModelParts
from eelib.pipeline.agents import agent, policy_of
from eelib.pipeline.models import fine_tuned, load_kind
from eelib.pipeline.results import agent_settings, chosen_samples, decoding_stage
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage


def overhead(study: Study, model: str, language: str, fraction: float) -> Artifact:
    """The agent's share of time and energy: `overhead.parquet` (Figure 6.12).

    Each prompt is decoded by the agent, and again along the same exits without it (a scripted trace), interleaved. The
    difference is what its decisions cost, end to end. `full` is the full model on the same prompts. All uncached.
    """
    config = study.profile.evaluation
    stage = decoding_stage(study, "overhead", model, language, fraction, "timing_samples", "timing_repeats")

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples, _ = chosen_samples(study, language, tokenizer, fraction, config.timing_samples)
        new_tokens, monitor = study.profile.context.new_tokens, EnergyMonitor()
        frames = []
        for sample in samples:
            settings = [Setting("full", FullDepth())]
            for setting in agent_settings(study, model, language, [0]):
                trace = generate(parts, sample.context, new_tokens, setting.rule).exit_layers
                settings += [setting, Setting("scripted", Scripted([trace]), setting.threshold)]
            frames.append(timings(parts, [sample], settings, new_tokens, config.timing_repeats, monitor))
        pd.concat(frames).to_parquet(folder / "overhead.parquet", index=False)

    return study.stage(stage, "06", measure)


def overhead_frame(study: Study, model: str, language: str, fraction: float) -> pd.DataFrame:
    """`threshold`, and the agent's cost as shares of the full model's and of the early-exit model's time and energy."""
    rows = pd.read_parquet(overhead(study, model, language, fraction).path / "overhead.parquet")
    costs = summarise_timings(rows, ["criterion", "threshold"]).set_index(["criterion", "threshold"])
    full = costs.loc["full"].iloc[0]
    table = []
    for threshold in study.profile.evaluation.thresholds:
        with_agent, without = costs.loc[("agent", threshold)], costs.loc[("scripted", threshold)]
        entry = {"threshold": threshold}
        for column, name in (("seconds", "time"), ("joules", "energy")):
            difference = with_agent[column] - without[column]
            entry[f"of_full_{name}"] = difference / full[column]
            entry[f"of_exit_{name}"] = difference / with_agent[column]
        table.append(entry)
    return pd.DataFrame(table).assign(model=model, language=language, context_fraction=fraction)


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
        monitor = EnergyMonitor()
        chunk = min(20_000 if monitor.source == "nvml" else 500, count)  # a second or so: see `timings`
        totals = {name: [0.0, 0.0] for name in methods}
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for decide in methods.values():
                decide(torch.zeros(1, parts.width, device=parts.device, dtype=study.dtype))  # warm-up
            for _ in range(count // chunk):
                states = torch.randn(chunk, 1, parts.width, generator=generator).to(parts.device, study.dtype)
                for name, decide in methods.items():
                    with monitor.measure() as measured:
                        for state in states:
                            decide(state)
                    totals[name][0] += measured.seconds
                    totals[name][1] += measured.joules
        decided = count // chunk * chunk
        table = [
            {"method": name, "microseconds": 1e6 * seconds / decided, "joules": joules / decided}
            for name, (seconds, joules) in totals.items()
        ]
        pd.DataFrame(table).to_parquet(folder / "decisions.parquet", index=False)

    return study.stage(stage, "06", measure)


def decision_methods(
    parts: ModelParts, study: Study, model: str, language: str
) -> dict[str, Callable[[Tensor], bool]]:
    """How long a decision takes is measured as the decoder takes it: on one (1, D) state, up to a Python bool."""
    policy = policy_of(study, model, language, 0)
    classifier = nn.Linear(parts.width, 2).to(parts.device, study.dtype)

    return {
        "agent": lambda state: bool(policy.margin(state) > 1.0),
        "agent with softmax": lambda state: bool(policy.probability(state) > 0.9),
        "linear classifier": lambda state: bool(classifier(state).softmax(-1)[0, 1] > 0.9),
        "norm + head + softmax": lambda state: bool(parts.logits(state).softmax(-1).amax() > 0.9),
    }
