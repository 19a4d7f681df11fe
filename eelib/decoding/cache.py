"""Key-value caches under early exit."""

from enum import Enum

import torch
from torch import Tensor

from eelib.models.parts import ModelParts


class CacheMode(Enum):
    """Where the keys and values of skipped layers come from.

    NONE: no cache; the prefix runs again, up to the exit layer, for every token. Exact: the thesis's main setting.
    PROPAGATE: each skipped layer projects its own from the state the token left with (Section 4.3.1), at once.
        Approximate.
    PROPAGATE_LATER: the same values, but only made when a later token goes deeper. Gives PROPAGATE's tokens.
    RECOMPUTE: a token that left early waits, and runs through the deeper layers, together with others that wait, when a
        later token goes there. Exact: the tokens and exit layers of NONE.
    COPY: skipped layers take the keys and values of the exit layer. Approximate; the variant that CALM (Schuster et al.
        2022) warns of.
    MONOTONE: a later token never goes deeper than an earlier one, so that nothing is missing (SkipDecode, Del Corro et
        al. 2023). The prompt is cached at full depth. Keys and values are exact; depth is given up.
    """

    NONE = "none"
    PROPAGATE = "propagate"
    PROPAGATE_LATER = "propagate-later"
    RECOMPUTE = "recompute"
    COPY = "copy"
    MONOTONE = "monotone"

    @property
    def exact(self) -> bool:
        """Whether tokens and exit layers are those of a criterion without a cache."""
        return self in (CacheMode.NONE, CacheMode.RECOMPUTE)

    @property
    def waits(self) -> bool:
        """Whether keys and values are only made when a later token needs them."""
        return self in (CacheMode.PROPAGATE_LATER, CacheMode.RECOMPUTE)


class KeyValueCache:
    """Keys and values of every layer in one buffer of fixed capacity each.

    Fused layers append through `update`. `lengths[l - 1]` counts the positions that layer l holds, which are the first
    ones. A layer that holds fewer than later steps attend to would give wrong results without any error; so what may be
    missing is asserted after every token (`check_aligned`).
    """

    def __init__(self, parts: ModelParts, batch: int, capacity: int):
        heads, weights = parts.fused.heads, parts.model.get_input_embeddings().weight
        shape = (parts.total_layers, batch, heads.groups, capacity, heads.width)
        self.keys, self.values = weights.new_empty(shape), weights.new_empty(shape)
        self.lengths = [0] * parts.total_layers
        self._slots: tuple[int, int] | None = None  # the positions that the views below are of

    @property
    def bytes(self) -> int:
        """Memory of the buffers."""
        return 2 * self.keys.nbytes

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append (B, G, T, D) keys and values to a layer (1..L); return views of all it holds, (B, G, length, D)."""
        index = layer - 1
        slots = self.lengths[index], keys.shape[2]
        if slots != self._slots:
            self._take_views(*slots)
        self._new_keys[index].copy_(keys)
        self._new_values[index].copy_(values)
        self.lengths[index] += slots[1]
        return self._held_keys[index], self._held_values[index]

    def _take_views(self, start: int, count: int) -> None:
        """Views of `count` new positions from `start` on, and of all up to them, for every layer: once a token, as a rule."""
        self._slots = start, count
        self._new_keys, self._new_values = (
            buffer.narrow(3, start, count).unbind(0) for buffer in (self.keys, self.values)
        )
        self._held_keys, self._held_values = (
            buffer.narrow(3, 0, start + count).unbind(0) for buffer in (self.keys, self.values)
        )

    def fill(self, keys: Tensor, values: Tensor, first: int) -> None:
        """Append (N, B, G, T, D) keys and values to the layers `first`.., which hold equally many positions."""
        layers, count = slice(first - 1, first - 1 + len(keys)), keys.shape[3]
        start = self.lengths[first - 1]
        self.keys[layers].narrow(3, start, count).copy_(keys)
        self.values[layers].narrow(3, start, count).copy_(values)
        for layer in range(layers.start, layers.stop):
            self.lengths[layer] = start + count

    def copy_from(self, layer: int) -> None:
        """Give every deeper layer the newest keys and values of `layer`."""
        newest = self.lengths[layer - 1] - 1
        count = len(self.keys) - layer
        keys, values = (buffer[layer - 1 : layer].narrow(3, newest, 1) for buffer in (self.keys, self.values))
        self.fill(keys.expand(count, -1, -1, -1, -1), values.expand(count, -1, -1, -1, -1), layer + 1)

    def add_rows(self, rows: Tensor) -> None:
        """Put copies of some rows of the batch, (R,) by index, behind the others."""
        self.keys, self.values = (torch.cat([held, held[:, rows]], 1) for held in (self.keys, self.values))
        self._slots = None

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on, in every layer."""
        self.lengths = [min(length, held) for held in self.lengths]

    def check_aligned(
        self, length: int, waiting: list[int] | None = None, deepest: int | None = None
    ) -> None:
        """AssertionError unless every layer holds the first `length` positions, less those that wait to go deeper.

        Parameters
        ----------
        waiting: layers that the newest positions have reached, oldest first; a layer beyond lacks them.
        deepest: layers beyond are never read again and not checked.
        """
        for layer, held in enumerate(self.lengths[:deepest], start=1):
            missing = sum(reached < layer for reached in waiting or [])
            assert held + missing == length, (
                f"layer {layer} holds {held} positions and {missing} wait, instead of {length}"
            )


def causal_mask(padding: Tensor, length: int, queries: int) -> Tensor:
    """Boolean mask (B, 1, queries, length) of left-padded rows: True where the newest `queries` positions may attend.

    `padding` (B,) counts the padded positions at the start of each row. A padded position attends to itself, which
    nobody reads, since attending to nothing would give NaN.
    """
    keys = torch.arange(length, device=padding.device)
    rows = keys[length - queries :, None]
    visible = (keys <= rows) & (keys >= padding[:, None, None])
    return (visible | (keys == rows)).unsqueeze(1)
