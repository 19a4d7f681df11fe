"""Where the architectures of transformers keep their pieces: the one table that knows how they differ.

A new one is a row here, and a row in `tests/test_architectures.py`. A model type without a row is tried as `LAYOUT`
(`parts.take_apart`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FusedForm:
    """Where a layer that `fused.py` can join keeps its modules, by their paths in it; Llama's names by default.

    Such a layer normalises, attends and adds, then normalises, feeds forward and adds; queries, keys and values have a
    projection each (`self_attn.q_proj` and so on), and rotary positions, if any, turn whole heads.

    Attributes
    ----------
    norms: before attention, and before the feed-forward layer.
    up: one projection up, or two of which the first gates the second.
    head_norms: whether `self_attn.q_norm` and `self_attn.k_norm` normalise each head.
    """

    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    out: str = "self_attn.o_proj"
    up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    activation: str = "mlp.act_fn"
    head_norms: bool = False


@dataclass(frozen=True)
class Architecture:
    """Where a decoder keeps its pieces, by their paths in `model.get_decoder()`; Llama's names by default.

    Attributes
    ----------
    embed: of the decoder, (B, T) ids and their positions: (B, T, D) states before the first layer, dropout included.
    norm: the final norm; one that is missing or None cannot be taken apart.
    project: what follows the norm before the head, where there is such a thing.
    cache: the argument by which a layer takes its cache.
    fused: how its layers are joined; None runs them as they are.
    feed_forward: weight matrices of a feed-forward layer, and the configuration's name of their width (None in the
        configuration stands for four times the hidden size).
    """

    embed: Callable[[nn.Module, Tensor, Tensor], Tensor] = lambda decoder, ids, _: decoder.embed_tokens(ids)
    layers: str = "layers"
    norm: str = "norm"
    project: str | None = None
    cache: str = "past_key_values"
    fused: FusedForm | None = None
    feed_forward: tuple[int, str] = (3, "intermediate_size")


def _opt_embed(decoder: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    tokens = decoder.embed_tokens(ids)
    tokens = tokens if decoder.project_in is None else decoder.project_in(tokens)
    # The attention mask only serves to count positions, which are given here.
    return tokens + decoder.embed_positions(None, position_ids=positions)


def _starcoder2_embed(decoder: nn.Module, ids: Tensor, _: Tensor) -> Tensor:
    return F.dropout(decoder.embed_tokens(ids), decoder.embedding_dropout, decoder.training)


LAYOUT = Architecture()
LLAMA = Architecture(fused=FusedForm())
ARCHITECTURES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": replace(LLAMA, fused=FusedForm(head_norms=True)),
    "gemma": LAYOUT,  # its norms scale by 1 + weight
    "gemma2": LAYOUT,  # it also normalises what it adds
    "opt": Architecture(
        embed=_opt_embed,
        norm="final_layer_norm",
        project="project_out",
        fused=FusedForm(
            norms=("self_attn_layer_norm", "final_layer_norm"),
            out="self_attn.out_proj",
            up=("fc1",),
            down="fc2",
            activation="activation_fn",
        ),
        feed_forward=(2, "ffn_dim"),
    ),
    "starcoder2": Architecture(
        embed=_starcoder2_embed,
        fused=FusedForm(up=("mlp.c_fc",), down="mlp.c_proj", activation="mlp.act"),
        feed_forward=(2, "intermediate_size"),
    ),
    "gpt2": Architecture(  # one projection makes queries, keys and values, its weight transposed
        embed=lambda decoder, ids, positions: decoder.drop(decoder.wte(ids) + decoder.wpe(positions)),
        layers="h",
        norm="ln_f",
        feed_forward=(2, "n_inner"),
    ),
    "gpt_neox": Architecture(  # attention and feed-forward layer stand side by side; a part of each head is turned
        embed=lambda decoder, ids, _: decoder.emb_dropout(decoder.embed_in(ids)),
        norm="final_layer_norm",
        cache="layer_past",
        feed_forward=(2, "intermediate_size"),
    ),
    "phi": Architecture(  # as GPT-NeoX
        embed=lambda decoder, ids, _: decoder.embed_dropout(decoder.embed_tokens(ids)),
        norm="final_layernorm",
        feed_forward=(2, "intermediate_size"),
    ),
}
