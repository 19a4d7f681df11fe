"""Taking a decoder-only model apart: embeddings, layers, final norm, head.

Everything is the model's own modules, used as they are; no modelling file is forked. What differs between architectures
stands in `architectures.py`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from eelib.errors import InputError
from eelib.models.architectures import ARCHITECTURES, LAYOUT, Architecture
from eelib.models.exits import exit_points
from eelib.models.fused import FusedModel, fuse
from eelib.models.own import OwnModel, Positions


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A decoder-only model in pieces. Layers are counted 1..L.

    Attributes
    ----------
    model: the whole model (kept in evaluation mode by whoever decodes with it).
    layers: its L decoder layers.
    head: its linear head over the vocabulary.
    exit_points: layers at which it may stop.
    max_positions: the most tokens of a sequence.
    softcap: c, where logits are c * tanh(what the head gives / c); None where they are what it gives.
    """

    model: PreTrainedModel
    layers: nn.ModuleList
    head: nn.Linear
    exit_points: list[int]
    max_positions: int
    softcap: float | None
    _architecture: Architecture
    _decoder: nn.Module
    _norm: nn.Module
    _project: nn.Module | None

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
        return self._architecture.embed(self._decoder, input_ids, positions)

    @cached_property
    def own(self) -> OwnModel:
        """The layers as training runs them: the model's own modules."""
        return OwnModel(self.model, self.layers, self._rotary, self._architecture.cache)

    @cached_property
    def fused(self) -> FusedModel | OwnModel:
        """The layers as decoding runs them: joined where the architecture has a fused form, else the model's own.

        Made once; the model's weights must not be moved or cast afterwards.
        """
        form = self._architecture.fused
        if form is not None:
            return fuse(self.layers, form, self._rotary, self.model.get_input_embeddings().weight)
        attention = self.model.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise InputError(
                f"The attention is {attention!r}: decoding with the layers of {self.model.config.model_type!r} allows 'sdpa' "
                "and 'eager'."
            )
        return self.own

    @property
    def _rotary(self) -> nn.Module | None:
        return getattr(self._decoder, "rotary_emb", None)

    def positions(self, ids: Tensor) -> Positions:
        """Positions (B, T), with what the layers need of them (rotary cosines and sines, if any)."""
        return self.own.rotation(ids)

    def run_layer(self, layer: int, hidden_states: Tensor, positions: Positions) -> Tensor:
        """Run the model's own module of layer `layer` (1..L) on (B, T, D) states with causal attention, as training does."""
        return self.own.layers[layer - 1](hidden_states, positions)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """(..., D) states of any layer -> (..., V) logits: `lm_head(final_norm(h))`, the model's own norm and head."""
        logits = self.head(self.norm(hidden_states))
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def norm(self, hidden_states: Tensor) -> Tensor:
        """The model's final norm, before its head."""
        hidden_states = self._norm(hidden_states)
        return hidden_states if self._project is None else self._project(hidden_states)

    def hidden_states(self, input_ids: Tensor, layers: int | None = None) -> list[Tensor]:
        """States after each layer 1..`layers` (all L by default) for (B, T) ids without padding: (B, T, D) each, none normed.

        More tokens than the model has positions give InputError.
        """
        if input_ids.shape[1] > self.max_positions:
            raise InputError(
                f"The sequences have {input_ids.shape[1]} tokens: allowed are at most the model's {self.max_positions} positions."
            )
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
    """Parts of a decoder-only model with a final norm and a head.

    A model type that is not in `ARCHITECTURES` is taken if its pieces lie where Llama's do and compute what the model does.
    InputError for what cannot be taken apart, or has too few layers for any exit.
    """
    config = model.config
    kind = config.model_type
    if config.is_encoder_decoder:
        raise InputError(
            f"The model type {kind!r} cannot be taken apart: it is an encoder-decoder, allowed are decoders alone."
        )
    if config._attn_implementation == "flex_attention":
        raise InputError(
            "The attention is 'flex_attention', which is causal only by masks made for it: allowed are 'sdpa' and 'eager'."
        )
    if kind in ARCHITECTURES:
        return _parts(model, ARCHITECTURES[kind])
    try:
        parts = _parts(model, LAYOUT)
        difference = _difference(parts)
    except InputError:
        raise
    except Exception as error:  # whatever it is that a model of another layout lacks
        raise InputError(
            f"The model type {kind!r} cannot be taken apart ({type(error).__name__}: {error}): allowed are "
            f"{', '.join(ARCHITECTURES)}, and others whose pieces lie where Llama's do."
        ) from error
    if not difference <= torch.finfo(model.dtype).eps ** 0.5:  # NaN neither
        raise InputError(
            f"The model type {kind!r} cannot be taken apart: run layer by layer, its states or logits differ by "
            f"{difference:.0%} from its own; allowed are {', '.join(ARCHITECTURES)}, and others that compute what Llama's "
            "layout says."
        )
    return parts


def _parts(model: PreTrainedModel, architecture: Architecture) -> ModelParts:
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    norm = getattr(decoder, architecture.norm)
    for part, found in (("final norm", norm), ("head", head)):
        if found is None:
            raise InputError(
                f"The model type {model.config.model_type!r} cannot be taken apart: this one has no {part}, by which layers "
                "before the last are decoded."
            )
    layers = getattr(decoder, architecture.layers)
    return ModelParts(
        model=model,
        layers=layers,
        head=head,
        exit_points=exit_points(len(layers)),
        max_positions=_max_positions(model.config),
        softcap=getattr(model.config, "final_logit_softcapping", None),
        _architecture=architecture,
        _decoder=decoder,
        _norm=norm,
        _project=None if architecture.project is None else getattr(decoder, architecture.project),
    )


def _max_positions(config: PretrainedConfig) -> int:
    """The most tokens that the model's layers treat as they are run here: all attend to all before them."""
    limits = [config.max_position_embeddings]
    window = getattr(config, "sliding_window", None)
    if window is not None:  # within its first window, sliding attention is full attention
        limits.append(window)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":  # beyond, the cosines of all positions depend on the length
        limits.append(rope["original_max_position_embeddings"])
    return min(limits)


@torch.no_grad()
def _difference(parts: ModelParts) -> float:
    """How much states and logits of a few tokens differ from the model's own, relative to the largest of these."""
    model, was_training = parts.model, parts.model.training
    kinds = set(getattr(model.config, "layer_types", None) or []) - {"full_attention", "sliding_attention"}
    if kinds:
        raise InputError(
            f"The model type {model.config.model_type!r} cannot be taken apart: it has layers of {sorted(kinds)}, allowed are "
            "full and sliding attention."
        )
    ids = torch.arange(8, device=parts.device)[None] % model.config.vocab_size
    model.eval()
    theirs = model(ids, output_hidden_states=True, use_cache=False)
    ours = parts.hidden_states(ids)
    parts.own.heads  # decoding caches alike in all layers  # noqa: B018
    model.train(was_training)
    pairs = list(zip(ours[:-1], theirs.hidden_states[1:-1], strict=True))
    pairs.append((parts.logits(ours[-1]), theirs.logits))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
