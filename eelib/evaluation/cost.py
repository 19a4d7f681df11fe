"""What a token costs with all that decides about it: the account that criteria are compared by.

A token is decoded with a cache that propagates keys and values, after a context. Charged are the layers that run, their attention to
the context, the projections that fill the cache of the skipped layers, the look at the vocabulary that says the token, and at every
exit point on the way what the criterion reads there. The unit is a token of the full model with its cache, which looks at the
vocabulary once. Counted in FLOPs (`flops.py`); at batch one a token reads each weight once for two of them, so that the shares are
those of the bytes read, the context's keys and values aside.
"""

import numpy as np
from transformers import PretrainedConfig

from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.flops import generation_flops, head_flops


def stop_prices(config: PretrainedConfig, stops: np.ndarray, context: int) -> np.ndarray:
    """(E + 1,) price of leaving at each stop without looking at anything, as shares of the full model's token.

    Parameters
    ----------
    stops: exit points, and L (1..L).
    context: positions before the token.
    """
    prefill = generation_flops(config, context, [int(stops[-1])], "propagate")
    # The passes over the prompt are the same for every stop: a second token after them is a token alone.
    tokens = [
        generation_flops(config, context, [int(stops[-1]), int(stop)], "propagate") - prefill
        for stop in stops
    ]
    return np.array(tokens) / tokens[-1]


def look_price(config: PretrainedConfig, layers: int, context: int, policy: ExitPolicy | None) -> float:
    """Price of one look at an exit point, in the same unit: a policy's, or the vocabulary's for None."""
    looked = head_flops(config) if policy is None else policy_flops(policy)
    prefill = generation_flops(config, context, [layers], "propagate")
    return looked / (generation_flops(config, context, [layers, layers], "propagate") - prefill)


def policy_flops(policy: ExitPolicy) -> int:
    """FLOPs of a decision: two an entry of the weight matrices."""
    return 2 * sum(weight.numel() for weight in policy.weights)


def criterion_prices(prices: np.ndarray, look: float, looked_at: np.ndarray, says: bool) -> np.ndarray:
    """(E + 1,) price of leaving at each stop for a criterion that looks at some exit points.

    Parameters
    ----------
    prices: of the stops alone (`stop_prices`).
    looked_at: (E,) bool.
    says: whether the look at which it leaves says the token as well, as a look at the vocabulary does.
    """
    looks = np.append(np.cumsum(looked_at), looked_at.sum()).astype(float)
    if says:
        looks[:-1] -= looked_at  # the last look is the one that the stop's own price holds
    return prices + look * looks
