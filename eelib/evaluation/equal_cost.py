"""Criteria at equal cost: how much of what an oracle wins over a coin between fixed exits each of them wins.

The definition is in `docs/decisions.md`, "Equal cost". For every budget, a criterion takes the exit points it looks at and the threshold
that agree most on validation prompts at no more than the budget, a fixed exit among them; its curve is what these choices cost and
agree on unseen rollouts. Prices are whole ones (`cost.py`).
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pandas as pd
from transformers import PretrainedConfig

from eelib.decoding.policy import PRICES, ExitPolicy
from eelib.evaluation.cost import criterion_prices, look_price, stop_prices
from eelib.evaluation.frontier import DEPTHS, QUANTILES, Curve, Frontier
from eelib.evaluation.offline import policy_exits, probabilities
from eelib.models.loading import load_config
from eelib.rl.rollouts import Rollouts

SHARES_OF_FULL = (0.7, 0.8)  # costs at which agreement is told
RIVALS = ("agent", "probe", "confidence")  # that every method is compared with
DRAWN = 25  # costs at which curves are drawn
THRESHOLDS = np.linspace(*(1 / (1 + price) for price in PRICES), 30)  # of a priced policy

# Something to choose: its curve on the prompts that choose, and what it does at its k-th threshold on those reported on.
Choice = tuple[Curve, Callable[[int], Curve]]


def equal_cost(
    chosen: Rollouts,
    unseen: Rollouts,
    agents: dict[int, ExitPolicy],
    probes: dict[int, ExitPolicy],
    stopping: dict[int, ExitPolicy],
    model: str,
    max_tokens: int,
) -> pd.DataFrame:
    """All criteria of one model and language on the same unseen rollouts.

    Parameters
    ----------
    chosen: rollouts of validation prompts, which choose exit points and thresholds.
    max_tokens: the longest context, after which a token is priced.
    agents, probes, stopping: by seed.

    Returns
    -------
    One row a method ("confidence", "agent", "probe", "stopping", "fixed", "coin", "oracle"): `share` of coin to oracle with `low` and `high` (95%,
    bootstrap over prompts, mean over seeds), `over_agent` with `over_agent_low` and `over_agent_high`, `over_probe` and `over_confidence` likewise (paired differences of the share), and
    `agreement_at_<share>` of the full model's cost for each of `SHARES_OF_FULL`.
    """
    account, curves = _accounted(chosen, unseen, agents, probes, stopping, model, max_tokens)
    return account.table(curves)


def cost_curves(
    chosen: Rollouts,
    unseen: Rollouts,
    agents: dict[int, ExitPolicy],
    probes: dict[int, ExitPolicy],
    stopping: dict[int, ExitPolicy],
    model: str,
    max_tokens: int,
) -> pd.DataFrame:
    """The curves that `equal_cost` compares, means over seeds: `method`, `cost` (of the full model's token), `agreement`."""
    account, curves = _accounted(chosen, unseen, agents, probes, stopping, model, max_tokens)
    costs, frontier = np.linspace(account.prices[0], 1.0, DRAWN), account.frontier
    lines = {name: [account.agreement(own, cost) for cost in costs] for name, own in curves.items()}
    for name, line in account.lines.items():
        lines[name] = line(costs, frontier.prompts)
    return pd.concat(
        [pd.DataFrame({"method": name, "cost": costs, "agreement": line}) for name, line in lines.items()],
        ignore_index=True,
    )


def _accounted(
    chosen: Rollouts,
    unseen: Rollouts,
    agents: dict[int, ExitPolicy],
    probes: dict[int, ExitPolicy],
    stopping: dict[int, ExitPolicy],
    model: str,
    max_tokens: int,
) -> tuple["Account", dict[str, list[Curve]]]:
    account = Account(load_config(model), unseen, chosen, max_tokens)
    curves = {"confidence": [account.of_confidence()]}
    for name, policies in {"agent": agents, "probe": probes, "stopping": stopping}.items():
        curves[name] = [account.of_policy(policy) for policy in policies.values()]
    return account, curves


class Account:
    """The prices of one model's tokens, and criteria's curves at these prices.

    Parameters
    ----------
    unseen: what is reported on.
    chosen: rollouts that the exit points are chosen on.
    positions: of the context.
    """

    def __init__(self, config: PretrainedConfig, unseen: Rollouts, chosen: Rollouts, positions: int):
        self.config, self.positions = config, positions
        self.unseen, self.chosen = unseen, chosen
        self.prices = stop_prices(config, unseen.stops, positions)
        self.frontier = Frontier(unseen, self.prices)
        self._choosing = Frontier(chosen, self.prices)
        self.grid = np.linspace(self.prices[0], 1.0, DEPTHS)

    def of_policy(self, policy: ExitPolicy) -> Curve:
        """A policy's curve."""
        look = look_price(self.config, self.unseen.total_layers, self.positions, policy)
        if policy.price is None:
            scores = (probabilities(rollouts, policy, 1.0) for rollouts in (self.chosen, self.unseen))
            return self._chosen(self._of_scores(*scores, look, says=False))
        choosing, exits = (
            policy_exits(rollouts, policy, THRESHOLDS) for rollouts in (self.chosen, self.unseen)
        )
        own = criterion_prices(self.prices, look, np.ones(len(self.prices) - 1, bool), says=False)
        return self._chosen(
            [
                (
                    self._choosing.curve_of(choosing, own),
                    lambda threshold: self.frontier.curve_of([exits[threshold]], own),
                )
            ]
        )

    def of_confidence(self) -> Curve:
        """Softmax confidence's, which looks at the whole vocabulary."""
        look = look_price(self.config, self.unseen.total_layers, self.positions, None)
        return self._chosen(
            self._of_scores(self.chosen.confidences, self.unseen.confidences, look, says=True)
        )

    def _of_scores(self, choosing: np.ndarray, scores: np.ndarray, look: float, says: bool) -> list[Choice]:
        """By scores (N, T, E): every subset of exit points, at quantiles of the scores."""
        thresholds, choices = np.quantile(choosing, QUANTILES), []
        for looked_at in subsets(choosing.shape[-1]):
            own = criterion_prices(self.prices, look, looked_at, says)
            masked = np.where(looked_at, scores, -np.inf)
            choices.append(
                (
                    self._choosing.curve(np.where(looked_at, choosing, -np.inf), thresholds, own),
                    lambda threshold, masked=masked, own=own: self.frontier.curve(
                        masked, [thresholds[threshold]], own
                    ),
                )
            )
        return choices

    @cached_property
    def _fixed(self) -> list[Choice]:
        """Every fixed exit, which looks at nothing."""
        exits = [
            [np.full(rollouts.last.shape, stop) for stop in range(len(self.prices))]
            for rollouts in (self.chosen, self.unseen)
        ]
        return [
            (self._choosing.curve_of([choosing]), lambda _, stop=stop: self.frontier.curve_of([stop]))
            for choosing, stop in zip(*exits, strict=True)
        ]

    def _chosen(self, choices: list[Choice]) -> Curve:
        """The curve over `grid` of what is chosen for each budget, fixed exits among the choices."""
        choices = [*self._fixed, *choices]
        places = [
            (which, k) for which, (curve, _) in enumerate(choices) for k in range(curve.prices.shape[1])
        ]
        paid, agreed = (
            np.array([getattr(choices[which][0], what)[:, k].mean() for which, k in places])
            for what in ("prices", "agreement")
        )
        best = dict.fromkeys(places[place] for place in best_within(self.grid, paid, agreed))
        curves = [choices[which][1](k) for which, k in best]
        paid, agreed = (
            np.concatenate([getattr(curve, what) for curve in curves], 1) for what in ("prices", "agreement")
        )
        order = np.argsort(paid.mean(0), kind="stable")
        return Curve(paid[:, order], agreed[:, order])

    @property
    def lines(self) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
        """What needs no threshold: (costs, prompts) -> agreement."""
        return {
            "fixed": self.frontier.best_fixed,
            "coin": self.frontier.mixed_fixed,
            "oracle": self.frontier.oracle,
        }

    def share(self, curves: list[Curve], prompts: np.ndarray) -> float:
        """What some curves win over the coin between fixed exits, of what the oracle wins; mean over curves."""
        return self.frontier.recovered_area(curves, prompts, self.frontier.mixed_fixed)

    def agreement(self, curves: list[Curve], price: float) -> float:
        """Mean over curves at one price."""
        everyone = self.frontier.prompts
        return float(np.mean([np.interp(price, *curve.points(everyone)) for curve in curves]))

    def table(self, curves: dict[str, list[Curve]]) -> pd.DataFrame:
        """The rows of `equal_cost`."""
        rows, everyone = [], self.frontier.prompts
        for name, own in curves.items():
            interval = self.frontier.interval(lambda prompts, own=own: self.share(own, prompts))
            row = {"method": name}
            row |= {"share": interval.mean, "low": interval.low, "high": interval.high}
            for rival in RIVALS:
                paired = self.frontier.interval(
                    lambda prompts, own=own, theirs=curves[rival]: (
                        self.share(own, prompts) - self.share(theirs, prompts)
                    )
                )
                row |= {
                    f"over_{rival}": paired.mean,
                    f"over_{rival}_low": paired.low,
                    f"over_{rival}_high": paired.high,
                }
            row |= {f"agreement_at_{price:g}": self.agreement(own, price) for price in SHARES_OF_FULL}
            rows.append(row)
        for name, line in self.lines.items():
            at = line(np.array(SHARES_OF_FULL), everyone)
            row = {"method": name}
            rows.append(
                row
                | {f"agreement_at_{price:g}": value for price, value in zip(SHARES_OF_FULL, at, strict=True)}
            )
        return pd.DataFrame(rows)


def subsets(exits: int) -> list[np.ndarray]:
    """(E,) bool: the choices of exit points that are tried: from each on, every one, every second, or every third."""
    places = np.arange(exits)
    tried = [(places >= first) & ((places - first) % every == 0) for first in places for every in (1, 2, 3)]
    return list({subset.tobytes(): subset for subset in tried}.values())


def best_within(budgets: np.ndarray, prices: np.ndarray, agreement: np.ndarray) -> list[int]:
    """For each budget, the index of the most agreement at no higher price; the cheapest of equal ones."""
    order = np.lexsort((-agreement, prices))
    best = np.maximum.accumulate(agreement[order])
    first = np.array([np.flatnonzero(agreement[order] == value)[0] for value in best])
    within = np.searchsorted(prices[order], budgets, side="right") - 1
    return order[first[np.maximum(within, 0)]].tolist()
