"""Pretrain a pico base model on source code: plain next-token loss on the last layer, Java and Python together.

    python -m eelib.training.pretrain --model opt-pico --learning-rates 1e-3 2e-3 4e-3

Builds the corpus from the pinned source packages of `pretraining_packages.csv`, trains the tokenizer, tries the learning
rates for some steps each, goes on with the best one, and writes an ordinary checkpoint to `models/<name>`. A killed run
goes on from its last checkpoint; corpus and tokenizer are made once.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from eelib import paths
from eelib.errors import InputError
from eelib.models.pico import PICO_CONFIGS, POSITIONS, pico_config, random_model
from eelib.models.precision import fast_bf16
from eelib.training.attention import CAUSAL_BLOCKS
from eelib.training.callbacks import last_whole_checkpoint
from eelib.training.muon import Muon
from eelib.training.packing import PackedDataset
from eelib.training.pretraining_corpus import PretrainingCorpus, pretraining_corpus

HELD_OUT = 64  # blocks of the corpus that no step sees
DECAY_SHARE = 0.3  # of all steps, at the end: the learning rate falls linearly to 0
WARMUP_STEPS = 100


class Clock(TrainerCallback, ExportableState):
    """Seconds spent in training, over all processes of a run: a checkpoint carries them on."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self._since = None

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Start counting at the first step, when the model is loaded."""
        if self._since is None:
            self._since = time.monotonic()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Count the step, and what lay between it and the one before: records and checkpoints."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}


class StopAt(TrainerCallback):
    """Ends training after a step that is not the schedule's last one, with a checkpoint to go on from."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Evaluate, save and stop."""
        if state.global_step >= self.step:
            control.should_evaluate = control.should_save = control.should_training_stop = True


@dataclass(frozen=True)
class Recipe:
    """How a base model is trained; `steps` and `batch_size` (sequences of 256 tokens) fix the tokens it sees.

    `start` is the folder of a model to train on from, with its record; None begins with random weights. `layers` shortens
    the model and `compiled` spares the compiler's minutes: both for tests.
    """

    model: str
    steps: int
    batch_size: int
    seed: int
    start: Path | None = None
    layers: int | None = None
    compiled: bool = True

    def begin(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The float32 model that the first step begins with."""
        if self.start is not None:
            return AutoModelForCausalLM.from_pretrained(self.start, dtype=torch.float32)
        ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        return random_model(pico_config(self.model, len(tokenizer), *ids, layers=self.layers), self.seed)

    @property
    def history(self) -> list[dict]:
        """Records of the runs before this one, the first one first."""
        if self.start is None:
            return []
        before = json.loads((self.start / "training.json").read_text())
        return [*before.pop("history", []), before]


@dataclass(frozen=True)
class Run:
    """A model as a training run left it, and the run's records."""

    model: PreTrainedModel
    state: TrainerState

    @property
    def records(self) -> list[dict[str, float]]:
        """`step` with `loss` and `grad_norm`, or with `eval_loss`, in order."""
        wanted = ("step", "loss", "grad_norm", "learning_rate", "eval_loss")
        entries = [entry for entry in self.state.log_history if "loss" in entry or "eval_loss" in entry]
        return [{name: entry[name] for name in wanted if name in entry} for entry in entries]

    @property
    def hours(self) -> float:
        """Time spent in steps, over all processes."""
        return self.state.stateful_callbacks["Clock"]["args"]["seconds"] / 3600


def train(
    recipe: Recipe,
    corpus: PretrainingCorpus,
    run: Path,
    learning_rate: float,
    stop: int | None = None,
) -> Run:
    """Train up to the step `stop` or the end, going on from the last checkpoint in `run` if there is one."""
    stop = recipe.steps if stop is None else stop
    checkpoint = last_whole_checkpoint(run)
    if checkpoint is None or int(checkpoint.rpartition("-")[2]) < stop:
        model = recipe.begin(corpus.tokenizer)
        if not torch.cuda.is_available():
            model.set_attn_implementation(CAUSAL_BLOCKS)
        rows = corpus.blocks[HELD_OUT:]
        first = (
            sum(run["tokens_seen"] for run in recipe.history) // POSITIONS
        )  # go on where the last run stopped
        trainer = Trainer(
            model=model.train(),
            args=_arguments(recipe, run, learning_rate),
            train_dataset=PackedDataset(
                rows[(first + np.arange(recipe.steps * recipe.batch_size)) % len(rows)]
            ),
            eval_dataset=PackedDataset(corpus.blocks[:HELD_OUT]),
            callbacks=[Clock(), StopAt(stop)],
            optimizers=(muon(model, learning_rate), None),
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        checkpoint = last_whole_checkpoint(run)
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    return Run(AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32), state)


def muon(model: PreTrainedModel, learning_rate: float) -> Muon:
    """The optimizer: Muon for the matrices of the layers, AdamW for embeddings, norms and biases."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and ".layers." in name else others).append(parameter)
    return Muon(matrices, others, learning_rate)


def _arguments(recipe: Recipe, run: Path, learning_rate: float) -> TrainingArguments:
    decay = round(DECAY_SHARE * recipe.steps)
    return TrainingArguments(
        output_dir=str(run),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear"},
        warmup_steps=min(WARMUP_STEPS, recipe.steps - decay),
        max_grad_norm=1.0,
        bf16=fast_bf16(),
        torch_compile=recipe.compiled,
        logging_steps=20,
        save_steps=200,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=200,
        report_to="none",
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        restore_callback_states_from_checkpoint=True,
    )


def pretrain(
    recipe: Recipe, corpus: PretrainingCorpus, work: Path, learning_rates: list[float], trial_steps: int
) -> tuple[PreTrainedModel, dict]:
    """Try the learning rates, train on with the one whose held-out loss is lowest; give the model and its record.

    A trial is the beginning of a run, and the chosen one goes on from there.
    """
    if len(learning_rates) > 1 and trial_steps > recipe.steps:
        raise InputError(
            f"--trial-steps is {trial_steps}: allowed are at most the {recipe.steps} of --steps."
        )

    def run(rate: float, stop: int | None = None) -> Run:
        name = (
            f"{recipe.model}-{corpus.key[:8]}-{recipe.steps}x{recipe.batch_size}x{rate:g}-seed{recipe.seed}"
        )
        if recipe.start is not None:
            name += f"-after-{len(recipe.history)}"
        return train(recipe, corpus, work / name, rate, stop)

    trials = {}
    if len(learning_rates) > 1:
        trials = {rate: run(rate, trial_steps).records for rate in learning_rates}
    best = min(trials, key=lambda rate: trials[rate][-1]["eval_loss"]) if trials else learning_rates[0]
    whole = run(best)
    model = whole.model
    cuda = torch.cuda.is_available()
    record = {
        "model": recipe.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "tokens_seen": recipe.steps * recipe.batch_size * POSITIONS,
        "learning_rate": best,
        "optimizer": "Muon for the layers' matrices, AdamW (0.9, 0.95) for the rest",
        "warmup_steps": WARMUP_STEPS,
        "decay_steps": round(DECAY_SHARE * recipe.steps),
        "seed": recipe.seed,
        "hours": whole.hours,
        "precision": "bf16 autocast" if fast_bf16() else "float32",
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} thread(s)",
        "corpus": corpus.report,
        "trials": {f"{rate:g}": records for rate, records in trials.items()},
        "log": whole.records,
        "history": recipe.history,
    }
    return model, record


def main() -> None:
    """Command line; bad input ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", choices=sorted(PICO_CONFIGS), required=True)
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences of 256 tokens a step")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[3e-3], help="several are tried first"
    )
    parser.add_argument("--trial-steps", type=int, default=200, help="steps of each trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of a pretrained pico model to train on from")
    parser.add_argument(
        "--exclude", type=Path, nargs="*", default=[], help="line-completion files to keep out"
    )
    parser.add_argument("--corpus-only", action="store_true", help="build corpus and tokenizer, then stop")
    parser.add_argument("--output", type=Path, default=paths.MODELS, help="folder of the shipped models")
    parser.add_argument(
        "--work", type=Path, default=paths.CACHE / "pretraining", help="corpus and checkpoints"
    )
    parser.add_argument(
        "--cache", type=Path, default=paths.CACHE / "packages", help="downloaded source packages"
    )
    args = parser.parse_args()
    try:
        if args.start is not None and not (args.start / "training.json").is_file():
            raise InputError(
                f"There is no training.json in {args.start}: allowed is a pretrained pico model's folder."
            )
        corpus = pretraining_corpus(args.work, args.cache, args.exclude, args.start)
        if args.corpus_only:
            return
        recipe = Recipe(args.model, args.steps, args.batch_size, args.seed, args.start)
        model, record = pretrain(recipe, corpus, args.work, args.learning_rates, args.trial_steps)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    target = args.output / args.model
    model.to(torch.bfloat16).save_pretrained(target)
    corpus.tokenizer.save_pretrained(target)
    (target / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{target} is written; python -m eelib.report.cards {args.model} measures its layers and writes its card."
    )


if __name__ == "__main__":
    main()
