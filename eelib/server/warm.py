"""Keys and values of prompts, kept between requests.

A prompt is run in blocks of BLOCK positions, each by the same operations on the same shapes whoever asks; what is left of it
behind the last whole block runs as one shorter block. Whole blocks are kept under the tokens up to their end. So a kept
block holds, bit for bit, what running it again would give, and a request that finds some decodes what it would decode alone.
Only prompts are kept: what a token that left early put in the cache is no full model's.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from eelib.decoding.cache import CacheMode
from eelib.decoding.generate import SingleDecoder
from eelib.models.parts import ModelParts

BLOCK = 32  # positions


class Kept:
    """Blocks of keys and values, the least recently used ones forgotten beyond a number of bytes.

    A block is (keys, values), each (L, 1, G, BLOCK, D).
    """

    def __init__(self, most_bytes: int):
        self.most_bytes = most_bytes
        self.bytes = 0
        self._blocks: OrderedDict[tuple[int, ...], tuple[Tensor, Tensor]] = OrderedDict()

    def find(self, prompt: list[int]) -> list[tuple[Tensor, Tensor]]:
        """The blocks that `prompt` begins with, in order, without a gap."""
        found = []
        for end in range(BLOCK, len(prompt) + 1, BLOCK):
            block = self._blocks.get(tuple(prompt[:end]))
            if block is None:
                break
            found.append(block)
        # The later ones are of no use without those before, and go first.
        for count in range(len(found), 0, -1):
            self._blocks.move_to_end(tuple(prompt[: count * BLOCK]))
        return found

    def keep(self, tokens: list[int], keys: Tensor, values: Tensor) -> None:
        """Keep copies of the block that ends with `tokens`, which are all up to its end."""
        size = keys.nbytes + values.nbytes
        if size > self.most_bytes or tuple(tokens) in self._blocks:
            return
        self._blocks[tuple(tokens)] = keys.clone(), values.clone()
        self.bytes += size
        self.find(tokens)  # the blocks before it are as recently used as it is
        while self.bytes > self.most_bytes:
            _, old = self._blocks.popitem(last=False)
            self.bytes -= sum(tensor.nbytes for tensor in old)


class WarmDecoder(SingleDecoder):
    """A decoder with a cache that starts with what is kept of its prompt. `prefill` until it is done, then `step`.

    Attributes
    ----------
    warm: positions that were found, and not run.
    """

    @torch.inference_mode()
    def __init__(
        self, parts: ModelParts, prompt: list[int], new_tokens: int, cache_mode: CacheMode, kept: Kept
    ):
        # Made for one token of the prompt, which runs nothing, and with room for the whole.
        super().__init__(parts, prompt[:1], len(prompt) - 1 + new_tokens, cache_mode)
        self.sequence, self.prompt_length, self.kept = list(prompt), len(prompt), kept
        found = kept.find(prompt[:-1])
        for keys, values in found:
            self.cache.fill(keys, values, 1)
        self.warm = self._filled = BLOCK * len(found)

    @torch.inference_mode()
    def prefill(self) -> bool:
        """Run one more block of all of the prompt but its last token; whether that was the last."""
        start, ends = self._filled, self.prompt_length - 1
        stop = min(start + BLOCK, ends)
        if start < stop:
            count = stop - start
            hidden = self.parts.embed(
                torch.tensor([self.sequence[start:stop]], device=self.parts.device), self._ids[:, start:stop]
            )
            mask = torch.ones(count, stop, dtype=torch.bool, device=hidden.device).tril(start)[None, None]
            for layer in self._layers:
                hidden = layer(hidden, self._rotation_of(start, count), self.cache, mask)
            if count == BLOCK:
                held = (buffer.narrow(3, start, BLOCK) for buffer in (self.cache.keys, self.cache.values))
                self.kept.keep(self.sequence[:stop], *held)
            self._filled = stop
        return self._filled == ends
