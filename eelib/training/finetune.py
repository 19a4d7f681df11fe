"""Fine-tuning with the aggregated loss on the Hugging Face Trainer (thesis, Section 4.4)."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, LoraModel
from torch import Tensor
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from eelib.errors import InputError
from eelib.models.exits import shallow_layer
from eelib.models.parts import take_apart
from eelib.models.precision import fast_bf16
from eelib.models.tokenizer import end_of_line
from eelib.profile import FineTuning
from eelib.training.attention import CAUSAL_BLOCKS
from eelib.training.loss import exit_loss
from eelib.training.packing import PackedDataset, pack
from eelib.training.shortlist import Shortlists, most_frequent


class ExitTrainer(Trainer):
    """The Hugging Face Trainer with another loss: weighted over exit points and the last layer.

    What a step draws (positions of the intermediate losses, exits, a shortlist, whether it is shallow) comes from a generator
    seeded by the step, so that a resumed run draws what the uninterrupted one would have drawn.
    """

    def __init__(self, *args: Any, weights: dict[int, float], config: FineTuning, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.world_size > 1:
            raise InputError(
                f"Fine-tuning was started in {self.args.world_size} processes: allowed is one, since the layers are run "
                "outside the wrapper that would average their gradients."
            )
        self.parts = take_apart(self.model)
        self.weights = {layer: weight / sum(weights.values()) for layer, weight in weights.items()}
        self.config = config
        self.shortlists = None
        if config.shortlist is not None:
            ids, size = torch.from_numpy(self.train_dataset.blocks), self.model.config.vocab_size
            self.shortlists = Shortlists(most_frequent(ids, size, config.shortlist), size, config.shortlist)
        self.exit_losses: list[dict[int, float]] = []  # of the micro-batches since the last record
        # Lets the Trainer divide each loss by the number of accumulated micro-batches (fewer in an epoch's last step),
        # which it leaves to the model where the model's own loss counts the tokens of all of them.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Aggregated loss of a batch; `return_outputs` is not supported, since nothing here evaluates by logits."""
        if return_outputs:
            raise NotImplementedError("the aggregated loss has no single logits to return")
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        layers, weights = step_weights(
            self.weights, self.parts.total_layers, self.config.shallow_steps, generator
        )
        # The Trainer wraps the model's forward in mixed precision; the layers are run one by one here, so it is asked for.
        with self.accelerator.autocast():
            loss, losses = exit_loss(
                self.parts,
                self.parts.hidden_states(inputs["input_ids"], layers),
                inputs["labels"],
                weights,
                self.config.exit_positions,
                self.config.exits_per_step,
                generator,
                self.shortlists,
                self.config.distilled,
            )
            self.exit_losses.append(losses)
            return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Every training record also holds the loss of each layer at that step."""
        if "loss" in logs:
            means = pd.DataFrame(
                self.exit_losses, columns=list(self.weights)
            ).mean()  # NaN for a layer not drawn
            logs |= {f"loss_layer_{layer}": float(means[layer]) for layer in self.weights}
            self.exit_losses.clear()
        super().log(logs, *args, **kwargs)


def step_weights(
    weights: dict[int, float], total_layers: int, shallow_steps: float, generator: torch.Generator
) -> tuple[int, dict[int, float]]:
    """How many layers a step runs, and the weights of their losses.

    A share of the steps ends at the first exit point past the middle; the others make up for it by weighing the losses
    beyond that layer more, so that every layer's loss counts as `weights` says in expectation. Plain fine-tuning, where
    only the last layer has a loss, has no shallow steps.
    """
    if shallow_steps == 0 or list(weights) == [total_layers]:
        return total_layers, weights
    end = shallow_layer(total_layers)
    if torch.rand(1, generator=generator).item() < shallow_steps:
        return end, {layer: weight for layer, weight in weights.items() if layer <= end}
    return total_layers, {
        layer: weight if layer <= end else weight / (1 - shallow_steps) for layer, weight in weights.items()
    }


def low_rank_updates(model: PreTrainedModel, rank: int) -> LoraModel:
    """Freeze the model, and put trainable updates of some rank beside the matrices within its layers, in place (LoRA).

    The update counts twice, as is usual (alpha / rank = 2). `merge_and_unload` of what is returned adds it to the matrices.
    """
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return LoraModel(model, config, "default")


def only_row(embeddings: torch.nn.Embedding, row: int) -> None:
    """Train one row of the embeddings and no other: that of `<EOL>`, which the base model does not know."""
    embeddings.requires_grad_()
    chosen = torch.zeros(len(embeddings.weight), 1, device=embeddings.weight.device)
    chosen[row] = 1
    embeddings.weight.register_hook(lambda gradient: gradient * chosen)


def has_dropout(model: PreTrainedModel) -> bool:
    """Whether anything in the model drops values out while it trains, which attention in blocks does not do."""
    rates = (
        getattr(module, name, 0)
        for module in model.modules()
        for name in ("p", "dropout", "attention_dropout")
    )
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


class NoFinalCheckpoint(TrainerCallback):
    """Leaves out the checkpoint after the last step: resumed from there, the Trainer would take one step too many."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False


class Snapshots(TrainerCallback):
    """Keeps the model after some steps, in `folder/snapshot-<step>`. A resumed run writes the same once more."""

    def __init__(self, folder: Path, steps: list[int]):
        self.folder = folder
        self.steps = steps

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **_: Any,
    ) -> None:
        if state.global_step in self.steps:
            model.save_pretrained(self.folder / f"snapshot-{state.global_step}")


class StepBar(TrainerCallback):
    """One line of progress: name, steps, rate, loss. The Trainer's own bars print every record, or draw HTML in a kernel."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        total, done = state.max_steps, state.global_step
        self.bar = tqdm(desc=f"fine-tuning {self.name}", total=total, initial=done, unit="step", leave=False)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.2f}", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.bar.close()


def snapshot_steps(steps: int, count: int) -> list[int]:
    """`count` steps at equal distances, the last of them the end: the models of Figure 4.8."""
    return sorted({max(1, round(steps * i / count)) for i in range(1, count + 1)})


def last_whole_checkpoint(run: Path) -> str | None:
    """The last checkpoint in `run`; one that a kill left half written is deleted, and the one before it counts.

    A checkpoint is whole when it has the Trainer's state, which is written last.
    """
    for checkpoint in run.glob("checkpoint-*"):
        if not (checkpoint / TRAINER_STATE_NAME).exists():
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(run)) if run.exists() else None


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
    folder: also holds the checkpoints while it runs; a call that finds one goes on from it.
    name: shown in the progress bar.
    snapshots: models to keep over the training (`snapshot_steps`); all but the last go to `folder/snapshot-<step>`.
    callbacks: further ones for the Trainer.
    """
    run = folder / "checkpoints"
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
            per_device_train_batch_size=config.batch_size,
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
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=PackedDataset(pack(ids, config.sequence_length)),
        callbacks=[
            NoFinalCheckpoint,
            StepBar(name),
            Snapshots(folder, snapshot_steps(config.steps, snapshots)[:-1]),
            *callbacks,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(run))
    losses = [f"loss_layer_{layer}" for layer in trainer.weights]
    columns = ["step", "epoch", "learning_rate", "grad_norm", "loss", *losses]
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry], columns=columns)
    log.to_parquet(folder / "log.parquet", index=False)
    model.set_attn_implementation(attention)
    if updates is not None:
        model = updates.merge_and_unload()
    model.eval().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    shutil.rmtree(run, ignore_errors=True)  # the optimizer's states, twice the model's size
