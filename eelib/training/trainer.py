"""A training step of the aggregated loss: the Hugging Face Trainer, in any number of processes."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer

from eelib.errors import InputError
from eelib.models.exits import shallow_layer
from eelib.models.parts import take_apart
from eelib.profile import FineTuning
from eelib.training.loss import exit_loss, forward_as
from eelib.training.shortlist import Shortlists, most_frequent


class ExitTrainer(Trainer):
    """The Hugging Face Trainer with another loss: weighted over exit points and the last layer.

    What a step draws (positions of the intermediate losses, exits, a shortlist, whether it is shallow) comes from a generator
    seeded by the step: a resumed run draws what the uninterrupted one would have drawn, and all processes draw alike, for the
    whole batch of which each has a part. Only dropout is drawn apart.
    """

    def __init__(self, *args: Any, weights: dict[int, float], config: FineTuning, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.parts = take_apart(self.model)
        self.weights = {layer: weight / sum(weights.values()) for layer, weight in weights.items()}
        self.config = config
        self.shortlists = None
        if config.shortlist is not None:
            ids, size = torch.from_numpy(self.train_dataset.blocks), self.model.config.vocab_size
            frequent = most_frequent(ids, size, config.shortlist)
            self.shortlists = Shortlists(frequent, size, config.shortlist, self._summed)
        self.exit_losses: list[dict[int, float]] = []  # of the micro-batches since the last record
        # Lets the Trainer divide each loss by the number of accumulated micro-batches (fewer in an epoch's last step),
        # which it leaves to the model where the model's own loss counts the tokens of all of them.
        self.model_accepts_loss_kwargs = False
        if self.is_fsdp_enabled:
            self._check_sharding()
        if self.args.process_index:
            # What dropout draws; the order of the sequences has a seed of its own.
            torch.manual_seed(config.seed + self.args.process_index)

    def _check_sharding(self) -> None:
        plugin = self.accelerator.state.fsdp_plugin
        for what, value, allowed in (
            ("fsdp_version", plugin.fsdp_version, 2),  # the first puts other modules in the layers' place
            ("fine_tuning.lora_rank", self.config.lora_rank, None),
            ("fine_tuning.train_embeddings", self.config.train_embeddings, True),
        ):
            if value != allowed:
                raise InputError(f"Under FSDP, {what} is {value}: allowed is {allowed}.")
        # Weights stay in float32 and autocast rounds them, as in one process: FSDP would round the loss as well.
        plugin.mixed_precision_policy = None

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Aggregated loss of a batch; `return_outputs` is not supported, since nothing here evaluates by logits."""
        if return_outputs:
            raise NotImplementedError("the aggregated loss has no single logits to return")
        with forward_as(self.model, self._forward):
            loss, losses = model(inputs["input_ids"], inputs["labels"])
        self.exit_losses.append(losses)
        return loss

    def _forward(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, dict[int, float]]:
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        layers, weights = step_weights(
            self.weights, self.parts.total_layers, self.config.shallow_steps, generator
        )
        # The Trainer wraps the model's forward in mixed precision; the layers are run one by one here, so it is asked for.
        with self.accelerator.autocast():
            return exit_loss(
                self.parts,
                self.parts.hidden_states(input_ids, layers),
                labels,
                weights,
                self.config.exit_positions,
                self.config.exits_per_step,
                generator,
                self.shortlists,
                self.config.distilled,
                (self.args.process_index, self.args.world_size),
            )

    def _summed(self, counts: Tensor) -> Tensor:
        """Over all processes."""
        return self.accelerator.reduce(counts.to(self.args.device), "sum")

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Every training record also holds the loss of each layer at that step."""
        if "loss" in logs:
            means = pd.DataFrame(self.exit_losses, columns=list(self.weights)).mean()  # NaN: not drawn
            means = torch.tensor(means.to_numpy(), device=self.args.device)
            over_processes = self.accelerator.reduce(means, "mean").tolist()
            names = [f"loss_layer_{layer}" for layer in self.weights]
            logs |= dict(zip(names, over_processes, strict=True))
            self.exit_losses.clear()
        super().log(logs, *args, **kwargs)

    def write_model(self, folder: Path) -> None:
        """Save the model as it is now. All processes must call it, for each may hold a part of the weights; one writes."""
        weights = self.accelerator.get_state_dict(self.model)
        if self.is_world_process_zero():
            for tied, source in self.model.all_tied_weights_keys.items():
                weights[tied] = weights[source]  # gathered twice, but written once
            self.model.save_pretrained(folder, state_dict=weights)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # What marks a checkpoint as whole is written next, so all processes have to be done with theirs.
        self.accelerator.wait_for_everyone()


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
