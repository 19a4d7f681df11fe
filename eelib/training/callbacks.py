"""What the Trainer does beside training: checkpoints to go on from, snapshots to keep, one line of progress."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint


class NoFinalCheckpoint(TrainerCallback):
    """Leaves out the checkpoint after the last step: resumed from there, the Trainer would take one step too many."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False


class Snapshots(TrainerCallback):
    """Keeps the model after some steps, in `folder/snapshot-<step>`. A resumed run writes the same once more.

    `write` saves the model in a folder (`ExitTrainer.write_model`).
    """

    def __init__(self, folder: Path, steps: list[int], write: Callable[[Path], None]):
        self.folder = folder
        self.steps = steps
        self.write = write

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step in self.steps:
            self.write(self.folder / f"snapshot-{state.global_step}")


class StepBar(TrainerCallback):
    """One line of progress: name, steps, rate, loss. The Trainer's own bars print every record, or draw HTML in a kernel."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        total, done, hidden = state.max_steps, state.global_step, not state.is_world_process_zero
        self.bar = tqdm(
            desc=f"fine-tuning {self.name}",
            total=total,
            initial=done,
            unit="step",
            leave=False,
            disable=hidden,
        )

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
