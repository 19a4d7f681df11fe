"""Fine-tune a model so that its middle layers decode, and ship what changed as a small difference to its base.

    python -m eelib.training.adapt --model smollm2-135m --loss aggregated --steps 400
    python -m eelib.training.adapt --model smollm2-135m --loss aggregated --export

The recipe is a profile's `fine_tuning` section; flags override it. Work is kept under `cache/adapt/`, a killed run goes on
from its last checkpoint. `--loss plain` is the contrast: the same files, order and steps, only the last layer's loss.
`--export` cuts the difference to the base to `--megabytes` and writes it with its records to `models/<model>/`.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from eelib import paths
from eelib.data.corpus import CodeFile, load_corpus
from eelib.errors import InputError
from eelib.models import differences
from eelib.models.exits import loss_weights
from eelib.models.layer_scores import MINIMUM_CONTEXT, layer_scores, windows
from eelib.models.loading import fingerprint, load_model, load_tokenizer
from eelib.models.parts import take_apart
from eelib.profile import Data, FineTuning, load_profile
from eelib.training.finetune import fine_tune
from eelib.training.packing import encode_files

WINDOW = 256  # tokens of a window on held-out files
LOSSES = ("aggregated", "plain")
RUN = (
    "recipe",
    "tokens_of_run",
    "hours_since_last_start",
    "threads",
)  # kept of the runs that a run goes on from


class Curve(TrainerCallback):
    """Accuracy and agreement by layer on held-out windows at some steps: what training buys, as a curve over tokens seen."""

    def __init__(
        self, held_out: dict[str, list[list[int]]], tokens_a_step: int, every: int, path: Path, seen: int
    ):
        self.held_out = held_out
        self.tokens_a_step = tokens_a_step
        self.every = every
        self.path = path
        self.seen = seen  # tokens, before this run

    def on_step_end(self, args, state, control, model: PreTrainedModel, **_: object) -> None:
        """Measure after every `every` steps and at the end; append to the file."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model.eval()
        scores = held_out_scores(model, self.held_out)
        model.train()
        seen = self.seen + state.global_step * self.tokens_a_step
        scores = scores.assign(step=state.global_step, tokens_seen=seen)
        before = pd.read_csv(self.path) if self.path.exists() else scores[:0]
        before = before[before["tokens_seen"] < seen]
        pd.concat([before, scores], ignore_index=True).to_csv(self.path, index=False, float_format="%.4f")


def held_out_windows(
    files: list[CodeFile], tokenizer: PreTrainedTokenizerBase, count: int
) -> list[list[int]]:
    """`count` windows of token ids, evenly spaced over the files."""
    encoded = (tokenizer(" ".join(file.code), verbose=False).input_ids for file in files)
    found = list(windows(encoded, WINDOW, MINIMUM_CONTEXT))
    return [found[i] for i in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]


def held_out_scores(model: PreTrainedModel, held_out: dict[str, list[list[int]]]) -> pd.DataFrame:
    """`layer_scores` at exit points and the last layer, a row a language and layer."""
    parts = take_apart(model)
    wanted = [*parts.exit_points, parts.total_layers]
    frames = [
        layer_scores(parts, chosen, MINIMUM_CONTEXT, layers=wanted).assign(language=language)
        for language, chosen in held_out.items()
    ]
    return pd.concat(frames, ignore_index=True)


def training_ids(
    languages: list[str], corpora: dict[str, list[CodeFile]], tokenizer: PreTrainedTokenizerBase, seed: int
) -> np.ndarray:
    """Token ids of all training files in a shuffled order; languages weigh as they occur, cut to the smallest one's tokens."""
    order, parts = np.random.default_rng(seed), []
    encoded = {}
    for language in languages:
        texts = [" ".join(file.code) for file in corpora[language] if file.split == "train"]
        encoded[language] = [encode_files([text], tokenizer) for text in texts]
        order.shuffle(encoded[language])
    least = min(sum(map(len, files)) for files in encoded.values())
    for language in languages:
        length = 0
        for ids in encoded[language]:
            if length >= least:
                break
            parts.append(ids)
            length += len(ids)
    order.shuffle(parts)
    return np.concatenate(parts)


def adapt(
    model: str,
    languages: list[str],
    loss: str,
    config: FineTuning,
    data: Data,
    work: Path,
    windows_held_out: int,
    start: Path | None = None,
) -> Path:
    """Fine-tune and return the run's folder: `model/`, `log.parquet`, `curve.csv`, `record.json`.

    `start` is the folder of a finished run to train on from; its records come first in those of the new one.
    """
    first = json.loads((start / "record.json").read_text()) if start else {"earlier": [], "tokens_seen": 0}
    earlier = [*first["earlier"], *([{key: first[key] for key in RUN}] if start else [])]
    config = replace(config, seed=config.seed + len(earlier))  # in another order than before
    folder = work / run_name(model, languages, loss, config, start)
    if (folder / "record.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    corpora = {language: load_corpus(data, language) for language in languages}
    tokenizer = load_tokenizer(model)
    ids = training_ids(languages, corpora, tokenizer, config.seed)
    held_out = {
        language: held_out_windows(
            [file for file in files if file.split == "validation"], tokenizer, windows_held_out
        )
        for language, files in corpora.items()
    }
    trained = load_model(model) if start is None else load_model(str(start / "model"))
    layers = trained.config.num_hidden_layers
    weights = (
        loss_weights(layers, config.decay, config.loss_weights) if loss == "aggregated" else {layers: 1.0}
    )
    tokens_a_step = config.batch_size * config.gradient_accumulation_steps * config.sequence_length
    curve = Curve(
        held_out, tokens_a_step, config.checkpoint_steps, folder / "curve.csv", first["tokens_seen"]
    )
    if start and not curve.path.exists():
        shutil.copy(start / "curve.csv", curve.path)
    began = time.monotonic()
    fine_tune(trained, tokenizer, ids, weights, config, folder, f"{model}, {loss}", callbacks=[curve])
    tokens = config.steps * tokens_a_step
    record = {
        "model": model,
        "base": fingerprint(model),
        "languages": languages,
        "loss": loss,
        "earlier": earlier,
        "recipe": asdict(config),
        "tokens_of_run": tokens,
        "tokens_seen": first["tokens_seen"] + tokens,
        "training_tokens": len(ids),
        "hours_since_last_start": (time.monotonic() - began) / 3600,
        "threads": torch.get_num_threads(),
    }
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return folder


def run_name(
    model: str, languages: list[str], loss: str, config: FineTuning, start: Path | None = None
) -> str:
    """A folder's name: what is trained from which base, the numbers of the recipe that are tried, and what it goes on from."""
    lora = "" if config.lora_rank is None else f"-lora{config.lora_rank}"
    after = f"-after-{hashlib.sha256(start.name.encode()).hexdigest()[:6]}" if start else ""
    return (
        f"{model}.{fingerprint(model)[:8]}-{'-'.join(languages)}-{loss}-{config.steps}x{config.batch_size}x{config.learning_rate:g}"
        f"-{config.loss_weights}{'-distilled' if config.distilled else ''}-shallow{config.shallow_steps:g}{lora}{after}"
    )


def export(folder: Path, data: Data, megabytes: float, windows_held_out: int) -> Path:
    """Cut a run's difference to a size and write `models/<model>/<loss>.safetensors` with its records.

    `<loss>.json` holds the recipe and the accuracy and agreement by layer on the test projects: of the base, of the tuned
    model, and of the base with the difference as it is shipped.
    """
    record = json.loads((folder / "record.json").read_text())
    name, loss, target = record["model"], record["loss"], paths.MODELS
    base, tuned = load_model(name), load_model(str(folder / "model"))
    difference = differences.cut(
        dict(base.named_parameters()), dict(tuned.named_parameters()), round(megabytes * 1e6)
    )
    path = target / name / f"{loss}.safetensors"
    differences.save(difference, path, record["base"])
    tokenizer = load_tokenizer(name)
    data = load_profile("laptop").data
    held_out = {
        language: held_out_windows(
            [file for file in load_corpus(data, language) if file.split == "test"],
            tokenizer,
            windows_held_out,
        )
        for language in record["languages"]
    }
    scores = []
    for kind, model in (("base", base), ("tuned", tuned), ("shipped", load_model(f"{name}+{loss}"))):
        scores.append(held_out_scores(model, held_out).assign(kind=kind))
    columns = ["kind", "language", "layer", "accuracy", "agreement", "perplexity", "tokens"]
    pd.concat(scores)[columns].to_csv(target / name / f"{loss}_layers.csv", index=False, float_format="%.4f")
    pd.read_csv(folder / "curve.csv").to_csv(target / name / f"{loss}_curve.csv", index=False)
    pd.read_parquet(folder / "log.parquet").to_csv(
        target / name / f"{loss}_log.csv", index=False, float_format="%.5g"
    )
    record |= {"energy_kept": difference.energy, "ranks": sorted(set(difference.ranks.values()))}
    record["bytes"] = path.stat().st_size
    (target / name / f"{loss}.json").write_text(json.dumps(record, indent=1) + "\n")
    return path


def main() -> None:
    """Command line; bad input ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--language", nargs="+", choices=["java", "python"], default=["java", "python"])
    parser.add_argument("--loss", choices=LOSSES, default="aggregated")
    parser.add_argument("--profile", default="smollm", help="whose fine_tuning section is the recipe")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--loss-weights", choices=["thesis", "uniform", "linear"])
    parser.add_argument("--shallow-steps", type=float)
    parser.add_argument("--lora-rank", type=int, help="train low-rank updates instead of all weights")
    parser.add_argument("--distilled", action="store_true", default=None)
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of 256 tokens a language")
    parser.add_argument("--export", action="store_true", help="cut the run's difference and ship it")
    parser.add_argument("--megabytes", type=float, default=14.0, help="size of the shipped difference")
    parser.add_argument("--start", type=Path, help="folder of a finished run to train on from")
    parser.add_argument("--work", type=Path, default=paths.CACHE / "adapt")
    args = parser.parse_args()
    flags = (
        "steps",
        "batch_size",
        "learning_rate",
        "loss_weights",
        "shallow_steps",
        "lora_rank",
        "distilled",
    )
    chosen = {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}
    try:
        if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
            raise InputError(
                f"adapt was started in {processes} processes: allowed is one; eelib.training.finetune trains in several."
            )
        profile = load_profile(args.profile)
        config = replace(profile.fine_tuning, **chosen)
        if args.start and not (args.start / "record.json").exists():
            raise InputError(f"--start {args.start} is no finished run: there is no record.json in it.")
        folder = adapt(
            args.model, args.language, args.loss, config, profile.data, args.work, args.windows, args.start
        )
        written = export(folder, profile.data, args.megabytes, args.windows) if args.export else folder
        print(f"{written} is written.")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
