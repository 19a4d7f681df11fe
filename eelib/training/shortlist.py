"""Softmax over a shortlist of the vocabulary: what a step of training pays instead of all of its rows.

The frequent tokens and a batch's own always belong; of the others some are drawn, and each stands for as many as were not.
The sum under the softmax is then right in expectation (sampled softmax, Bengio & Senecal 2008; Jean et al. 2015, whose
proposal here is uniform over the tokens left).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class Shortlists:
    """Draws shortlists of a vocabulary of `size` tokens.

    Parameters
    ----------
    frequent: ids that always belong.
    random: how many of the other tokens are drawn, uniformly without replacement.
    summed: of counts (size,), their sums over all processes that hold a part of the batch; each then draws the same shortlist
        from equal generators.
    """

    def __init__(
        self,
        frequent: Tensor,
        size: int,
        random: int,
        summed: Callable[[Tensor], Tensor] = lambda counts: counts,
    ):
        self.frequent = torch.zeros(size, dtype=torch.bool)
        self.frequent[frequent] = True
        self.random = random
        self.summed = summed

    def draw(self, targets: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A shortlist that holds all of `targets`.

        Returns
        -------
        ids: sorted int64 (S,).
        corrections: float32 (S,), to be added to their logits: for a drawn token log(tokens left / tokens drawn), else 0.
        """
        counts = torch.bincount(targets, minlength=len(self.frequent))
        always = self.frequent | (self.summed(counts) > 0).cpu()
        left = (~always).nonzero().squeeze(1)
        drawn = left[torch.randperm(len(left), generator=generator)[: self.random]]
        corrections = torch.zeros(len(always))
        if len(drawn):
            corrections[drawn] = math.log(len(left) / len(drawn))
        always[drawn] = True
        ids = always.nonzero().squeeze(1)
        return ids.to(targets.device), corrections[ids].to(targets.device)


def most_frequent(ids: Tensor, size: int, count: int) -> Tensor:
    """The `count` most frequent of token ids, out of a vocabulary of `size`."""
    return torch.bincount(ids.reshape(-1).long(), minlength=size).topk(min(count, size)).indices
