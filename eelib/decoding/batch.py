"""Decode many prompts at once at full width: what accuracy is computed with.

Rows that have stopped stay in the batch while deeper layers run, which costs time and changes nothing: tokens and exit
layers are those of `generate`, one prompt at a time. A cache kept at full depth gives the uncached decoder's tokens
without running the prefix again, and freezing a stopped row's state while deeper layers project it gives propagation's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode, KeyValueCache, causal_mask
from eelib.decoding.criteria import ExitCriterion, ExitState
from eelib.decoding.generate import Generation, check_prompt
from eelib.models.parts import ModelParts
from eelib.study.errors import InputError

Observer = Callable[[int, int, Tensor], None]  # (token, layer, (B, D) states after the layer)


class BatchDecoder:
    """Prompts of any lengths, prefilled once; every `decode` starts from that prefill, so a sweep shares it.

    Parameters
    ----------
    prompts: token ids; empty ones, or ones too long for the model, give InputError.
    new_tokens: tokens to generate after each.
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
        self.cache = KeyValueCache(parts.total_layers, self.longest + new_tokens)
        if self.longest > 1:
            padded = [[0] * (self.longest - len(prompt)) + prompt[:-1] for prompt in prompts]
            self._run(torch.tensor(padded, device=parts.device), start=0)

    def _run(self, ids: Tensor, start: int) -> None:
        """Run (B, T) ids at full depth into the cache."""
        positions = self._positions(start, ids.shape[1])
        mask = causal_mask(self.padding, start + ids.shape[1], ids.shape[1])
        hidden = self.parts.embed(ids, positions)
        for layer in range(1, self.parts.total_layers + 1):
            hidden = self.parts.run_layer(layer, hidden, positions, self.cache, mask)

    def _positions(self, start: int, count: int):
        columns = torch.arange(start, start + count, device=self.parts.device)
        return self.parts.positions((columns - self.padding[:, None]).clamp(min=0))

    @torch.inference_mode()
    def decode(
        self,
        criterion: ExitCriterion,
        cache_mode: CacheMode = CacheMode.NONE,
        observe: Observer | None = None,
    ) -> list[Generation]:
        """Greedy early-exit decoding of all prompts.

        `observe(token, layer, states)` is called after every layer, for recording; stopped rows of a propagating cache
        show their frozen state.
        """
        criterion.check(self.parts)
        self.cache.truncate(self.longest - 1)
        tokens, exits = self.last_tokens, []
        generated = []
        for token in range(self.new_tokens):
            hidden, layers = self._step(tokens, token, criterion, cache_mode, observe)
            values, tokens = self.parts.logits(hidden).max(dim=-1)
            if torch.isnan(values).any():
                raise InputError("The model's logits are NaN: its weights or its number format are broken.")
            generated.append(tokens)
            exits.append(layers)
        rows = zip(torch.stack(generated, 1).tolist(), torch.stack(exits, 1).tolist(), strict=True)
        return [Generation(tokens, layers) for tokens, layers in rows]

    def _step(
        self,
        tokens: Tensor,
        token: int,
        criterion: ExitCriterion,
        cache_mode: CacheMode,
        observe: Observer | None,
    ) -> tuple[Tensor, Tensor]:
        """One token for all rows: states (B, D) they are decoded from, and the layers (B,) they left at."""
        parts = self.parts
        column = self.longest - 1 + token
        positions = self._positions(column, 1)
        mask = causal_mask(self.padding, column + 1, 1)
        hidden = parts.embed(tokens[:, None], positions)
        stopped = torch.zeros(len(tokens), dtype=torch.bool, device=parts.device)
        layers = torch.full((len(tokens),), parts.total_layers, device=parts.device)
        final = hidden[:, 0]
        for layer in range(1, parts.total_layers + 1):
            after = parts.run_layer(layer, hidden, positions, self.cache, mask)
            # A stopped row goes on with its frozen state when deeper layers are to project that state.
            hidden = (
                torch.where(stopped[:, None, None], hidden, after)
                if cache_mode is CacheMode.PROPAGATE
                else after
            )
            newest = hidden[:, 0]
            if observe is not None:
                observe(token, layer, newest)
            final = torch.where(stopped[:, None], final, newest)
            if layer in parts.exit_points:
                state = ExitState(newest, layer, token, lambda newest=newest: parts.logits(newest))
                stops = criterion.exits(state) & ~stopped
                layers = torch.where(stops, layer, layers)
                stopped |= stops
        self.cache.check_aligned(column + 1)
        return final, layers
