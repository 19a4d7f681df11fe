"""The aggregated loss: next-token losses of several layers, decoded by the model's own head (Eq. 4.2).

`layer_losses` and `aggregated_loss` are the definition. `exit_loss` is the same sum as training takes it: norm and head once
for all layers, and never more logits than a chunk of rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eelib.models.parts import ModelParts
from eelib.training.shortlist import Shortlists


def aggregated_loss(losses: dict[int, Tensor], weights: dict[int, float]) -> Tensor:
    """`sum(w_l * loss_l) / sum(w_l)` over layers (Eq. 4.2, after LITE, Varshney et al.).

    Parameters
    ----------
    losses: scalar loss of each layer in `weights`.
    """
    total = sum(weights[layer] * losses[layer] for layer in weights)
    return total / sum(weights.values())


def layer_losses(
    parts: ModelParts,
    hidden_states: list[Tensor],
    labels: Tensor,
    layers: list[int],
    exit_positions: float = 1.0,
    generator: torch.Generator | None = None,
) -> dict[int, Tensor]:
    """Mean next-token cross-entropy decoded from each of some layers.

    Parameters
    ----------
    hidden_states: states after layers 1..L, L tensors (B, T, D), none normed.
    labels: (B, T) int64 token ids; position t predicts `labels[:, t + 1]`.
    layers: layers counted 1..L; the last layer's loss is always over all positions.
    exit_positions: share of positions at which the other layers' losses are taken, drawn uniformly and anew at each
        call, the same for all layers: an unbiased estimate of the full mean at a fraction of the head's cost.
    generator: source of that draw.

    Returns
    -------
    Scalar float32 losses by layer.
    """
    last = len(hidden_states)
    targets = labels[:, 1:].reshape(-1)
    everywhere, (drawn, _) = slice(None), _positions(targets, exit_positions, generator)
    losses = {}
    for layer in layers:
        chosen = everywhere if layer == last else drawn
        states = hidden_states[layer - 1][:, :-1].flatten(0, 1)[chosen]
        losses[layer] = F.cross_entropy(parts.logits(states).float(), targets[chosen])
    return losses


def _positions(
    targets: Tensor, share: float, generator: torch.Generator | None, part: tuple[int, int] = (0, 1)
) -> tuple[Tensor | slice, float]:
    """Index of a `share` of the targets, drawn uniformly without replacement; all of them for 1.

    The (N,) targets are part i of n equal ones (`part`), from all of which is drawn: also given is how many a part gets in
    the mean.
    """
    index, parts = part
    size = len(targets)
    if share >= 1.0:
        return slice(None), size
    count = max(1, round(share * size * parts))
    drawn = torch.randperm(size * parts, generator=generator)[:count]
    here = drawn[drawn // size == index] - index * size
    return here.to(targets.device), count / parts


@contextmanager
def forward_as(module: nn.Module, forward: Callable) -> Iterator[None]:
    """While it lasts, calling `module` runs `forward`.

    What lets processes train one model (DDP, FSDP) acts when a module is called: it awaits gradients, or gathers weights.
    """
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def exit_loss(
    parts: ModelParts,
    hidden_states: list[Tensor],
    labels: Tensor,
    weights: dict[int, float],
    exit_positions: float = 1.0,
    exits_per_step: int | None = None,
    generator: torch.Generator | None = None,
    shortlists: Shortlists | None = None,
    distilled: bool = False,
    part: tuple[int, int] = (0, 1),
) -> tuple[Tensor, dict[int, float]]:
    """The aggregated loss to train with, `aggregated_loss(layer_losses(...), weights)` up to rounding.

    Parameters
    ----------
    hidden_states: states after layers 1..M, where M may be less than the model's L: M tensors (B, T, D), none normed.
    labels, exit_positions, generator: as for `layer_losses`.
    weights: of each layer that has a loss, summing to 1; the last layer's is always over all positions.
    exits_per_step: take that many of the other layers, drawn anew at each call with replacement and with probabilities
        proportional to their weights, each with the same weight: an unbiased estimate of the full sum. None takes all.
    shortlists: take the softmax over a drawn part of the vocabulary; None over all of it.
    distilled: the other layers learn the last layer's distribution instead of the true tokens, where it has run; no gradient
        reaches the last layer by it.
    part: (i, n) where the batch is part i of n equal ones. All draw alike from equal generators, and what is returned is to
        be averaged over the parts: that is the loss of the whole batch.

    Returns
    -------
    The scalar loss, and the loss of each layer taken, for the record.
    """
    last = parts.total_layers
    targets = labels[:, 1:].reshape(-1)
    taken = {layer: weight for layer, weight in weights.items() if layer != last}
    if exits_per_step is not None and taken:
        layers, chances = list(taken), torch.tensor(list(taken.values()))
        drawn = torch.multinomial(chances, exits_per_step, replacement=True, generator=generator).tolist()
        share = sum(taken.values()) / exits_per_step
        taken = {layers[i]: share * drawn.count(i) for i in sorted(set(drawn))}
    if last in weights:
        taken[last] = weights[last]
    everywhere = slice(None), len(targets)
    drawn = _positions(targets, exit_positions, generator, part)
    rows, row_targets, row_weights, taught, numbers = [], [], [], [], []
    for layer, weight in taken.items():
        chosen, number = everywhere if layer == last else drawn
        rows.append(hidden_states[layer - 1][:, :-1].flatten(0, 1)[chosen])
        row_targets.append(targets[chosen])
        row_weights.append(torch.full_like(row_targets[-1], weight / number, dtype=torch.float))
        places = torch.arange(len(rows[-1]), device=targets.device)
        taught.append(torch.full_like(places, -1) if layer == last else places)
        numbers.append(number)
    teachers = None
    if distilled and len(hidden_states) == last:
        teachers = parts.norm(hidden_states[-1][:, :-1].flatten(0, 1)[drawn[0]]).detach()

    def decoded_loss(states: Tensor) -> tuple[Tensor, Tensor]:
        head, bias, corrections = parts.head.weight, parts.head.bias, None
        wanted = torch.cat(row_targets)
        if shortlists is not None:
            needed = wanted
            if teachers is not None:
                needed = torch.cat([needed, most_probable(teachers, head, bias)])
            ids, corrections = shortlists.draw(needed, generator)
            head, bias = head[ids], None if bias is None else bias[ids]
            wanted = torch.searchsorted(ids, wanted)
        weights = torch.cat(row_weights)
        return HeadLoss.apply(
            states, head, bias, parts.softcap, corrections, wanted, weights, teachers, torch.cat(taught)
        )

    with forward_as(parts.head, decoded_loss):
        loss, row_losses = parts.head(parts.norm(torch.cat(rows)))
    by_layer = row_losses.split([len(states) for states in rows])
    means = [(losses.sum() / number).item() for losses, number in zip(by_layer, numbers, strict=True)]
    return loss, dict(zip(taken, means, strict=True))


def most_probable(states: Tensor, head: Tensor, bias: Tensor | None, count: int = 4) -> Tensor:
    """Ids of the `count` most probable tokens of every (N, D) normed state, flat; never more logits than of 128 rows."""
    with torch.no_grad():
        tops = [F.linear(rows, head, bias).topk(min(count, len(head))).indices for rows in states.split(128)]
    return torch.cat(tops).flatten()


class HeadLoss(torch.autograd.Function):
    """Weighted cross-entropy of states decoded by a linear head; its gradient is made with it, chunk by chunk.

    The weight of every row is known before, so that logits are needed once and kept never. A row's target is a token, or
    the distribution that the same head gives for another state.
    """

    CHUNK = 2**22  # logits at once

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        corrections: Tensor | None,
        targets: Tensor,
        row_weights: Tensor,
        teachers: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(N, D) states, (V, D) head and its (V,) bias, `ModelParts.softcap`, (V,) constants that a shortlist adds to logits,
        (N,) targets and weights, (M, D) states of which `taught` (N,) names the teacher of a row or -1 -> the weighted sum,
        and (N,) losses."""
        grad_states, grad_head = torch.empty_like(states), torch.zeros_like(head)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        losses = torch.empty(len(states), device=states.device)
        size = max(1, HeadLoss.CHUNK // len(head))

        def decoded(chunk: Tensor) -> tuple[Tensor, Tensor | None]:
            logits, shares = F.linear(chunk, head, bias).float(), None
            if softcap is not None:
                shares = torch.tanh(logits / softcap)
                logits = softcap * shares
            return logits if corrections is None else logits + corrections, shares

        for start in range(0, len(states), size):
            rows = slice(start, start + size)
            logits, shares = decoded(states[rows])
            target, minus = targets[rows, None], torch.full_like(logits[:, :1], -1.0)
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses[rows] = (normaliser - logits.gather(-1, target)).squeeze(-1)
            if teachers is not None:
                soft = (taught[rows] >= 0).nonzero().squeeze(1)
                wanted = decoded(teachers[taught[rows][soft]])[0].softmax(-1)
                losses[start + soft] = normaliser[soft, 0] - (wanted * logits[soft]).sum(-1)
                minus[soft] = 0.0
            gradient = logits.sub_(normaliser).exp_().scatter_add_(-1, target, minus)
            if teachers is not None:
                gradient[soft] -= wanted
            gradient *= row_weights[rows, None]
            if softcap is not None:
                gradient *= 1 - shares * shares
            grad_states[rows] = gradient @ head
            grad_head += gradient.T @ states[rows]
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
        ctx.save_for_backward(grad_states, grad_head, grad_bias)
        ctx.mark_non_differentiable(losses)
        # A product of vectors, `@`, would be bfloat16 under autocast.
        return (losses * row_weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what forward made."""
        made = [None if gradient is None else grad_loss * gradient for gradient in ctx.saved_tensors]
        return *made, None, None, None, None, None, None
