"""Taking a decoder-only model apart: embeddings, layers, final norm, head.

With `fused.py` beside it, the only place that knows how OPT differs from Llama. Everything is the model's own modules, used as
they are; no modelling file is forked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eelib.models.exits import exit_points
from eelib.models.fused import FusedModel, fuse
from eelib.study.errors import InputError


@dataclass(frozen=True)
class Positions:
    """Positions of the tokens being run, in the form this architecture's layers take them."""

    ids: Tensor  # (B, T) int64
    layer_arguments: dict[str, Any]  # passed to every layer


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A decoder-only model in pieces. Layers are counted 1..L.

    Attributes
    ----------
    model: the whole model (kept in evaluation mode by whoever decodes with it).
    layers: its L decoder layers.
    exit_points: layers at which it may stop.
    """

    model: PreTrainedModel
    layers: nn.ModuleList
    exit_points: list[int]
    max_positions: int
    _embed: Callable[[Tensor, Tensor], Tensor]
    _norm: Callable[[Tensor], Tensor]
    _rotary: nn.Module | None

    @property
    def total_layers(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return self.model.device

    def embed(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) token ids and their positions -> (B, T, D) hidden states before the first layer."""
        return self._embed(input_ids, positions)

    def positions(self, ids: Tensor) -> Positions:
        """Positions (B, T), with what the layers need of them (for Llama the rotary cosines and sines)."""
        if self._rotary is None:
            return Positions(ids, {})
        cos_sin = self._rotary(self.model.get_input_embeddings().weight, position_ids=ids)
        return Positions(ids, {"position_embeddings": cos_sin})

    @cached_property
    def fused(self) -> FusedModel:
        """The layers as decoding runs them. Made once; the model's weights must not be moved or cast afterwards."""
        return fuse(self.model)

    def run_layer(self, layer: int, hidden_states: Tensor, positions: Positions) -> Tensor:
        """Run the model's own module of layer `layer` (1..L) on (B, T, D) states with causal attention, as training does."""
        return self.layers[layer - 1](
            hidden_states,
            attention_mask=None,
            position_ids=positions.ids,
            **positions.layer_arguments,
        )

    def logits(self, hidden_states: Tensor) -> Tensor:
        """(..., D) states of any layer -> (..., V) logits: `lm_head(final_norm(h))`, the model's own norm and head."""
        return self.model.lm_head(self.norm(hidden_states))

    def norm(self, hidden_states: Tensor) -> Tensor:
        """The model's final norm, before its head."""
        return self._norm(hidden_states)

    def hidden_states(self, input_ids: Tensor, layers: int | None = None) -> list[Tensor]:
        """States after each layer 1..`layers` (all L by default) for (B, T) ids without padding: (B, T, D) each, none normed."""
        positions = self.positions(
            torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
        )
        hidden = self.embed(input_ids, positions.ids)
        states = []
        for layer in range(1, (layers or self.total_layers) + 1):
            hidden = self.run_layer(layer, hidden, positions)
            states.append(hidden)
        return states


def take_apart(model: PreTrainedModel) -> ModelParts:
    """Parts of an OPT or Llama model; another architecture, or too few layers for any exit, gives InputError."""
    kind = model.config.model_type
    if kind == "llama":
        decoder = model.model
        embed, norm, rotary = (lambda ids, _: decoder.embed_tokens(ids)), decoder.norm, decoder.rotary_emb

    elif kind == "opt" and model.config.do_layer_norm_before:
        decoder, rotary = model.model.decoder, None

        def embed(ids: Tensor, positions: Tensor) -> Tensor:
            tokens = decoder.embed_tokens(ids)
            tokens = tokens if decoder.project_in is None else decoder.project_in(tokens)
            # The attention mask only serves to count positions, which are given here.
            return tokens + decoder.embed_positions(None, position_ids=positions)

        def norm(hidden: Tensor) -> Tensor:
            hidden = decoder.final_layer_norm(hidden)
            return hidden if decoder.project_out is None else decoder.project_out(hidden)

    else:
        raise InputError(
            f"The model type {kind!r} cannot be taken apart: allowed are 'llama' and pre-norm 'opt'."
        )
    return ModelParts(
        model=model,
        layers=decoder.layers,
        exit_points=exit_points(len(decoder.layers)),
        max_positions=model.config.max_position_embeddings,
        _embed=embed,
        _norm=norm,
        _rotary=rotary,
    )
