"""FLOPs of a forward pass, from a transformers config alone: the costs that no machine's speed enters.

A FLOP is one multiplication or one addition; a product of an (m, k) and a (k, n) matrix takes 2 m k n. Counted are the
matrix products of the decoder layers and of the head, which is what `torch.utils.flop_counter` counts, so that the two agree
to the FLOP. Not counted: norms, activations, softmax, rotary and position embeddings, biases, residual sums, the embedding
look-up (well under 1% at the sizes of the thesis). Attention is counted for the full square of new positions by context
positions, masked or not, as torch does.

Layers are counted 1..L, and an exit layer l means that l decoder layers ran.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PretrainedConfig

from eelib.decoding.cache import CacheMode
from eelib.errors import InputError
from eelib.models.architectures import ARCHITECTURES

CACHES = tuple(mode.value for mode in CacheMode)


class _Dimensions(NamedTuple):
    hidden: int
    layers: int
    query: int  # width of all query heads together
    key: int  # width of all key heads together, and of all value heads
    mlp_parameters: int
    vocabulary: int
    fill_parameters: int  # entries of the weight matrices that run to fill a skipped layer's cache


class _Pass(NamedTuple):
    """One forward pass of a generation."""

    tokens: int  # new positions
    context: int  # positions attended to, the new ones included
    layers: int  # decoder layers run
    projected_layers: int  # layers that only fill their cache
    decodes: bool = True  # whether the head runs, once


def layer_flops(config: PretrainedConfig, tokens: int, context: int) -> int:
    """FLOPs of one decoder layer for `tokens` new positions that attend to `context` positions, themselves included."""
    size = _dimensions(config)
    _check_positions(tokens, context)
    attention = 2 * (2 * tokens * context * size.query)  # scores, then the weighted sum of the values
    return 2 * tokens * _layer_parameters(size) + attention


def head_flops(config: PretrainedConfig, tokens: int = 1) -> int:
    """FLOPs of the language-model head for `tokens` positions; the final norm before it is not counted."""
    size = _dimensions(config)
    return 2 * tokens * size.hidden * size.vocabulary


def generation_flops(
    config: PretrainedConfig, prompt_length: int, exit_layers: Sequence[int], cache: str
) -> int:
    """FLOPs of generating one token for each of `exit_layers` after a prompt, the head once a token included.

    Args:
        config: of a model type in `ARCHITECTURES`.
        prompt_length: positions of the prompt.
        exit_layers: the exit layer of each generated token in 1..L; L everywhere is the full model.
        cache: "none": every token runs the whole prefix (the prompt and the tokens generated so far) up to its
            exit layer, as the thesis's uncached mode. All others: all of the prompt but its last token runs once at
            full depth; every token then runs one position, that of the token before it, up to its exit layer. What
            else runs: "propagate": the layers above project the exit's hidden state to keys and values (Section
            4.3.1), and to queries where no fused layers decode. "propagate-later": they do so when a later token goes deeper, up to where it goes.
            "recompute": tokens that left early then run through these layers. "copy", "monotone": nothing.

    Exit decisions are not included.
    """
    size = _dimensions(config)
    total = 0
    for step in _passes(size, prompt_length, exit_layers, cache):
        projections = step.projected_layers * 2 * step.tokens * size.fill_parameters
        total += (
            step.layers * layer_flops(config, step.tokens, step.context)
            + projections
            + step.decodes * head_flops(config)
        )
    return total


def _passes(size: _Dimensions, prompt_length: int, exit_layers: Sequence[int], cache: str) -> Iterator[_Pass]:
    if prompt_length < 1:
        raise InputError(f"prompt_length is {prompt_length}, expected at least 1")
    if cache not in CACHES:
        raise InputError(f"cache is {cache!r}, expected one of {', '.join(CACHES)}")
    if not len(exit_layers):
        raise InputError("exit_layers is empty, expected the exit layer of at least one generated token")
    if cache != "none" and prompt_length > 1:
        yield _Pass(prompt_length - 1, prompt_length - 1, size.layers, 0, decodes=False)
    waiting: list[int] = []  # layers that tokens reached which lack deeper ones
    for token, exit_layer in enumerate(exit_layers):
        if not 1 <= exit_layer <= size.layers:
            raise InputError(f"exit layer of token {token} is {exit_layer}, expected 1 to {size.layers}")
        prefix = prompt_length + token
        if cache == "none":
            yield _Pass(prefix, prefix, exit_layer, 0)
            continue
        yield _Pass(1, prefix, exit_layer, size.layers - exit_layer if cache == "propagate" else 0)
        for reached in waiting:
            missing = max(exit_layer - reached, 0)
            if cache == "recompute":
                yield _Pass(1, prefix, missing, 0, decodes=False)
            else:
                yield _Pass(1, prefix, 0, missing, decodes=False)
        if cache in ("recompute", "propagate-later"):
            waiting = [max(exit_layer, reached) for reached in waiting] + [exit_layer]


def _layer_parameters(size: _Dimensions) -> int:
    """Entries of a layer's weight matrices: query and output, key and value, MLP."""
    return 2 * size.hidden * (size.query + size.key) + size.mlp_parameters


def _dimensions(config: PretrainedConfig) -> _Dimensions:
    if config.model_type not in ARCHITECTURES:
        raise InputError(f"model_type is {config.model_type!r}, expected one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[config.model_type]
    hidden, heads = config.hidden_size, config.num_attention_heads
    if getattr(config, "word_embed_proj_dim", hidden) != hidden:
        raise InputError(
            f"word_embed_proj_dim is {config.word_embed_proj_dim}, expected hidden_size {hidden}: projections around the "
            "decoder are not counted"
        )
    head_width = getattr(config, "head_dim", None) or hidden // heads
    query, key = heads * head_width, (getattr(config, "num_key_value_heads", None) or heads) * head_width
    mlp_matrices, mlp_width = architecture.feed_forward
    return _Dimensions(
        hidden=hidden,
        layers=config.num_hidden_layers,
        query=query,
        key=key,
        mlp_parameters=mlp_matrices * hidden * (getattr(config, mlp_width) or 4 * hidden),
        vocabulary=config.vocab_size,
        # Layers run as they are project queries as well (`OwnModel.keys_values`).
        fill_parameters=hidden * (2 * key + (query if architecture.fused is None else 0)),
    )


def _check_positions(tokens: int, context: int) -> None:
    if not 1 <= tokens <= context:
        raise InputError(f"{tokens} new positions in a context of {context}, expected 1 <= tokens <= context")
