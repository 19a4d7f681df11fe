"""LayerSkip (Elhoushi et al. 2024).

Trains: the model, with layers dropped at a rate that grows with depth, exponentially (Section 4.1.1), and a loss at every layer that weighs
deep ones more, of which a rotational curriculum takes some in every step (Section 4.1.2). The schedules are here; a training from
these is not run (it would take the pre-training again), and the study's aggregated loss stands in.
Decides: nothing. A fixed exit drafts a block of tokens, the remaining layers verify them all at once, and what the last layer
agrees with is kept: *self-speculative decoding*, which gives the full model's tokens (Section 4.3).
Adapted: along the full model's recorded greedy completion a draft is accepted exactly where the exit's token is the last layer's, so
that accepted tokens are counted and not sampled. Keys and values of the first layers, and the exit's states, are shared.

Two accounts. *FLOPs*, the account of this study: verifying takes every token through all layers, so that speculation never costs less
than the full model. *Weights read*: a pass reads its layers once for all tokens of a block; that is what limits one user's GPU, and
where speculation wins. The head is read once a pass, the context's keys and values are not counted.
"""

import numpy as np
import pandas as pd
from transformers import PretrainedConfig

from eelib.errors import InputError
from eelib.evaluation.flops import head_flops, layer_flops
from eelib.rl.rollouts import Rollouts

BLOCKS = (1, 2, 4, 6)  # tokens drafted


def dropout_rates(layers: int, most: float, step: int = 1, steps: int | None = None) -> np.ndarray:
    """(L,) rate of dropping each layer: `most` (e^{l ln 2 / (L - 1)} - 1), l from 0; over a training of `steps` it grows likewise.

    Attributes
    ----------
    step: from 0; without `steps` the rates are those of the end.
    """
    if not 0 <= most < 1:
        raise InputError(f"The largest rate of dropping a layer is {most}: allowed is 0 to below 1.")
    by_depth = np.expm1(np.arange(layers) * np.log(2) / (layers - 1))
    grown = 1.0 if steps is None else np.expm1(step * np.log(2) / (steps - 1))
    return grown * most * by_depth


def loss_weights(layers: int, scale: float, step: int, rotation: int) -> np.ndarray:
    """(L,) weights of the layers' losses in one step, their sum 1: every `rotation`-th layer, another set each step, and the last.

    Layer l < L - 1, counted from 0, weighs scale (0 + 1 + ... + l); the last L - 1 + scale (0 + 1 + ... + L - 2).
    """
    sums = np.cumsum(np.arange(layers))
    weights = scale * sums.astype(float)
    weights[-1] = layers - 1 + scale * sums[-2]
    on = (np.arange(layers) - step) % rotation == 0
    on[-1] = True
    return weights * on / (weights * on).sum()


def accepted_blocks(agrees: np.ndarray, block: int) -> list[tuple[int, int]]:
    """(drafted, accepted) tokens of each round of one completion, by where the exit agrees with the last layer, (T,) bool.

    A round drafts no more than is left to write but one: verification adds a token of the last layer, right after the accepted ones.
    """
    rounds, at = [], 0
    while at < len(agrees):
        drafted = min(block, len(agrees) - at - 1)
        ahead = agrees[at : at + drafted]
        accepted = int(drafted if ahead.all() else ahead.argmin())
        rounds.append((drafted, accepted))
        at += accepted + 1
    return rounds


def round_cost(layer: float, head: float, exit_layer: int, layers: int, drafted: int, reads: bool) -> float:
    """Of a round: drafts pass the first layers and the head one by one, their last token the first layers, and all of them and
    the token before them the remaining layers and the head together; by weights read, a pass counts once whatever its tokens."""
    together = 1 if reads else drafted + 1
    return (
        (drafted + 1) * exit_layer * layer
        + drafted * head
        + together * ((layers - exit_layer) * layer + head)
    )


def speculation(rollouts: Rollouts, config: PretrainedConfig, positions: int) -> pd.DataFrame:
    """Self-speculation at every exit point and block.

    Returns
    -------
    Rows: `prompt`, `layer`, `block`, `rounds`, `drafted`, `accepted`, and the cost of the prompt's tokens by `flops` and by `reads`, both as
    shares of the full model's with its cache.
    """
    head, layers, rows = head_flops(config), rollouts.total_layers, []
    layer = layer_flops(config, 1, positions + 1)
    tokens = rollouts.last.shape[1]
    # A layer's weights are two FLOPs each; its attention reads none.
    costs = {"flops": (layer, False), "reads": (layer_flops(config, 1, 1) - _attention(config), True)}
    for place, exit_layer in enumerate(rollouts.exit_points):
        for block in BLOCKS:
            for prompt, agrees in enumerate(rollouts.correct[:, :, place]):
                rounds = accepted_blocks(agrees, block)
                drafted, accepted = np.sum(rounds, 0)
                row = {"prompt": prompt, "layer": exit_layer, "block": block, "rounds": len(rounds)}
                for name, (one, reads) in costs.items():
                    paid = sum(round_cost(one, head, exit_layer, layers, most, reads) for most, _ in rounds)
                    row[name] = paid / (tokens * (layers * one + head))
                rows.append(row | {"drafted": int(drafted), "accepted": int(accepted)})
    return pd.DataFrame(rows)


def _attention(config: PretrainedConfig) -> int:
    """FLOPs of attending to one position: what a longer context adds."""
    return layer_flops(config, 1, 2) - layer_flops(config, 1, 1)
