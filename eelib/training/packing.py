"""Token ids packed into sequences of equal length: no padding, no wasted position."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase


def encode_files(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """All texts one after the other, each as `<s> tokens </s>`: int32 ids of shape (T,)."""
    encoded = tokenizer(list(texts), return_attention_mask=False, verbose=False).input_ids
    return np.concatenate([np.array([*ids, tokenizer.eos_token_id], dtype=np.int32) for ids in encoded])


def pack(ids: np.ndarray, length: int) -> np.ndarray:
    """Consecutive blocks of `length` ids, shape (T // length, length); the incomplete last one is dropped."""
    return ids[: len(ids) // length * length].reshape(-1, length)


class PackedDataset(Dataset):
    """Blocks of token ids, shape (N, length), as a Trainer reads them.

    An item is `{"input_ids", "labels"}`, both int64 of shape (length,); a decoder shifts the labels itself.
    """

    def __init__(self, blocks: np.ndarray):
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = torch.from_numpy(self.blocks[index].astype(np.int64))
        return {"input_ids": block, "labels": block}
