"""Validation loss by exit over training: the aggregated loss as a full sum, at sampled positions, and with sampled exits.

    .venv/bin/python benchmarks/loss_variants.py [--model opt-pico] [--language java] [--steps 48]

Fine-tunes the model once a variant on the laptop profile's corpus (`./run_all.sh --only 01` makes it), same files, order and
steps, and measures the loss of every exit on validation files at some steps. Writes `results/benchmarks/loss-variants-<model>`
as `.json`, and as `.png` the curves.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import FOLDER, report

from eelib.data.corpus import split_of
from eelib.models.exits import loss_weights
from eelib.models.loading import load_config, load_model, load_tokenizer
from eelib.models.parts import take_apart
from eelib.profile import FineTuning
from eelib.report.figures import curve, entries_of, finished, label, new_figure, outside_legend
from eelib.study.notebook import open_study
from eelib.training.callbacks import snapshot_steps
from eelib.training.finetune import fine_tune
from eelib.training.loss import layer_losses
from eelib.training.packing import encode_files, pack

VARIANTS = {  # name: (share of positions, exits a step)
    "full sum": (1.0, None),
    "a quarter of the positions": (0.25, None),
    "two exits a step": (1.0, 2),
}
COLOURS = dict(zip(VARIANTS, ["#000000", "#D55E00", "#0072B2"], strict=True))
BLOCKS = 24  # of validation text


def measure(checkpoint: str, blocks: torch.Tensor) -> dict[int, float]:
    """Loss of each exit and the last layer on validation blocks (N, T)."""
    parts = take_apart(load_model(checkpoint))
    layers = [*parts.exit_points, parts.total_layers]
    with torch.inference_mode():
        losses = layer_losses(parts, parts.hidden_states(blocks), blocks, layers)
    return {layer: loss.item() for layer, loss in losses.items()}


def train(
    model: str, name: str, ids: np.ndarray, blocks: torch.Tensor, config: FineTuning, snapshots: int
) -> pd.DataFrame:
    """Rows `variant`, `step`, `layer`, `loss` of one variant, step 0 being the base model."""
    positions, exits = VARIANTS[name]
    config = replace(config, exit_positions=positions, exits_per_step=exits)
    weights = loss_weights(load_config(model).num_hidden_layers)
    rows = [(0, measure(model, blocks))]
    with tempfile.TemporaryDirectory() as folder:
        fine_tune(
            load_model(model), load_tokenizer(model), ids, weights, config, Path(folder), name, snapshots
        )
        for step in snapshot_steps(config.steps, snapshots):
            kept = Path(folder) / f"snapshot-{step}"
            rows.append((step, measure(str(kept if kept.exists() else Path(folder) / "model"), blocks)))
    table = [(name, step, layer, loss) for step, losses in rows for layer, loss in losses.items()]
    return pd.DataFrame(table, columns=["variant", "step", "layer", "loss"])


def draw(frame: pd.DataFrame, path: Path) -> None:
    """A panel each for the first, a middle and the last layer."""
    layers = sorted(frame["layer"].unique())
    chosen = [layers[0], layers[len(layers) // 2], layers[-1]]
    figure, axes = new_figure(1, len(chosen), (3.4, 2.6))
    for ax, layer in zip(axes[0], chosen, strict=True):
        for name, rows in frame[frame["layer"] == layer].groupby("variant", sort=False):
            curve(ax, rows["step"], rows["loss"], COLOURS[name], name)
        label(ax, f"layer {layer}", "step", "validation loss" if ax is axes[0, 0] else "")
    outside_legend(figure, entries_of(axes[0, 0]))
    finished(figure).savefig(path, dpi=150)


def main() -> None:
    """Train, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="opt-pico")
    parser.add_argument("--language", default="java")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--snapshots", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    study = open_study("02", "laptop")
    torch.set_num_threads(args.threads)
    data, tokenizer = study.load("corpus", language=args.language), load_tokenizer(args.model)
    config = replace(study.profile.fine_tuning, steps=args.steps)
    ids, validation = (
        encode_files((" ".join(file.code) for file in split_of(data, split)), tokenizer)
        for split in ("train", "validation")
    )
    packed = pack(validation, config.sequence_length)
    blocks = torch.from_numpy(packed[np.linspace(0, len(packed) - 1, BLOCKS).astype(int)].astype(np.int64))
    frame = pd.concat(
        [train(args.model, name, ids, blocks, config, args.snapshots) for name in VARIANTS],
        ignore_index=True,
    )
    final = frame[frame["step"] == args.steps].pivot(index="layer", columns="variant", values="loss")
    ratios = {
        f"validation loss over the full sum's, layer {layer}: {name}": (row[name] / row["full sum"], "")
        for layer, row in final.iterrows()
        for name in list(VARIANTS)[1:]
    }
    report(f"loss-variants-{args.model}", ratios, {"curves": frame.to_dict("records")})
    draw(frame, FOLDER / f"loss-variants-{args.model}.png")


if __name__ == "__main__":
    main()
