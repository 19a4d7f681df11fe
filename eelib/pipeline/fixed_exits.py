"""Stages of notebook 03: what every layer of a model can decode, and whole completions from fixed exits."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eelib.data.samples import Sample, evaluation_samples
from eelib.decoding.criteria import FixedLayer, FullDepth
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.statistics import bootstrap_interval, paired_difference
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings, timings
from eelib.models.exits import exit_points
from eelib.models.loading import fingerprint
from eelib.models.parts import ModelParts
from eelib.pipeline.corpora import corpus, files_of, projects_of
from eelib.pipeline.models import KINDS, fine_tuned, load_kind
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage


def layer_accuracy(study: Study, model: str, language: str, kind: str) -> Artifact:
    """Next-token accuracy and agreement with the last layer of every layer: `layers.parquet` (Figure 4.9).

    The model reads context and reference at once (teacher forcing), so every layer predicts each reference token from
    the same prefix. Columns: `layer`, `sample`, `accuracy`, `agreement` (of the sample's tokens), `tokens`.
    """
    data = corpus(study, language)
    inputs = (data,) if kind == "base" else (data, fine_tuned(study, model, language, kind))
    stage = Stage(
        f"layer_accuracy/{model}-{language}-{kind}",
        layer="evaluation",
        config={"model": model, "fingerprint": fingerprint(model), "kind": kind, "dtype": study.profile.dtype}
        | study.profile.section("fixed_exits", "context"),
        inputs=inputs,
    )

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, kind)
        samples = _samples(study, data, tokenizer)
        frames = []
        for sample in samples:
            ids = torch.tensor([sample.context + sample.reference], device=parts.device)
            target = ids[0, len(sample.context) :]
            with torch.inference_mode():
                states = parts.hidden_states(ids[:, :-1])
                chosen = torch.stack([state[0, -len(target) :] for state in states])
                predicted = parts.logits(chosen).argmax(-1)
            frame = pd.DataFrame(
                {
                    "layer": range(1, parts.total_layers + 1),
                    "sample": sample.id,
                    "accuracy": (predicted == target).double().mean(1).cpu().numpy(),
                    "agreement": (predicted == predicted[-1]).double().mean(1).cpu().numpy(),
                    "tokens": len(target),
                }
            )
            frames.append(frame)
        pd.concat(frames).to_parquet(folder / "layers.parquet", index=False)

    return study.stage(stage, "03", measure)


def fixed_exits(study: Study, model: str, language: str) -> Artifact:
    """Predictions when always leaving at one layer, for every layer: `predictions.parquet` (Figure 4.10)."""
    stage, data = _fixed_exit_stage(study, "fixed_exits", model, language)

    def decode(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples = _samples(study, data, tokenizer)
        rows = predictions(parts, tokenizer, samples, layer_settings(parts), study.profile.context.new_tokens)
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "03", decode)


def fixed_exit_timings(study: Study, model: str, language: str) -> Artifact:
    """Time and energy of the exit points and the last layer, one prompt at a time on a subset: `timings.parquet`."""
    stage, data = _fixed_exit_stage(study, "fixed_exit_timings", model, language)

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples = _samples(study, data, tokenizer)[: study.profile.fixed_exits.timing_samples]
        new_tokens, end = study.profile.context.new_tokens, tokenizer.eos_token_id
        layers = [*parts.exit_points, parts.total_layers]
        settings = [Setting("fixed", FixedLayer(layer), threshold=float(layer)) for layer in layers]
        rows = timings(parts, samples, settings, new_tokens, 1, EnergyMonitor(), end)
        rows.to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "03", measure, timed=True)


def _fixed_exit_stage(study: Study, what: str, model: str, language: str) -> tuple[Stage, Artifact]:
    """A stage that decodes with fixed exits, and the corpus it decodes."""
    data = corpus(study, language)
    config = {"dtype": study.profile.dtype} | study.profile.section("fixed_exits", "context")
    inputs = (data, fine_tuned(study, model, language))
    return Stage(f"{what}/{model}-{language}", layer="evaluation", config=config, inputs=inputs), data


def layer_settings(parts: ModelParts) -> list[Setting]:
    """Always leaving at one layer, for every layer. Deeper ones do not run, so that agreement with the last is not known."""
    layers = range(1, parts.total_layers + 1)
    return [Setting("fixed", FullDepth(), threshold=float(layer), depth=layer) for layer in layers]


def all_layer_accuracies(study: Study) -> list[Artifact]:
    """Accuracy by layer of all settings and kinds, side by side."""
    jobs = [(*setting, kind) for setting in study.settings for kind in KINDS]
    return side_by_side(study, layer_accuracy, jobs)


def all_fixed_exits(study: Study) -> list[Artifact]:
    """Predictions of all settings side by side, then their timings one after the other; predictions first."""
    decoded = side_by_side(study, fixed_exits, study.settings)
    return [*decoded, *[fixed_exit_timings(study, *setting) for setting in study.settings]]


def fixed_exit_frame(study: Study, model: str, language: str) -> pd.DataFrame:
    """One row a layer: metrics over all samples, `time_s` and `energy_j` over the timed ones, `flops` a token.

    Time and energy are NaN at layers that are no exit points.
    """
    artifact = fixed_exits(study, model, language)
    metrics = summarise(pd.read_parquet(artifact.path / "predictions.parquet"), language)
    timed = fixed_exit_timings(study, model, language)
    costs = summarise_timings(pd.read_parquet(timed.path / "timings.parquet"))
    frame = metrics.merge(costs[["threshold", "seconds", "joules"]], on="threshold", how="left")
    frame = frame.rename(columns={"threshold": "layer", "seconds": "time_s", "joules": "energy_j"})
    return frame.astype({"layer": int}).assign(model=model, language=language)


def _samples(study: Study, data: Artifact, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    config = study.profile.fixed_exits
    samples, _ = evaluation_samples(
        files_of(data, "test"), tokenizer, config.context_fraction, config.samples, study.profile.context
    )
    return samples


def sample_accuracies(study: Study) -> pd.DataFrame:
    """The rows of `layer_accuracy` of every setting, with `model`, `language`, `kind` and the sample's `project`."""
    frames = []
    for model, language in study.settings:
        projects = projects_of(study, language)
        for kind in KINDS:
            layers = pd.read_parquet(layer_accuracy(study, model, language, kind).path / "layers.parquet")
            layers["project"] = layers["sample"].map(projects)
            frames.append(layers.assign(model=model, language=language, kind=kind))
    return pd.concat(frames, ignore_index=True)


def accuracy_frame(samples: pd.DataFrame) -> pd.DataFrame:
    """`model`, `language`, `kind`, `layer`, `accuracy`, `agreement`, `tokens`: over all samples' tokens (Figure 4.9).

    Every sample has as many tokens, so that a mean of samples is one of tokens.
    """
    groups = samples.groupby(["model", "language", "kind", "layer"], sort=False)
    frame = groups[["accuracy", "agreement"]].mean()
    frame["tokens"] = groups["tokens"].sum()
    return frame.reset_index()


def kinds_frame(samples: pd.DataFrame) -> pd.DataFrame:
    """The kinds of model compared at the first exit point and the last layer, with 95% bootstrap intervals over projects.

    One row a setting, layer and kind: `accuracy` with `low` and `high`; `over_plain` is the mean paired difference to the
    plainly fine-tuned model on the same samples, with `over_plain_low` and `over_plain_high`.
    """
    rows = []
    for (model, language), setting in samples.groupby(["model", "language"], sort=False):
        last = setting["layer"].max()
        for layer in (exit_points(last)[0], last):
            at = setting[setting["layer"] == layer]
            by_kind = at.pivot(index=["project", "sample"], columns="kind", values="accuracy")
            groups = by_kind.index.get_level_values("project")
            for kind in at["kind"].unique():
                values = by_kind[kind]
                own = bootstrap_interval(values, groups)
                paired = paired_difference(values, by_kind["plain"], groups)
                row = {"model": model, "language": language, "layer": layer, "kind": kind}
                row |= {"accuracy": own.mean, "low": own.low, "high": own.high}
                row |= {
                    "over_plain": paired.mean,
                    "over_plain_low": paired.low,
                    "over_plain_high": paired.high,
                    "samples": len(values),
                    "projects": groups.nunique(),
                }
                rows.append(row)
    return pd.DataFrame(rows)
