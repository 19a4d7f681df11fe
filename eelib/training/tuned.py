"""The models of the study: bases, and fine-tunings that ship or are trained in the run."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from eelib import paths
from eelib.data.corpus import CodeFile, split_of
from eelib.models.exits import exit_points, loss_weights
from eelib.models.loading import (
    CodeModel,
    count_parameters,
    fingerprint,
    load_code_model,
    load_config,
    ships,
)
from eelib.models.shipped_tunings import record
from eelib.profile import FineTuning
from eelib.training.loss import layer_losses
from eelib.training.packing import encode_files, pack

KINDS = ("base", "plain", "aggregated")
NAME = "name.json"  # in the folder of a model that is there already


def there_already(model: str, kind: str, shipped: bool) -> dict[str, str] | None:
    """`name` and `fingerprint` of a model that is not trained in the run: a base, or a fine-tuning taken as shipped."""
    if kind == "base":
        return {"name": model, "fingerprint": fingerprint(model)}
    if shipped and ships(model, kind):
        name = f"{model}+{kind}"
        return {"name": name, "fingerprint": fingerprint(name)}
    return None


def take(name: str, fingerprint: str, folder: Path) -> None:
    """Keep the name of a model that is there already, and the log of the training that made it if it ships."""
    (folder / NAME).write_text(json.dumps({"name": name, "fingerprint": fingerprint}) + "\n")
    base, _, kind = name.partition("+")
    if kind:
        pd.read_csv(paths.MODELS / base / f"{kind}_log.csv").to_parquet(folder / "log.parquet", index=False)


def tuned_name(folder: Path) -> str:
    """What `load_model` and `load_tokenizer` call the model that `take` or `train` left in a folder."""
    kept = folder / NAME
    return json.loads(kept.read_text())["name"] if kept.exists() else str(folder / "model")


def load_tuned(folder: Path, dtype: str) -> CodeModel:
    """The model of a folder, in a number format."""
    return load_code_model(tuned_name(folder), getattr(torch, dtype))


def validation_losses(
    tuned: CodeModel,
    corpus: list[CodeFile],
    sequence_length: int,
    exit_positions: float,
    blocks: int = 4,
    files: int = 40,
) -> pd.DataFrame:
    """`layer`, `loss`: nats a token at each exit point and the last layer, on `blocks` blocks of `files` validation files.

    Exit points are decoded at the share of positions that training takes, the same for all models and layers.
    """
    parts = tuned.parts
    # All of the split would take longer to encode than the losses take.
    read = _spread(split_of(corpus, "validation"), files)
    packed = pack(encode_files((" ".join(file.code) for file in read), tuned.tokenizer), sequence_length)
    chosen = np.array(_spread(packed, blocks), dtype=np.int64)
    batch = torch.from_numpy(chosen).to(parts.device)
    layers = [*parts.exit_points, parts.total_layers]
    with torch.inference_mode():
        states, drawn = parts.hidden_states(batch), torch.Generator().manual_seed(0)
        losses = layer_losses(parts, states, batch, layers, exit_positions, drawn)
    return pd.DataFrame([{"layer": layer, "loss": loss.item()} for layer, loss in losses.items()])


def _spread(items: Sequence, count: int) -> list:
    """At most `count` items, at equal distances."""
    return [items[place] for place in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def losses_by_kind(losses: pd.DataFrame) -> pd.DataFrame:
    """Rows of `validation_losses` side by side: `model`, `language`, `layer`, and a column a kind of model."""
    table = losses.pivot(index=["model", "language", "layer"], columns="kind", values="loss")
    order = losses[["model", "language", "layer"]].drop_duplicates()
    return table[list(KINDS)].reindex(pd.MultiIndex.from_frame(order)).reset_index()


def recipe(model: str, fine_tuning: FineTuning) -> dict:
    """Hyperparameters of the aggregated fine-tuning that a model has: the profile's, or those of the last run that ships."""
    if fine_tuning.shipped and ships(model, "aggregated"):
        kept = record(model, "aggregated")
        ran = kept["recipe"] | {"tokens_seen": kept["tokens_seen"], "runs": 1 + len(kept["earlier"])}
    else:
        ran = vars(fine_tuning)
    return {name: value for name, value in ran.items() if name != "shipped"}


def hyperparameters(models: list[str], fine_tuning: FineTuning) -> pd.DataFrame:
    """Table 6.5 of what ran: `hyperparameter`, and a column a model with its values as text."""
    recipes = {model: pd.Series(recipe(model, fine_tuning)).astype(str) for model in models}
    return pd.DataFrame(recipes).fillna("").rename_axis("hyperparameter").reset_index()


def weights_frame(models: list[str], fine_tuning: FineTuning) -> pd.DataFrame:
    """`model`, `layer`, `weight`, `half` of the aggregated loss as each model was fine-tuned with it (Figure 4.6)."""
    rows = []
    for model in models:
        layers, ran = load_config(model).num_hidden_layers, recipe(model, fine_tuning)
        for layer, weight in loss_weights(layers, ran["decay"], ran["loss_weights"]).items():
            half = "last" if layer == layers else "first" if layer <= layers // 2 else "second"
            name = f"{model} ({ran['loss_weights']} weights)"
            rows.append({"model": name, "layer": layer, "weight": weight, "half": half})
    return pd.DataFrame(rows)


def models_table(models: list[str]) -> pd.DataFrame:
    """Table 4.2 of the models that run: parameters, layers, context window, hidden size, exit points."""
    rows = []
    for model in models:
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
