"""Time and energy of decoding one prompt at a time, for the settings that the study compares."""

import pandas as pd

from eelib.data.corpus import CodeFile
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import FixedLayer, FullDepth
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.predict import agent_settings, cached_settings, test_samples
from eelib.evaluation.sweep import Setting, timings
from eelib.models.loading import CodeModel
from eelib.profile import Context


def model_timings(
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
    """The base and the fine-tuned model at full depth without and with their cache, and an agent without: rows of
    `sweep.timings` and `kind`."""
    tables = []
    for kind, model in {"base": base, "aggregated": tuned}.items():
        settings = [Setting("full", FullDepth()), Setting("full", FullDepth(), cache=CacheMode.PROPAGATE)]
        if kind == "aggregated":
            settings += agent_settings(agent, thresholds, temperature)
        rows = timed(model, corpus, settings, context_fraction, timing_samples, timing_repeats, context)
        tables.append(rows.assign(kind=kind))
    return pd.concat(tables, ignore_index=True)


def cached_timings(
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
    """The settings of `predict.cached_predictions`: rows of `sweep.timings`."""
    settings = cached_settings(agent, thresholds, temperature)
    return timed(tuned, corpus, settings, context_fraction, timing_samples, timing_repeats, context)


def fixed_exit_timings(
    tuned: CodeModel, corpus: list[CodeFile], context_fraction: float, timing_samples: int, context: Context
) -> pd.DataFrame:
    """Always leaving at an exit point or the last layer: rows of `sweep.timings`; `threshold` is the layer."""
    layers = [*tuned.parts.exit_points, tuned.parts.total_layers]
    settings = [Setting("fixed", FixedLayer(layer), threshold=float(layer)) for layer in layers]
    return timed(tuned, corpus, settings, context_fraction, timing_samples, 1, context)


def timed(
    model: CodeModel,
    corpus: list[CodeFile],
    settings: list[Setting],
    context_fraction: float,
    samples: int,
    repeats: int,
    context: Context,
) -> pd.DataFrame:
    """`sweep.timings` of the first test samples, on this machine's counters."""
    chosen, _ = test_samples(corpus, model.tokenizer, context_fraction, samples, context)
    end = model.tokenizer.eos_token_id
    return timings(model.parts, chosen, settings, context.new_tokens, repeats, EnergyMonitor(), end)
