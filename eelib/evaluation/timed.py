"""Time and energy of decoding one prompt at a time, for the settings that the study compares."""

from dataclasses import replace

import numpy as np
import pandas as pd

from eelib.data.corpus import CodeFile
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FixedLayer, FullDepth, Scripted
from eelib.decoding.generate import generate
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.predict import agent_settings, cached_settings, test_samples
from eelib.evaluation.statistics import bootstrap_interval
from eelib.evaluation.sweep import Setting, timings
from eelib.models.loading import CodeModel
from eelib.profile import Context

TWICE = ["model", "language", "context_fraction", "cache"]  # where the same work is timed twice


def setting_timings(
    base: CodeModel,
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
    """All that Chapter 6 compares by time in a setting, in one go: every prompt in every way before the next one.

    - The base and the fine-tuned model at full depth, without and with their cache. These two cost the same: what they differ by
      is what the measurement cannot tell (`same_work`).
    - An agent without a cache, and with every one, as in `predict.cached_settings`.
    - With the cache, what deciding costs: an agent's exits again without the agent (a scripted trace), and an agent that decides
      at every exit point and never leaves. Without a cache, where the prefix runs again for every token, decisions are as many
      and drown in the noise of the layers.

    Returns
    -------
    Rows of `sweep.timings`, and `decisions`, how many the agent of a scripted trace took.
    """
    parts, end = tuned.parts, tuned.tokenizer.eos_token_id
    samples, _ = test_samples(corpus, tuned.tokenizer, context_fraction, timing_samples, context)
    settings = [
        Setting("full", FullDepth(), cache=cache, kind=kind)
        for cache in (CacheMode.NONE, CacheMode.PROPAGATE)
        for kind in ("base", "aggregated")
    ]
    settings += agent_settings(agent, thresholds, temperature)
    settings += [
        setting for setting in cached_settings(agent, thresholds, temperature) if setting.criterion == "agent"
    ]
    settings.append(Setting("never", Agent(agent, 1.0), cache=CacheMode.PROPAGATE))
    decisions: dict[tuple[float, str], int] = {}
    for setting in agent_settings(agent, thresholds, temperature, cache=CacheMode.PROPAGATE):
        traces = {
            sample.id: generate(
                parts, sample.context, context.new_tokens, setting.rule, setting.cache, end
            ).exit_layers
            for sample in samples
        }
        for sample, trace in traces.items():
            passed = sum(point <= layer for layer in trace for point in parts.exit_points)
            decisions[setting.threshold, sample] = passed
        replay = {sample: Scripted([trace]) for sample, trace in traces.items()}
        settings.append(replace(setting, criterion="scripted", rule=replay, seed=-1))
    models = {"base": base.parts, "aggregated": parts}
    rows = timings(models, samples, settings, context.new_tokens, timing_repeats, EnergyMonitor(), end)
    traced = (rows["cache"] == CacheMode.PROPAGATE.value) & rows["criterion"].isin(["agent", "scripted"])
    keys = zip(rows["threshold"], rows["sample"], traced, strict=True)
    return rows.assign(decisions=[decisions[key[:2]] if key[2] else None for key in keys])


def fixed_exit_timings(
    tuned: CodeModel, corpus: list[CodeFile], context_fraction: float, timing_samples: int, context: Context
) -> pd.DataFrame:
    """Always leaving at an exit point or the last layer: rows of `sweep.timings`; `threshold` is the layer."""
    layers = [*tuned.parts.exit_points, tuned.parts.total_layers]
    settings = [Setting("fixed", FixedLayer(layer), threshold=float(layer)) for layer in layers]
    samples, _ = test_samples(corpus, tuned.tokenizer, context_fraction, timing_samples, context)
    models, end = {"aggregated": tuned.parts}, tuned.tokenizer.eos_token_id
    return timings(models, samples, settings, context.new_tokens, 1, EnergyMonitor(), end)


def same_work(rows: pd.DataFrame) -> pd.DataFrame:
    """What the same work takes twice (A/A): the base's time a token over the fine-tuned model's, both at full depth.

    Parameters
    ----------
    rows: of `setting_timings`, of any settings.

    Returns
    -------
    A row a model, language, context and cache: `prompts`, `ratio` (geometric mean over prompts) with `low` and `high` (95%, bootstrap over
    prompts), and `within`, the largest distance from 1 of the three: a difference of times smaller than that is not told from none. A single prompt has no interval.
    """
    full = rows[rows["criterion"] == "full"].assign(pace=rows["seconds"] / rows["tokens"])
    sides = full.pivot_table(
        index=[*TWICE, "sample"], columns="kind", values="pace", aggfunc="median", sort=False
    )
    table = []
    for place, own in sides.groupby(level=TWICE, sort=False):
        logarithms = np.log(own["base"] / own["aggregated"])
        mean, low, high = np.exp(bootstrap_interval(logarithms, range(len(own))))
        entry = {"prompts": len(own), "ratio": mean, "low": low, "high": high}
        table.append(
            dict(zip(TWICE, place, strict=True))
            | entry
            | {"within": np.nanmax([abs(mean - 1), high - 1, 1 - low])}
        )
    return pd.DataFrame(table)
