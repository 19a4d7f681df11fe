"""Stages of notebooks 02 and 03: fine-tuned models, and what their layers can decode."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eelib.data.samples import Sample, evaluation_samples
from eelib.decoding.criteria import FixedLayer, FullDepth
from eelib.decoding.generate import generate
from eelib.evaluation.energy import EnergyMonitor
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings, timings
from eelib.models.exits import exit_points, loss_weights
from eelib.models.loading import count_parameters, fingerprint, load_config, load_model, load_tokenizer
from eelib.models.parts import ModelParts, take_apart
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage
from eelib.training.finetune import fine_tune
from eelib.training.loss import layer_losses
from eelib.training.packing import encode_files, pack

KINDS = ("base", "aggregated")


def fine_tuned(study: Study, model: str, language: str) -> Artifact:
    """A model fine-tuned with the aggregated loss: a checkpoint in `model/` and `log.parquet`."""
    data = corpus(study, language)
    stage = Stage(
        f"fine_tuned/{model}-{language}",
        layer="training",
        config={"model": model, "fingerprint": fingerprint(model)} | study.profile.section("fine_tuning"),
        inputs=(data,),
    )

    def train(folder: Path) -> None:
        tokenizer = load_tokenizer(model)
        ids = encode_files((" ".join(file.code) for file in files_of(data, "train")), tokenizer)
        fine_tune(
            load_model(model), tokenizer, ids, study.profile.fine_tuning, folder, f"{model}, {language}"
        )

    return study.stage(stage, "02", train)


def all_fine_tuned(study: Study) -> list[Artifact]:
    """The fine-tuned models of all settings, trained side by side."""
    return side_by_side(study, fine_tuned, study.settings)


def device() -> torch.device:
    """Where models decode: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_kind(
    study: Study, model: str, language: str, kind: str
) -> tuple[ModelParts, PreTrainedTokenizerBase]:
    """A base or fine-tuned model taken apart, in the profile's number format, and its tokenizer."""
    name = model if kind == "base" else str(fine_tuned(study, model, language).path / "model")
    return take_apart(load_model(name, study.dtype).to(device())), load_tokenizer(name)


def training_log(study: Study) -> pd.DataFrame:
    """One row a step of every setting: `model`, `language`, `step`, `loss`, `grad_norm`, and `loss_layer_<l>`."""
    frames = []
    for model, language in study.settings:
        log = pd.read_parquet(fine_tuned(study, model, language).path / "log.parquet")
        frames.append(log.assign(model=model, language=language))
    return pd.concat(frames, ignore_index=True)


def token_grid(
    study: Study, model: str, language: str, tokens: int = 10
) -> tuple[list[list[str]], ModelParts]:
    """Figure 1.1: for one completion of the full fine-tuned model, what each exit point and the last layer predict.

    Returns
    -------
    One list of decoded tokens an exit point, then the last layer's; and the model.
    """
    parts, tokenizer = load_kind(study, model, language, "aggregated")
    tests = files_of(corpus(study, language), "test")
    samples, _ = evaluation_samples(tests, tokenizer, 0.3, 1, study.profile.context)
    sample = samples[0]
    completion = generate(parts, sample.context, tokens, FullDepth()).tokens
    with torch.inference_mode():
        states = parts.hidden_states(torch.tensor([sample.context + completion[:-1]], device=parts.device))
        chosen = [states[layer - 1][0, -tokens:] for layer in [*parts.exit_points, parts.total_layers]]
        ids = [parts.logits(state).argmax(-1).tolist() for state in chosen]
    return [[tokenizer.decode([token]).strip() for token in row] for row in ids], parts


def layer_accuracy(study: Study, model: str, language: str, kind: str) -> Artifact:
    """Next-token accuracy and agreement with the last layer of every layer: `layers.parquet` (Figure 4.9).

    The model reads context and reference at once (teacher forcing), so every layer predicts each reference token from
    the same prefix. Columns: `layer`, `accuracy`, `agreement`, `tokens`.
    """
    data = corpus(study, language)
    inputs = (data,) if kind == "base" else (data, fine_tuned(study, model, language))
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
        correct = torch.zeros(parts.total_layers)
        agreeing = torch.zeros(parts.total_layers)
        count = 0
        for sample in samples:
            ids = torch.tensor([sample.context + sample.reference], device=parts.device)
            target = ids[0, len(sample.context) :]
            with torch.inference_mode():
                states = parts.hidden_states(ids[:, :-1])
                chosen = torch.stack([state[0, -len(target) :] for state in states])
                predicted = parts.logits(chosen).argmax(-1)
            correct += (predicted == target).sum(1).cpu()
            agreeing += (predicted == predicted[-1]).sum(1).cpu()
            count += len(target)
        frame = pd.DataFrame(
            {
                "layer": range(1, parts.total_layers + 1),
                "accuracy": (correct / count).numpy(),
                "agreement": (agreeing / count).numpy(),
                "tokens": count,
            }
        )
        frame.to_parquet(folder / "layers.parquet", index=False)

    return study.stage(stage, "03", measure)


def fixed_exits(study: Study, model: str, language: str) -> Artifact:
    """Predictions when always leaving at one layer: `predictions.parquet` (Figure 4.10)."""
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    stage = Stage(
        f"fixed_exits/{model}-{language}",
        layer="evaluation",
        config={"dtype": study.profile.dtype} | study.profile.section("fixed_exits", "context"),
        inputs=(data, tuned),
    )

    def decode(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples = _samples(study, data, tokenizer)
        rows = predictions(
            parts, tokenizer, samples, _fixed_settings(parts), study.profile.context.new_tokens
        )
        rows.to_parquet(folder / "predictions.parquet", index=False)

    return study.stage(stage, "03", decode)


def fixed_exit_timings(study: Study, model: str, language: str) -> Artifact:
    """Time and energy of the same, one prompt at a time on a subset: `timings.parquet`."""
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    stage = Stage(
        f"fixed_exit_timings/{model}-{language}",
        layer="evaluation",
        config={"dtype": study.profile.dtype} | study.profile.section("fixed_exits", "context"),
        inputs=(data, tuned),
    )

    def measure(folder: Path) -> None:
        parts, tokenizer = load_kind(study, model, language, "aggregated")
        samples = _samples(study, data, tokenizer)[: study.profile.fixed_exits.timing_samples]
        new_tokens = study.profile.context.new_tokens
        rows = timings(parts, samples, _fixed_settings(parts), new_tokens, repeats=1, monitor=EnergyMonitor())
        rows.to_parquet(folder / "timings.parquet", index=False)

    return study.stage(stage, "03", measure)


def _fixed_settings(parts: ModelParts) -> list[Setting]:
    layers = [*parts.exit_points, parts.total_layers]
    return [Setting("fixed", FixedLayer(layer), threshold=float(layer)) for layer in layers]


def all_layer_accuracies(study: Study) -> list[Artifact]:
    """Accuracy by layer of all settings and kinds, side by side."""
    jobs = [(*setting, kind) for setting in study.settings for kind in KINDS]
    return side_by_side(study, layer_accuracy, jobs)


def all_fixed_exits(study: Study) -> list[Artifact]:
    """Predictions of all settings side by side, then their timings one after the other; predictions first."""
    decoded = side_by_side(study, fixed_exits, study.settings)
    return [*decoded, *[fixed_exit_timings(study, *setting) for setting in study.settings]]


def fixed_exit_frame(study: Study, model: str, language: str) -> pd.DataFrame:
    """One row an exit layer: metrics over all samples, `time_s` and `energy_j` over the timed ones, `flops` a token."""
    artifact = fixed_exits(study, model, language)
    metrics = summarise(pd.read_parquet(artifact.path / "predictions.parquet"), language)
    timed = fixed_exit_timings(study, model, language)
    costs = summarise_timings(pd.read_parquet(timed.path / "timings.parquet"))
    frame = metrics.merge(costs[["threshold", "seconds", "joules"]], on="threshold")
    frame["flops"] /= study.profile.context.new_tokens
    frame = frame.rename(columns={"threshold": "layer", "seconds": "time_s", "joules": "energy_j"})
    return frame.astype({"layer": int}).assign(model=model, language=language)


def _samples(study: Study, data: Artifact, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    config = study.profile.fixed_exits
    samples, _ = evaluation_samples(
        files_of(data, "test"), tokenizer, config.context_fraction, config.samples, study.profile.context
    )
    return samples


def weights_frame(study: Study) -> pd.DataFrame:
    """`model`, `layer`, `weight`, `half` of the aggregated loss (Figure 4.6)."""
    rows = []
    for model in study.profile.models:
        layers = load_config(model).num_hidden_layers
        for layer, weight in loss_weights(layers, study.profile.fine_tuning.decay).items():
            half = "last" if layer == layers else "first" if layer <= layers // 2 else "second"
            rows.append({"model": model, "layer": layer, "weight": weight, "half": half})
    return pd.DataFrame(rows)


def models_table(study: Study) -> pd.DataFrame:
    """Table 4.2 of the models that run: parameters, layers, context window, hidden size, exit points."""
    rows = []
    for model in study.profile.models:
        config = load_config(model)
        rows.append(
            {
                "model": model,
                "parameters": f"{count_parameters(model) / 1e6:.1f}M",
                "layers": config.num_hidden_layers,
                "max_context": config.max_position_embeddings,
                "hidden_size": config.hidden_size,
                "exit_points": " ".join(map(str, exit_points(config.num_hidden_layers))),
            }
        )
    return pd.DataFrame(rows)


def validation_losses(study: Study, model: str, language: str, blocks: int = 24) -> Artifact:
    """Next-token loss of each exit point and the last layer on validation files, base and fine-tuned: `losses.parquet`."""
    data, tuned = corpus(study, language), fine_tuned(study, model, language)
    stage = Stage(
        f"validation/{model}-{language}",
        layer="training",
        config={
            "fingerprint": fingerprint(model),
            "blocks": blocks,
            "length": study.profile.fine_tuning.sequence_length,
            "dtype": study.profile.dtype,
        },
        inputs=(data, tuned),
    )

    def measure(folder: Path) -> None:
        rows = []
        for kind in KINDS:
            parts, tokenizer = load_kind(study, model, language, kind)
            ids = encode_files((" ".join(file.code) for file in files_of(data, "validation")), tokenizer)
            packed = pack(ids, study.profile.fine_tuning.sequence_length)
            chosen = np.linspace(0, len(packed) - 1, min(blocks, len(packed))).astype(int)
            batch = torch.from_numpy(packed[chosen].astype(np.int64)).to(parts.device)
            layers = [*parts.exit_points, parts.total_layers]
            with torch.inference_mode():
                losses = layer_losses(parts, parts.hidden_states(batch), batch, layers)
            rows += [{"kind": kind, "layer": layer, "loss": loss.item()} for layer, loss in losses.items()]
        pd.DataFrame(rows).to_parquet(folder / "losses.parquet", index=False)

    return study.stage(stage, "02", measure)


def validation_frame(study: Study) -> pd.DataFrame:
    """Validation loss by exit layer: `model`, `language`, `layer`, and a column a kind of model."""
    frames = []
    for model, language in study.settings:
        losses = pd.read_parquet(validation_losses(study, model, language).path / "losses.parquet")
        table = losses.pivot(index="layer", columns="kind", values="loss")[list(KINDS)].reset_index()
        frames.append(table.assign(model=model, language=language)[["model", "language", "layer", *KINDS]])
    return pd.concat(frames, ignore_index=True)


def accuracy_frame(study: Study) -> pd.DataFrame:
    """`model`, `language`, `kind`, `layer`, `accuracy`, `agreement` of every setting (Figure 4.9)."""
    frames = []
    for model, language in study.settings:
        for kind in KINDS:
            layers = pd.read_parquet(layer_accuracy(study, model, language, kind).path / "layers.parquet")
            frames.append(layers.assign(model=model, language=language, kind=kind))
    return pd.concat(frames, ignore_index=True)
