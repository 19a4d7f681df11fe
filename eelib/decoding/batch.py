"""Decode many prompts at once at full width: what accuracy is computed with.

Rows that have stopped stay in the batch while deeper layers run, which costs time and changes nothing: tokens and exit
layers are those of `generate`, one prompt at a time, in every cache mode. A cache kept at full depth gives the uncached
decoder's tokens without running the prefix again, and the recomputing one's; freezing a stopped row's state while deeper
layers project it gives propagation's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode, KeyValueCache, causal_mask
from eelib.decoding.criteria import ExitCriterion, ExitState
from eelib.decoding.generate import Generation, check_prompt
from eelib.errors import InputError
from eelib.models.fused import Rotation
from eelib.models.parts import ModelParts

Observer = Callable[[int, int, Tensor], None]  # (token, layer, (B, D) states after the layer)


class BatchDecoder:
    """Prompts of any lengths, prefilled once; every `decode` starts from that prefill, so a sweep shares it.

    Parameters
    ----------
    prompts: token ids; empty ones, or ones too long for the model, give InputError.
    new_tokens: the most tokens to generate after each.
    """

    @torch.inference_mode()
    def __init__(self, parts: ModelParts, prompts: list[list[int]], new_tokens: int):
        for prompt in prompts:
            check_prompt(parts, prompt, new_tokens)
        self.parts = parts
        self.new_tokens = new_tokens
        self.longest = max(len(prompt) for prompt in prompts)
        self.padding = torch.tensor([self.longest - len(prompt) for prompt in prompts], device=parts.device)
        self.last_tokens = torch.tensor([prompt[-1] for prompt in prompts], device=parts.device)
        capacity = self.longest + new_tokens
        self.cache = KeyValueCache(parts, len(prompts), capacity)
        columns = torch.arange(capacity, device=parts.device)
        self.positions = (columns - self.padding[:, None]).clamp(min=0)
        self.rotation = parts.fused.rotation(self.positions)
        if self.longest > 1:
            padded = [[0] * (self.longest - len(prompt)) + prompt[:-1] for prompt in prompts]
            ids = torch.tensor(padded, device=parts.device)
            hidden, rotation = self._embed(ids, 0)
            mask = causal_mask(self.padding, self.longest - 1, self.longest - 1)
            for layer in parts.fused.layers:
                hidden = layer(hidden, rotation, self.cache, mask)

    def _embed(self, ids: Tensor, start: int) -> tuple[Tensor, Rotation | None]:
        """States (B, T, D) of ids in the columns from `start` on, and their rotation."""
        count = ids.shape[1]
        rotation = None if self.rotation is None else self.rotation.narrow(start, count)
        return self.parts.embed(ids, self.positions[:, start : start + count]), rotation

    @torch.inference_mode()
    def decode(
        self,
        criterion: ExitCriterion,
        cache_mode: CacheMode = CacheMode.NONE,
        observe: Observer | None = None,
        depth: int | None = None,
        end: int | None = None,
    ) -> list[Generation]:
        """Greedy early-exit decoding of all prompts, with the tokens and exit layers that `cache_mode` gives one of them.

        `observe(token, layer, states)` is called after every layer, for recording; stopped rows of a propagating cache
        show their frozen state. With a `depth` the model ends after that layer, which need not be an exit point. Rows run on
        after the token id `end`, and what follows it is left out of the result.
        """
        criterion.check(self.parts)
        self.cache.truncate(self.longest - 1)
        tokens, exits = self.last_tokens, []
        depth = depth or self.parts.total_layers
        deepest = torch.full_like(tokens, depth)
        generated = []
        for token in range(self.new_tokens):
            hidden, layers = self._step(tokens, token, criterion, cache_mode, deepest, observe, depth)
            if cache_mode is CacheMode.MONOTONE:
                deepest = layers
            values, tokens = self.parts.logits(hidden).max(dim=-1)
            if torch.isnan(values).any():
                raise InputError("The model's logits are NaN: its weights or its number format are broken.")
            generated.append(tokens)
            exits.append(layers)
        rows = list(zip(torch.stack(generated, 1).tolist(), torch.stack(exits, 1).tolist(), strict=True))
        lengths = [tokens.index(end) + 1 if end in tokens else len(tokens) for tokens, _ in rows]
        return [
            Generation(tokens[:length], layers[:length])
            for (tokens, layers), length in zip(rows, lengths, strict=True)
        ]

    def _step(
        self,
        tokens: Tensor,
        token: int,
        criterion: ExitCriterion,
        cache_mode: CacheMode,
        deepest: Tensor,
        observe: Observer | None,
        depth: int,
    ) -> tuple[Tensor, Tensor]:
        """One token for all rows: states (B, D) they are decoded from, and the layers (B,) they left at.

        `deepest` (B,): the layers at which rows must stop.
        """
        parts, cache = self.parts, self.cache
        column = self.longest - 1 + token
        hidden, rotation = self._embed(tokens[:, None], column)
        mask = causal_mask(self.padding, column + 1, 1)
        stopped = torch.zeros(len(tokens), dtype=torch.bool, device=parts.device)
        layers = torch.full((len(tokens),), depth, device=parts.device)
        final = hidden[:, 0]
        state = ExitState(parts.logits)
        state.token, state.hidden_states = token, None
        freezes = cache_mode in (CacheMode.PROPAGATE, CacheMode.PROPAGATE_LATER)
        exit_points = set(parts.exit_points)
        for layer in range(1, depth + 1):
            after = parts.fused.layers[layer - 1](hidden, rotation, cache, mask)
            # A stopped row goes on with its frozen state when deeper layers are to project that state.
            hidden = torch.where(stopped[:, None, None], hidden, after) if freezes else after
            if cache_mode is CacheMode.COPY:
                self._keep_copies(layer, column, stopped)
            newest = hidden[:, 0]
            if observe is not None:
                observe(token, layer, newest)
            final = torch.where(stopped[:, None], final, newest)
            if layer in exit_points:
                state.previous, state.hidden_states, state.layer = state.hidden_states, newest, layer
                stops = (criterion.exits(state) | (deepest <= layer)) & ~stopped
                layers = torch.where(stops, layer, layers)
                stopped = stopped | stops
        cache.check_aligned(column + 1, deepest=depth)
        return final, layers

    def _keep_copies(self, layer: int, column: int, stopped: Tensor) -> None:
        """Overwrite what `layer` cached for stopped rows by what the layer before it holds, which they left with."""
        if layer == 1:
            return
        for buffer in (self.cache.keys, self.cache.values):
            before, newest = buffer[layer - 2, :, :, column], buffer[layer - 1, :, :, column]
            newest.copy_(torch.where(stopped[:, None, None], before, newest))
