"""Thresholds that keep a promise: at most a tolerated share of tokens differs from the full model's, with confidence 1 - delta.

The risk of a threshold is the mean over prompts of the share of a prompt's tokens that would differ from the last layer's. Prompts are
independent, tokens of one prompt are not: what counts is the number of calibration prompts. A method looks at calibration prompts alone and
names a threshold, or none, which stands for full depth.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.evaluation.frontier import Frontier
from eelib.evaluation.offline import policy_exits
from eelib.rl.rollouts import Rollouts

DELTA = 0.05
TOLERATED = (0.02, 0.05, 0.1)  # shares of tokens that may differ
PROMPTS = (50, 200)  # for calibration
DRAWS = 200
STEPS = np.linspace(0.99, 0.3, 70)  # thresholds in the order they are tested, the most careful first


def bentkus_p_value(losses: np.ndarray, tolerated: float) -> float:
    """P-value of "the risk is above `tolerated`" by Hoeffding and Bentkus (Bates et al. 2021, Proposition 1 and Section 3.1.2).

    Parameters
    ----------
    losses: (n,) in [0, 1].
    """
    n, mean = len(losses), float(losses.mean())
    low = min(mean, tolerated)
    divergence = _log_ratio(low, tolerated) + _log_ratio(1 - low, 1 - tolerated)
    hoeffding = math.exp(-n * divergence)
    bentkus = math.e * stats.binom.cdf(math.ceil(n * mean), n, tolerated)
    return min(1.0, hoeffding, float(bentkus))


def _log_ratio(share: float, of: float) -> float:
    return share * math.log(share / of) if share > 0 else 0.0


def betting_rejects(losses: np.ndarray, tolerated: float, delta: float) -> bool:
    """Whether "the risk is above `tolerated`" is rejected by the capital of a bet against it (Waudby-Smith and Ramdas 2023, in
    the form of Bates et al. 2021, Proposition 5)."""
    count = np.arange(1, len(losses) + 1)
    means = (0.5 + losses.cumsum()) / (1 + count)
    variances = (0.25 + ((losses - means) ** 2).cumsum()) / (1 + count)
    before = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (len(losses) * before)))
    return bool(np.cumsum(np.log1p(-stakes * (losses - tolerated))).max() > math.log(1 / delta))


def learn_then_test(losses: np.ndarray, rejects: Callable[[np.ndarray], bool]) -> int | None:
    """Fixed-sequence testing (Angelopoulos et al. 2021): the last threshold, in their order, up to which every risk that is too
    high is rejected; None if the first is not. No correction is needed, for the first failure ends it.

    Parameters
    ----------
    losses: (n, K) of calibration prompts at thresholds in the order they are tested.
    """
    passed = None
    for place in range(losses.shape[1]):
        if not rejects(losses[:, place]):
            break
        passed = place
    return passed


def conformal_risk_control(losses: np.ndarray, tolerated: float) -> int | None:
    """The last threshold whose calibration risk, one worst prompt added, is tolerated (Angelopoulos et al. 2022): the *expected*
    risk is controlled, not its probability."""
    bounds = (losses.sum(0) + 1) / (len(losses) + 1)
    within = np.flatnonzero(np.maximum.accumulate(bounds) <= tolerated)
    return int(within[-1]) if len(within) else None


def naive(losses: np.ndarray, tolerated: float) -> int | None:
    """The last threshold whose calibration risk is tolerated."""
    within = np.flatnonzero(losses.mean(0) <= tolerated)
    return int(within[-1]) if len(within) else None


def prompts_needed(tolerated: float, delta: float) -> int:
    """The fewest calibration prompts that can promise anything: that many without any difference, by Hoeffding's bound."""
    return math.ceil(math.log(delta) / math.log(1 - tolerated))


def choose(losses: np.ndarray, tolerated: float, delta: float = DELTA) -> int | None:
    """The threshold that a user is given, by its place: Learn-then-Test with the betting bound.

    InputError for a tolerated share or a delta outside (0, 1), and for too few prompts to promise anything.
    """
    for name, value in {"tolerated share": tolerated, "delta": delta}.items():
        if not 0 < value < 1:
            raise InputError(f"The {name} is {value}: allowed are numbers between 0 and 1, both excluded.")
    if len(losses) < (least := prompts_needed(tolerated, delta)):
        raise InputError(
            f"{len(losses)} calibration prompts cannot promise that at most {tolerated:.1%} of tokens differ with confidence "
            f"{1 - delta:.0%}: at least {least} are needed."
        )
    return learn_then_test(losses, lambda column: betting_rejects(column, tolerated, delta))


def methods(tolerated: float, delta: float) -> dict[str, Callable[[np.ndarray], int | None]]:
    """(n, K) losses -> place of the threshold or None, by method."""
    return {
        "naive": lambda losses: naive(losses, tolerated),
        "conformal risk control": lambda losses: conformal_risk_control(losses, tolerated),
        "Learn-then-Test, Hoeffding-Bentkus": lambda losses: learn_then_test(
            losses, lambda column: bentkus_p_value(column, tolerated) <= delta
        ),
        "Learn-then-Test, betting": lambda losses: learn_then_test(
            losses, lambda column: betting_rejects(column, tolerated, delta)
        ),
    }


def promises(unseen: Rollouts, policy: ExitPolicy) -> pd.DataFrame:
    """How often each method breaks its promise, and what keeping it costs.

    The recorded prompts are taken for the whole world, so that a threshold's risk is known; `DRAWS` times calibration prompts are drawn
    from them with replacement.

    Returns
    -------
    One row a tolerated share, number of calibration prompts and method: `tolerated`, `prompts`, `method`, `broken` (share of draws whose
    threshold's risk is above the tolerated share), `early` (share of draws that promise any early exit), `depth` (mean layers of a token,
    as a share of all).
    """
    losses, depths = losses_and_depths(unseen, policy)
    return _kept(losses, losses.mean(0), depths)


def promises_across(unseen: dict[str, Rollouts], policies: dict[str, ExitPolicy]) -> pd.DataFrame:
    """What becomes of a promise elsewhere: prompts of a policy's own language choose, prompts of another are decoded.

    Parameters
    ----------
    unseen, policies: of one model, by language.

    Returns
    -------
    Rows of `promises`, and `language`, which the policy was trained and calibrated on, and `tested_on`, which `broken` and `depth` are of.
    """
    tables = []
    for language, policy in policies.items():
        losses, _ = losses_and_depths(unseen[language], policy)
        for other, recorded in unseen.items():
            if other != language:
                there, depths = losses_and_depths(recorded, policy)
                kept = _kept(losses, there.mean(0), depths)
                tables.append(kept.assign(language=language, tested_on=other))
    return pd.concat(tables, ignore_index=True)


def _kept(losses: np.ndarray, risks: np.ndarray, depths: np.ndarray) -> pd.DataFrame:
    """The rows of `promises`: `losses` (N, K) of the prompts that calibrate, `risks` and `depths` (K,) of those decoded."""
    rng, rows = np.random.default_rng(0), []
    for prompts in PROMPTS:
        draws = rng.integers(len(losses), size=(DRAWS, prompts))
        for tolerated in TOLERATED:
            for name, method in methods(tolerated, DELTA).items():
                places = [method(losses[draw]) for draw in draws]
                early = [place for place in places if place is not None]
                paid = depths[early].sum() + len(places) - len(early)
                rows.append(
                    {"tolerated": tolerated, "prompts": prompts, "method": name}
                    | {"broken": (risks[early] > tolerated).sum() / len(places)}
                    | {"early": len(early) / len(places), "depth": paid / len(places)}
                )
    return pd.DataFrame(rows)


def losses_and_depths(recorded: Rollouts, policy: ExitPolicy) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) share of each prompt's tokens that differ at each threshold of `STEPS`, and (K,) mean layers as a share of all."""
    curve = Frontier(recorded).curve_of(policy_exits(recorded, policy, STEPS))
    return 1 - curve.agreement, curve.prices.mean(0) / recorded.total_layers
