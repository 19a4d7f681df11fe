"""What of a model is trained: low-rank updates, one row of the embeddings; and what would disturb it."""

import torch
from peft import LoraConfig, LoraModel
from transformers import PreTrainedModel


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
