"""The decoder layers of any model as they are, behind the interface of the fused ones (`fused.py`).

Training runs every architecture by them, and decoding those that have no fused form: slower at one token a step, and the
values are the model's own to the bit.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eelib.models.fused import Heads, LayerCache


@dataclass(frozen=True)
class Positions:
    """Positions of the tokens being run, in the form that a model's own layers take them.

    Attributes
    ----------
    ids: (B or 1, T) int64.
    cos_sin: rotary cosines and sines, each (B or 1, T, D); None for a model without them.
    """

    ids: Tensor
    cos_sin: tuple[Tensor, Tensor] | None

    def narrow(self, start: int, length: int) -> "Positions":
        """Those of `length` positions from `start` on."""
        cos_sin = self.cos_sin
        if cos_sin is not None:
            cos_sin = cos_sin[0].narrow(1, start, length), cos_sin[1].narrow(1, start, length)
        return Positions(self.ids.narrow(1, start, length), cos_sin)


@dataclass(frozen=True)
class _Forwarded:
    """Our cache as transformers' layers see one: they count from 0, and ask for nothing but `update`."""

    cache: LayerCache

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any) -> tuple[Tensor, Tensor]:
        return self.cache.update(keys, values, layer_idx + 1)


class _Reached(Exception):
    """A layer has come to where it caches its keys and values."""


class _Stop:
    """A cache at which a layer stops."""

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> NoReturn:
        self.keys_values = keys, values
        raise _Reached


class OwnLayer(nn.Module):
    """One decoder layer of the model. A module, so that forward hooks can count and time it."""

    def __init__(self, module: nn.Module, config: Any, cache_argument: str):
        super().__init__()
        self.module = module
        self._config = config
        self._cache_argument = cache_argument

    def forward(
        self,
        hidden_states: Tensor,
        positions: Positions,
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) states before the layer -> after it; `cache` gets its keys and values. `mask`: see `fused.attention`."""
        if self._config._attn_implementation == "eager":
            mask = _added(mask, hidden_states)
        return self._run(hidden_states, positions, None if cache is None else _Forwarded(cache), mask)

    def keys_values(self, hidden_states: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, T, D) that the layer would cache: it is run up to there, and no further."""
        stop = _Stop()
        try:
            self._run(hidden_states, positions, stop, None)
        except _Reached:
            return stop.keys_values
        raise AssertionError("the layer caches no keys and values")

    def _run(self, hidden_states: Tensor, positions: Positions, cache: Any, mask: Tensor | None) -> Tensor:
        arguments = {self._cache_argument: cache} if cache is not None else {}
        if positions.cos_sin is not None:
            arguments["position_embeddings"] = positions.cos_sin
        return self.module(hidden_states, attention_mask=mask, position_ids=positions.ids, **arguments)


def _added(mask: Tensor | None, hidden_states: Tensor) -> Tensor | None:
    """A mask as eager attention takes it, added to the scores; it is causal by nothing else."""
    tokens = hidden_states.shape[1]
    if mask is None:
        if tokens == 1:
            return None
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=hidden_states.device).tril()
    lowest = torch.finfo(hidden_states.dtype).min
    return torch.zeros_like(mask, dtype=hidden_states.dtype).masked_fill_(~mask, lowest)


class OwnModel:
    """What `FusedModel` is, of the model's own layers.

    Attributes
    ----------
    layers: `OwnLayer`s 1..L, from index 0.
    """

    def __init__(
        self, model: PreTrainedModel, layers: nn.ModuleList, rotary: nn.Module | None, cache_argument: str
    ):
        self.layers = [OwnLayer(layer, model.config, cache_argument) for layer in layers]
        self._model = model
        self._rotary = rotary

    @cached_property
    def heads(self) -> Heads:
        """As the layers cache them; a cache is shared, so all do it alike."""
        weight = self._model.get_input_embeddings().weight
        state = weight.new_zeros(1, 1, self._model.config.hidden_size)
        positions = self.rotation(torch.zeros(1, 1, dtype=torch.int64, device=weight.device))
        with torch.no_grad():
            keys, values = self.keys_values(state, positions, 1, len(self.layers))
        if keys.shape != values.shape:
            raise ValueError("keys and values have different widths")
        return Heads(self._model.config.num_attention_heads, keys.shape[2], keys.shape[4])

    def rotation(self, positions: Tensor) -> Positions:
        """(B or 1, T) positions as the layers take them."""
        if self._rotary is None:
            return Positions(positions, None)
        weight = self._model.get_input_embeddings().weight  # says the dtype and device
        return Positions(positions, self._rotary(weight, position_ids=positions))

    def keys_values(
        self, hidden_states: Tensor, rotation: Positions, first: int, last: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that layers `first`..`last` would cache for (B, T, D) input states (Section 4.3.1).

        Each layer is run up to where it caches them. So it projects queries as well: `flops.py` counts that.

        Returns
        -------
        Each (N, B, G, T, D/H) for the N layers.
        """
        pairs = [layer.keys_values(hidden_states, rotation) for layer in self.layers[first - 1 : last]]
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys), torch.stack(values)
