"""Fine-tuning with the aggregated loss on the Hugging Face Trainer (thesis, Section 4.4)."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from eelib.models.exits import loss_weights
from eelib.models.parts import take_apart
from eelib.study.profile import FineTuning
from eelib.training.loss import aggregated_loss, layer_losses
from eelib.training.packing import PackedDataset


class ExitTrainer(Trainer):
    """The Hugging Face Trainer with another loss: weighted over exit points and the last layer.

    Positions of the intermediate losses are drawn from a generator seeded by the step, so that a resumed run draws what
    the uninterrupted one would have drawn.
    """

    def __init__(self, *args: Any, weights: dict[int, float], exit_positions: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.parts = take_apart(self.model)
        self.weights = weights
        self.exit_positions = exit_positions
        self.exit_losses: dict[int, float] = {}

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Aggregated loss of a batch; `return_outputs` is not supported, since nothing here evaluates by logits."""
        if return_outputs:
            raise NotImplementedError("the aggregated loss has no single logits to return")
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        with self.compute_loss_context_manager():
            states = self.parts.hidden_states(inputs["input_ids"])
            losses = layer_losses(
                self.parts, states, inputs["labels"], list(self.weights), self.exit_positions, generator
            )
            self.exit_losses = {layer: loss.item() for layer, loss in losses.items()}
            loss = aggregated_loss(losses, self.weights)
        # The Trainer averages over accumulated micro-batches only for models that count items by themselves.
        return loss / self.args.gradient_accumulation_steps if self.model_accepts_loss_kwargs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Every training record also holds the loss of each layer at that step."""
        if "loss" in logs:
            logs |= {f"loss_layer_{layer}": loss for layer, loss in self.exit_losses.items()}
        super().log(logs, *args, **kwargs)


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: np.ndarray,
    config: FineTuning,
    folder: Path,
    name: str,
) -> None:
    """Fine-tune `model` on packed ids and write `folder/model` (float32) and `folder/log.parquet`.

    Parameters
    ----------
    ids: int32 token ids (T,), all training files one after the other.
    folder: also holds the checkpoints while it runs; a call that finds one goes on from it.
    name: shown in the progress bar.
    """
    parts = take_apart(model)
    run = folder / "checkpoints"
    trainer = ExitTrainer(
        model=model.train(),
        weights=loss_weights(parts.total_layers, config.decay),
        exit_positions=config.exit_positions,
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
            bf16=config.bf16,
            logging_steps=1,
            save_steps=config.checkpoint_steps,
            save_total_limit=1,
            seed=config.seed,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=False,
        ),
        train_dataset=PackedDataset(ids, config.sequence_length),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(run)) if run.exists() else None)
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    log.to_parquet(folder / "log.parquet", index=False)
    model.eval().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
