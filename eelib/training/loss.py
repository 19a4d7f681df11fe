"""The aggregated loss: next-token losses of several layers, decoded by the model's own head (Eq. 4.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eelib.models.parts import ModelParts


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
    chosen = None
    if exit_positions < 1.0:
        count = max(1, round(exit_positions * len(targets)))
        chosen = torch.randperm(len(targets), generator=generator)[:count].to(targets.device)
    losses = {}
    for layer in layers:
        states = hidden_states[layer - 1][:, :-1].flatten(0, 1)
        if layer == last or chosen is None:
            losses[layer] = F.cross_entropy(parts.logits(states).float(), targets)
        else:
            losses[layer] = F.cross_entropy(parts.logits(states[chosen]).float(), targets[chosen])
    return losses
