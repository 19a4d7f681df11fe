"""Key-value caches under early exit."""

from enum import Enum

import torch
from torch import Tensor

from eelib.models.parts import ModelParts, Positions


class CacheMode(Enum):
    """How the keys and values of skipped layers come about.

    NONE: no cache; the prefix runs again, up to the exit layer, for every token. Exact: the thesis's main setting.
    PROPAGATE: skipped layers project theirs from the state the token left with (Section 4.3.1). Approximate.
    """

    NONE = "none"
    PROPAGATE = "propagate"


class KeyValueCache:
    """Keys and values of every layer in buffers of fixed capacity.

    Decoder layers append through `update`, as with the cache of transformers. `lengths[i]` counts the positions layer i
    (from 0) holds; they must be equal after every token (`check_aligned`), or later steps would attend to wrong ones.
    """

    def __init__(self, layers: int, capacity: int):
        self.capacity = capacity
        self.lengths = [0] * layers
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values to a layer (from 0); return views of all it holds, (B, H, length, D)."""
        if self._keys[layer_idx] is None:
            batch, heads, _, width = keys.shape
            self._keys[layer_idx] = keys.new_empty(batch, heads, self.capacity, width)
            self._values[layer_idx] = values.new_empty(batch, heads, self.capacity, width)
        start = self.lengths[layer_idx]
        end = start + keys.shape[2]
        self._keys[layer_idx][:, :, start:end] = keys
        self._values[layer_idx][:, :, start:end] = values
        self.lengths[layer_idx] = end
        return self._keys[layer_idx][:, :, :end], self._values[layer_idx][:, :, :end]

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on, in every layer."""
        self.lengths = [min(length, held) for held in self.lengths]

    def check_aligned(self, length: int) -> None:
        """AssertionError unless every layer holds exactly `length` positions."""
        assert set(self.lengths) == {length}, (
            f"layers hold {sorted(set(self.lengths))} positions instead of {length}"
        )


def propagate(
    parts: ModelParts, cache: KeyValueCache, hidden_states: Tensor, positions: Positions, layer: int
) -> None:
    """Fill the layers after `layer` from the (B, T, D) states a token left it with: each layer's own projections."""
    for skipped in range(layer + 1, parts.total_layers + 1):
        cache.update(*parts.project_keys_values(skipped, hidden_states, positions), skipped - 1)


def causal_mask(padding: Tensor, length: int, queries: int) -> Tensor:
    """Boolean mask (B, 1, queries, length) of left-padded rows: True where the newest `queries` positions may attend.

    `padding` (B,) counts the padded positions at the start of each row. A padded position attends to itself, which
    nobody reads, since attending to nothing would give NaN.
    """
    keys = torch.arange(length, device=padding.device)
    rows = keys[length - queries :, None]
    visible = (keys <= rows) & (keys >= padding[:, None, None])
    return (visible | (keys == rows)).unsqueeze(1)
