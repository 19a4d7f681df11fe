"""Static shapes for decoding on a GPU: a cache written by position, and a layer's step for one or some newest positions.

A CUDA graph replays the same operations on the same addresses. So nothing here depends on how long a sequence is: keys
and values lie in a buffer of fixed length, positions are tensors, and what a position may not see is masked. All of it
runs on a CPU as well, where nothing is captured.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.models.fused import FusedLayer, Rotation
from eelib.models.parts import ModelParts

BUCKET = 64  # lengths of the buffers are multiples of it: kernels of masked attention want them aligned


class StaticCache:
    """Keys and values of every layer for up to `slots` positions: (L, 1, G, slots, D) each, in the model's dtype.

    Zeroed at first: a masked position weighs 0, but 0 times what happens to lie in memory may be NaN.
    """

    def __init__(self, parts: ModelParts, slots: int):
        heads, weights = parts.fused.heads, parts.model.get_input_embeddings().weight
        shape = (parts.total_layers, 1, heads.groups, slots, heads.width)
        self.keys, self.values = weights.new_zeros(shape), weights.new_zeros(shape)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer (1..L): views (1, G, slots, D)."""
        return self.keys[layer - 1], self.values[layer - 1]

    def fill(self, keys: Tensor, values: Tensor, first: int, positions: Tensor) -> None:
        """Write (N, 1, G, T, D) keys and values of the layers from `first` on."""
        layers = slice(first - 1, first - 1 + len(keys))
        self.keys[layers].index_copy_(3, positions, keys)
        self.values[layers].index_copy_(3, positions, values)


def write(held: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, positions: Tensor) -> None:
    """Write (1, G, T, D) keys and values into a layer's slots at (T,) positions."""
    held[0].index_copy_(2, positions, keys)
    held[1].index_copy_(2, positions, values)


@dataclass(frozen=True)
class Prompt:
    """A cache as the layers see it while a prompt of T tokens is prefilled: written, but not read."""

    cache: StaticCache
    positions: Tensor  # (T,)

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write a layer's keys and values; a prompt attends to its own, causally."""
        write(self.cache.layer(layer), keys, values, self.positions)
        return keys, values


@dataclass(frozen=True)
class Rows:
    """The newest positions that run together: where they are, and what they may attend to."""

    positions: Tensor  # (T,) int64
    rotation: Rotation | None  # theirs
    mask: Tensor  # (T, slots), 0 or -inf, in the model's dtype


class Tables:
    """What depends on a position alone, for all positions; rows are taken by index."""

    def __init__(self, parts: ModelParts, slots: int):
        self.columns = torch.arange(slots, device=parts.device)
        self.rotation = parts.fused.rotation(self.columns[None])
        dtype = parts.model.get_input_embeddings().weight.dtype
        future = torch.full((slots, slots), -math.inf, dtype=dtype, device=parts.device)
        self.mask = future.triu(1)

    def rows(self, positions: Tensor) -> Rows:
        """Those of (T,) positions."""
        rotation = self.rotation
        if rotation is not None:
            rotation = Rotation(
                rotation.cos.index_select(2, positions), rotation.sin.index_select(2, positions)
            )
        return Rows(positions, rotation, self.mask.index_select(0, positions))


def masked_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention over all slots: (1, H, T, D) queries, (1, G, K, D) keys and values, (T, K) mask added to the scores.

    Heads that share keys become queries of one head, so that keys are not repeated. Gives (T, H * D).
    """
    _, heads, tokens, width = query.shape
    groups = keys.shape[1]
    shared = query.reshape(1, groups, -1, width)
    if tokens > 1:
        mask = mask.repeat(heads // groups, 1)
    if torch.compiler.is_compiling():
        # Written out, the compiler spreads one query's keys over the whole GPU; the library's kernel takes a head a block.
        scores = (shared.unsqueeze(-2).float() * keys.unsqueeze(-3).float()).sum(-1) / math.sqrt(width)
        weights = (scores + mask.float()).softmax(-1)
        out = (weights.unsqueeze(-1) * values.unsqueeze(-3).float()).sum(-2).to(query.dtype)
    else:
        out = F.scaled_dot_product_attention(shared, keys, values, mask[None, None])
    return out.reshape(heads, tokens, width).transpose(0, 1).reshape(tokens, heads * width)


def attend(layer: FusedLayer, hidden: Tensor, rows: Rows, keys: Tensor, values: Tensor) -> Tensor:
    """A layer's step up to its attention: (1, T, D) states of some rows -> (T, H * D) attended.

    Writes their keys and values into the layer's slots, and attends to these.
    """
    query, new_keys, new_values = layer.project(hidden, rows.rotation)
    write((keys, values), new_keys, new_values, rows.positions)
    return masked_attention(query, keys, values, rows.mask)


def finish(layer: FusedLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of the step: (1, T, D) states before the layer, (T, H * D) attended -> states after it."""
    return layer.finish(hidden, attended)
