"""Causal attention in blocks of queries: what training on a CPU runs instead of torch's fused kernel.

The fused kernel's backward pass takes 40% of a training step there at these sizes (256 positions, heads of 32); plain
products and a softmax, on little more than the keys that a causal model may see, take a third of its time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

BLOCK = 128  # queries that share one slice of keys
CAUSAL_BLOCKS = "causal_blocks"  # its name in transformers


def causal_blocks(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention of every position to itself and those before it.

    Parameters
    ----------
    query: (B, H, T, D).
    key, value: (B, G, T, D), each shared by H / G heads.
    attention_mask: None: nothing is padded.
    scaling: of the scores; 1/sqrt(D) by default.
    dropout: 0.

    Returns
    -------
    (B, T, H, D) outputs, and None for the weights.
    """
    if attention_mask is not None or dropout > 0:
        raise ValueError(
            "causal_blocks takes no attention mask and no dropout: sequences are packed, not padded"
        )
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    scaling = width**-0.5 if scaling is None else scaling
    # Heads that share keys stand one after the other as further queries of them, so that keys are not repeated.
    query = (query * scaling).reshape(batch, groups, heads // groups, length, width)
    outputs = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        rows = query[:, :, :, start:end].reshape(batch, groups, -1, width)
        scores = (rows @ key[:, :, :end].transpose(2, 3)).float()
        scores = scores.view(batch, groups, -1, end - start, end)
        future = torch.ones(end - start, end, dtype=torch.bool, device=query.device).triu(start + 1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1).to(value.dtype)
        output = weights.view(batch, groups, -1, end) @ value[:, :, :end]
        outputs.append(output.view(batch, heads, end - start, width))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(CAUSAL_BLOCKS, causal_blocks)
