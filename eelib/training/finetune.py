"""Fine-tuning with the aggregated loss on the Hugging Face Trainer (thesis, Section 4.4).

    python -m eelib.training.finetune --profile laptop --model opt-pico --language java --folder cache/opt-java
    accelerate launch --config_file profiles/accelerate/fsdp.yaml -m eelib.training.finetune --profile paper ...

Any number of processes trains the same model to rounding: they share each batch, and draw alike. A killed run goes on from
its last checkpoint when it is called again.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from eelib.data.corpus import CodeFile, load_corpus, split_of
from eelib.errors import InputError
from eelib.models.exits import loss_weights
from eelib.models.loading import load_config, load_model, load_tokenizer
from eelib.models.precision import fast_bf16
from eelib.models.tokenizer import end_of_line
from eelib.profile import FineTuning, load_profile, parse_settings
from eelib.training.attention import CAUSAL_BLOCKS
from eelib.training.callbacks import (
    NoFinalCheckpoint,
    Snapshots,
    StepBar,
    last_whole_checkpoint,
    snapshot_steps,
)
from eelib.training.packing import PackedDataset, encode_files, pack
from eelib.training.trainable import has_dropout, low_rank_updates, only_row
from eelib.training.trainer import ExitTrainer

TUNINGS = ("plain", "aggregated")


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: np.ndarray,
    weights: dict[int, float],
    config: FineTuning,
    folder: Path,
    name: str,
    snapshots: int = 1,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Fine-tune `model` on packed ids and write `folder/model` (float32) and `folder/log.parquet`.

    Parameters
    ----------
    ids: int32 token ids (T,), all training files one after the other.
    weights: of the loss of each layer that has one (`loss_weights`; the last layer alone is plain fine-tuning).
    folder: also holds the checkpoints while it runs; a call that finds one goes on from it. Where several processes train one
        model, all call this and the first one writes.
    name: shown in the progress bar.
    snapshots: models to keep over the training (`snapshot_steps`); all but the last go to `folder/snapshot-<step>`.
    callbacks: further ones for the Trainer.
    """
    run = folder / "checkpoints"
    processes = PartialState(cpu=not torch.cuda.is_available())
    if config.batch_size % processes.num_processes:
        raise InputError(
            f"fine_tuning.batch_size is {config.batch_size}: allowed in {processes.num_processes} processes are multiples of "
            f"{processes.num_processes}, for they share a batch."
        )
    blocks = pack(ids, config.sequence_length)
    if len(blocks) < config.batch_size:
        raise InputError(
            f"The training files make {len(blocks)} sequences of {config.sequence_length} tokens: at least the "
            f"{config.batch_size} of a batch are needed."
        )
    set_seed(config.seed)  # low-rank updates begin at random
    updates = None if config.lora_rank is None else low_rank_updates(model, config.lora_rank)
    embeddings = model.get_input_embeddings().requires_grad_(config.train_embeddings)
    if not config.train_embeddings and (row := end_of_line(tokenizer)) is not None:
        only_row(embeddings, row)
    attention = model.config._attn_implementation
    if not torch.cuda.is_available() and not has_dropout(model):
        model.set_attn_implementation(CAUSAL_BLOCKS)
    trainer = ExitTrainer(
        model=model.train(),
        weights=weights,
        config=config,
        args=TrainingArguments(
            output_dir=str(run),
            run_name=name,
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size // processes.num_processes,
            dataloader_drop_last=True,  # so that a batch can be shared by any number of processes
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            learning_rate=config.learning_rate,
            adam_beta2=config.adam_beta2,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_gradient_norm,
            lr_scheduler_type=config.lr_scheduler_type,
            warmup_steps=config.warmup_steps,
            bf16=config.bf16 and fast_bf16(),
            logging_steps=1,
            save_steps=config.checkpoint_steps,
            save_total_limit=1,
            seed=config.seed,
            data_seed=config.seed,
            use_cpu=not torch.cuda.is_available(),
            ddp_find_unused_parameters=config.shallow_steps > 0,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=PackedDataset(blocks),
        callbacks=[NoFinalCheckpoint, StepBar(name), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    kept = snapshot_steps(config.steps, snapshots)[:-1]
    trainer.add_callback(Snapshots(folder, kept, trainer.write_model))
    with processes.main_process_first():  # it deletes half of a checkpoint
        checkpoint = last_whole_checkpoint(run)
    trainer.train(resume_from_checkpoint=checkpoint)
    model.set_attn_implementation(attention)
    if updates is not None:
        updates.merge_and_unload()
    model.eval()
    trainer.write_model(folder / "model")
    if processes.is_main_process:
        losses = [f"loss_layer_{layer}" for layer in trainer.weights]
        columns = ["step", "epoch", "learning_rate", "grad_norm", "loss", *losses]
        records = [entry for entry in trainer.state.log_history if "loss" in entry]
        pd.DataFrame(records, columns=columns).to_parquet(folder / "log.parquet", index=False)
        tokenizer.save_pretrained(folder / "model")
        shutil.rmtree(run, ignore_errors=True)  # the optimizer's states, twice the model's size
    processes.wait_for_everyone()


def train(
    corpus: list[CodeFile],
    model: str,
    language: str,
    kind: str,
    fine_tuning: FineTuning,
    snapshots: int,
    folder: Path,
) -> None:
    """Fine-tune a model on a corpus: `model/`, the checkpoint, and `log.parquet`.

    Parameters
    ----------
    kind: "aggregated" weights the losses of exit points and last layer; "plain" takes the last layer's alone, with the same
        files, order and steps.
    snapshots: how many states of the model are kept, the finished one included.
    """
    tokenizer = load_tokenizer(model)
    ids = encode_files((" ".join(file.code) for file in split_of(corpus, "train")), tokenizer)
    layers = load_config(model).num_hidden_layers
    weights = loss_weights(layers, fine_tuning.decay, fine_tuning.loss_weights)
    weights = {layers: 1.0} if kind == "plain" else weights
    name = f"{model}, {language}, {kind}"
    fine_tune(load_model(model), tokenizer, ids, weights, fine_tuning, folder, name, snapshots)


def main(arguments: list[str] | None = None) -> None:
    """Command line; bad input ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a model as the study does, in one process or several."
    )
    parser.add_argument(
        "--profile", default="laptop", help="whose data and fine_tuning are taken (default: laptop)"
    )
    parser.add_argument("--model", required=True, help="a shipped model, a folder, or an id on the hub")
    parser.add_argument("--language", choices=["java", "python"], required=True)
    parser.add_argument(
        "--kind", choices=TUNINGS, default="aggregated", help="of the loss (default: aggregated)"
    )
    parser.add_argument("--folder", type=Path, required=True, help="where model/ and log.parquet go")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="override a setting"
    )
    args = parser.parse_args(arguments)
    processes = PartialState(cpu=not torch.cuda.is_available())
    try:
        profile = load_profile(args.profile, parse_settings(shlex.join(args.settings)))
        if (args.folder / "log.parquet").exists():
            raise InputError(
                f"--folder {args.folder} holds a whole fine-tuning: allowed are a new folder, and that of a killed run."
            )
        with processes.main_process_first():  # which fetches what is not there yet
            corpus = load_corpus(profile.data, args.language)
            load_config(args.model)
        if processes.is_main_process:
            args.folder.mkdir(parents=True, exist_ok=True)
        train(corpus, args.model, args.language, args.kind, profile.fine_tuning, 1, args.folder)
    except InputError as error:
        if processes.is_main_process:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if processes.is_main_process:
        print(f"{args.folder / 'model'} is written.")
    processes.destroy_process_group()


if __name__ == "__main__":
    main()
