"""Decode the same prompts by many criteria at once, every distinct prefix once.

Without a cache, or with one that is exact, a token depends on the prefix and the layer it is decoded at, whoever decided. Agents
at neighbouring thresholds, and most agents most of the time, write the same text: where their prefixes are equal they share a row
of the batch, and a row is copied when two of them part.
"""

import copy

import torch
from torch import Tensor

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.cache import causal_mask
from eelib.decoding.criteria import ExitCriterion, ExitState, Scripted
from eelib.decoding.generate import Generation
from eelib.errors import InputError
from eelib.models.fused import Rotation

MOST_ROWS = 8  # times the prompts: with more distinct prefixes the criteria are decoded in two parts


@torch.inference_mode()
def decode_shared(
    decoder: BatchDecoder, criteria: list[ExitCriterion], end: int | None = None
) -> list[list[tuple[Generation, list[int]]]]:
    """The completions of `decoder.decode` by each criterion, without a cache.

    Parameters
    ----------
    criteria: such as look at the state alone; a `Scripted` one, which counts rows, gives ValueError.
    end: the token id that ends a completion, included in it.

    Returns
    -------
    For each criterion and prompt the completion, and what the last layer predicts in the place of each of its tokens.
    """
    if any(isinstance(criterion, Scripted) for criterion in criteria):
        raise ValueError("A scripted exit is one row's and cannot be shared.")
    for criterion in criteria:
        criterion.check(decoder.parts)
    rows = _Rows(decoder, criteria)
    generated, exits, last = [], [], []
    for token in range(decoder.new_tokens):
        tokens, layers, deepest = rows.step(token)
        if token + 1 < decoder.new_tokens:
            rows.part(tokens)
        if len(criteria) > 1 and len(rows.prompt) > MOST_ROWS * len(decoder.padding):
            half = len(criteria) // 2
            del rows
            return [
                *decode_shared(decoder, criteria[:half], end),
                *decode_shared(decoder, criteria[half:], end),
            ]
        for kept, new in ((generated, tokens), (exits, layers), (last, deepest)):
            kept.append(new)
    whole = [torch.stack(kept, -1).tolist() for kept in (generated, exits, last)]
    return [
        [
            (Generation(tokens[:length], layers[:length]), deepest[:length])
            for tokens, layers, deepest in zip(*of_criterion, strict=True)
            for length in [tokens.index(end) + 1 if end in tokens else len(tokens)]
        ]
        for of_criterion in zip(*whole, strict=True)
    ]


class _Rows:
    """The distinct prefixes of N prompts under S criteria, as P rows of a batch.

    Attributes
    ----------
    prompt: (P,) which prompt a row goes on with.
    tokens: (P,) its newest token.
    row: (S, N) where each criterion is with each prompt.
    """

    def __init__(self, decoder: BatchDecoder, criteria: list[ExitCriterion]):
        self.decoder, self.criteria = decoder, criteria
        self.cache = copy.copy(decoder.cache)  # the prefill's, until rows are added
        self.cache.truncate(decoder.longest - 1)
        self.tokens = decoder.last_tokens
        self.prompt = torch.arange(len(self.tokens), device=decoder.parts.device)
        self.row = self.prompt.expand(len(criteria), -1)

    def step(self, token: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next tokens, the layers they left at, and the last layer's tokens, each (S, N)."""
        decoder, parts = self.decoder, self.decoder.parts
        column = decoder.longest - 1 + token
        hidden = parts.embed(self.tokens[:, None], decoder.positions[self.prompt, column : column + 1])
        rotation = None
        if decoder.rotation is not None:
            newest = decoder.rotation.narrow(column, 1)
            rotation = Rotation(newest.cos[self.prompt], newest.sin[self.prompt])
        mask = causal_mask(decoder.padding[self.prompt], column + 1, 1)
        state = ExitState(parts.logits, token=token)
        stopped = torch.zeros_like(self.row, dtype=torch.bool)
        layers = torch.full_like(self.row, parts.total_layers)
        exit_points = set(parts.exit_points)
        left = []  # states (P, D) at the exit points, then the last layer's
        for layer in range(1, parts.total_layers + 1):
            hidden = parts.fused.layers[layer - 1](hidden, rotation, self.cache, mask)
            if layer in exit_points:
                state.previous, state.hidden_states, state.layer = state.hidden_states, hidden[:, 0], layer
                left.append(hidden[:, 0])
                for index, criterion in enumerate(self.criteria):
                    stops = criterion.exits(state)
                    if not isinstance(stops, bool):
                        stops = stops[self.row[index]]
                    stops = ~stopped[index] & stops
                    layers[index] = torch.where(stops, layer, layers[index])
                    stopped[index] |= stops
        self.cache.check_aligned(column + 1)
        left.append(hidden[:, 0])
        deepest = self._predicted(hidden[:, 0])
        # One look at the vocabulary for every row and layer that some criterion left at.
        stops = torch.tensor([*parts.exit_points, parts.total_layers], device=layers.device)
        place = torch.searchsorted(stops, layers) * len(self.prompt) + self.row
        places, which = torch.unique(place, return_inverse=True)
        tokens = self._predicted(torch.cat(left)[places])[which]
        return tokens, layers, deepest[self.row]

    def _predicted(self, states: Tensor) -> Tensor:
        values, tokens = self.decoder.parts.logits(states).max(-1)
        if torch.isnan(values).any():
            raise InputError("The model's logits are NaN: its weights or its number format are broken.")
        return tokens

    def part(self, tokens: Tensor) -> None:
        """Go on with (S, N) tokens: a row for every distinct prefix, the first of a row's in its place, the others behind."""
        vocabulary = self.decoder.parts.model.config.vocab_size
        pairs, which = torch.unique(self.row * vocabulary + tokens, return_inverse=True)
        parents = pairs // vocabulary
        parted = torch.zeros_like(parents, dtype=torch.bool)
        parted[1:] = parents[1:] == parents[:-1]  # sorted: a row's pairs stand together
        rows, count = parents.clone(), len(self.prompt)
        rows[parted] = torch.arange(count, count + int(parted.sum()), device=rows.device)
        if parted.any():
            self.cache.add_rows(parents[parted])
            self.prompt = torch.cat([self.prompt, self.prompt[parents[parted]]])
        self.tokens = torch.empty_like(self.prompt)
        self.tokens[rows] = pairs % vocabulary
        self.row = rows[which]
