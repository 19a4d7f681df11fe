"""Stages of notebook 02: fine-tuned models."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eelib.data.samples import evaluation_samples
from eelib.decoding.criteria import FullDepth
from eelib.decoding.generate import generate
from eelib.models.exits import exit_points, loss_weights
from eelib.models.loading import (
    SHIPPED,
    count_parameters,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
)
from eelib.models.parts import ModelParts, take_apart
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.parallel import side_by_side
from eelib.pipeline.shipped import record, shipped_kinds
from eelib.pipeline.study import Study
from eelib.study.stages import Artifact, Stage
from eelib.training.finetune import fine_tune
from eelib.training.loss import layer_losses
from eelib.training.packing import encode_files, pack

KINDS = ("base", "plain", "aggregated")
NAME = "name.txt"  # in the folder of a model that is taken as shipped


def fine_tuned(study: Study, model: str, language: str, kind: str = "aggregated") -> Artifact:
    """A fine-tuned model, which `tuned_name` names for loading, and `log.parquet`.

    Taken as shipped where the profile says so and there is one; else trained, with its checkpoint in `model/`. `kind`
    "aggregated" weights the losses of exit points and last layer; "plain" takes the last layer's alone, with the
    same files, order and steps. The setting of the epoch study keeps snapshots beside `model/`.
    """
    if kind in shipped_kinds(study, model):
        return _shipped(study, model, language, kind)
    data = corpus(study, language)
    epochs = study.profile.epoch_study
    studied = (model, language, kind) == (epochs.model, epochs.language, "aggregated")
    snapshots = epochs.snapshots if studied else 1
    stage = Stage(
        f"fine_tuned/{model}-{language}-{kind}",
        layer="training",
        config={"model": model, "fingerprint": fingerprint(model), "kind": kind, "snapshots": snapshots}
        | study.profile.section("fine_tuning"),
        inputs=(data,),
    )

    def train(folder: Path) -> None:
        tokenizer = load_tokenizer(model)
        ids = encode_files((" ".join(file.code) for file in files_of(data, "train")), tokenizer)
        layers = load_config(model).num_hidden_layers
        config = study.profile.fine_tuning
        weights = loss_weights(layers, config.decay, config.loss_weights)
        weights = {layers: 1.0} if kind == "plain" else weights
        name = f"{model}, {language}, {kind}"
        fine_tune(load_model(model), tokenizer, ids, weights, config, folder, name, snapshots)

    return study.stage(stage, "02", train)


def _shipped(study: Study, model: str, language: str, kind: str) -> Artifact:
    name = f"{model}+{kind}"
    stage = Stage(
        f"fine_tuned/{model}-{language}-{kind}",
        layer="training",
        config={"model": name, "fingerprint": fingerprint(name)},
    )

    def take(folder: Path) -> None:
        (folder / NAME).write_text(name)
        log = pd.read_csv(SHIPPED / model / f"{kind}_log.csv")
        log.to_parquet(folder / "log.parquet", index=False)

    return study.stage(stage, "02", take)


def tuned_name(folder: Path) -> str:
    """What `load_model` and `load_tokenizer` call the model of a `fine_tuned` artifact's folder."""
    shipped = folder / NAME
    return shipped.read_text() if shipped.exists() else str(folder / "model")


def all_fine_tuned(study: Study) -> list[Artifact]:
    """The fine-tuned models of all settings, trained side by side: those with the aggregated loss, then the plain ones."""
    jobs = [(*setting, kind) for kind in ("aggregated", "plain") for setting in study.settings]
    return side_by_side(study, fine_tuned, jobs)


def device() -> torch.device:
    """Where models decode: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_kind(
    study: Study, model: str, language: str, kind: str
) -> tuple[ModelParts, PreTrainedTokenizerBase]:
    """A base or fine-tuned model taken apart, in the profile's number format, and its tokenizer."""
    name = model if kind == "base" else tuned_name(fine_tuned(study, model, language, kind).path)
    return take_apart(load_model(name, study.dtype).to(device())), load_tokenizer(name)


def training_log(study: Study) -> pd.DataFrame:
    """One row a step of every setting, aggregated loss: `model`, `language`, `step`, `loss`, `grad_norm`, and `loss_layer_<l>`."""
    frames = []
    for model, language in study.settings:
        log = pd.read_parquet(fine_tuned(study, model, language).path / "log.parquet")
        frames.append(log.assign(model=model, language=language))
    return pd.concat(frames, ignore_index=True)


def recipe(study: Study, model: str) -> dict:
    """Hyperparameters of the aggregated fine-tuning that a model has: the profile's, or those of the last run that ships."""
    if "aggregated" in shipped_kinds(study, model):
        kept = record(model, "aggregated")
        ran = kept["recipe"] | {"tokens_seen": kept["tokens_seen"], "runs": 1 + len(kept["earlier"])}
    else:
        ran = study.profile.section("fine_tuning")["fine_tuning"]
    return {name: value for name, value in ran.items() if name != "shipped"}


def hyperparameters(study: Study) -> pd.DataFrame:
    """Table 6.5 of what ran: `hyperparameter`, and a column a model with its values as text."""
    recipes = {model: pd.Series(recipe(study, model)).astype(str) for model in study.profile.models}
    return pd.DataFrame(recipes).fillna("").rename_axis("hyperparameter").reset_index()


def token_grid(
    study: Study, model: str, language: str, tokens: int = 10
) -> tuple[list[list[str]], ModelParts]:
    """Figure 1.1: for one completion of the full fine-tuned model, what each exit point and the last layer predict.

    It has at most `tokens` tokens.

    Returns
    -------
    One list of decoded tokens an exit point, then the last layer's; and the model.
    """
    parts, tokenizer = load_kind(study, model, language, "aggregated")
    tests = files_of(corpus(study, language), "test")
    samples, _ = evaluation_samples(tests, tokenizer, 0.3, 1, study.profile.context)
    sample = samples[0]
    completion = generate(parts, sample.context, tokens, FullDepth(), end=tokenizer.eos_token_id).tokens
    with torch.inference_mode():
        states = parts.hidden_states(torch.tensor([sample.context + completion[:-1]], device=parts.device))
        chosen = [
            states[layer - 1][0, -len(completion) :] for layer in [*parts.exit_points, parts.total_layers]
        ]
        ids = [parts.logits(state).argmax(-1).tolist() for state in chosen]
    return [[tokenizer.decode([token]).strip() for token in row] for row in ids], parts


def weights_frame(study: Study) -> pd.DataFrame:
    """`model`, `layer`, `weight`, `half` of the aggregated loss as the model was fine-tuned with it (Figure 4.6)."""
    rows = []
    for model in study.profile.models:
        layers, ran = load_config(model).num_hidden_layers, recipe(study, model)
        for layer, weight in loss_weights(layers, ran["decay"], ran["loss_weights"]).items():
            half = "last" if layer == layers else "first" if layer <= layers // 2 else "second"
            name = f"{model} ({ran['loss_weights']} weights)"
            rows.append({"model": name, "layer": layer, "weight": weight, "half": half})
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


def validation_losses(study: Study, model: str, language: str, blocks: int = 4) -> Artifact:
    """Next-token loss of each exit point and the last layer on validation files, for every kind: `losses.parquet`.

    Exit points are decoded at the share of positions that training takes, the same for all kinds and layers.
    """
    data = corpus(study, language)
    tuned = [fine_tuned(study, model, language, kind) for kind in KINDS if kind != "base"]
    stage = Stage(
        f"validation/{model}-{language}",
        layer="training",
        config={
            "fingerprint": fingerprint(model),
            "blocks": blocks,
            "length": study.profile.fine_tuning.sequence_length,
            "positions": study.profile.fine_tuning.exit_positions,
            "dtype": study.profile.dtype,
        },
        inputs=(data, *tuned),
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
                states, drawn = parts.hidden_states(batch), torch.Generator().manual_seed(0)
                share = study.profile.fine_tuning.exit_positions
                losses = layer_losses(parts, states, batch, layers, share, drawn)
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
