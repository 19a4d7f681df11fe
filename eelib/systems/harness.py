"""One harness for every early-exit system: the same recorded tokens, the same whole cost, settings chosen on validation prompts.

A system gives *choices*. A choice holds what each of its settings pays and agrees on the prompts that choose, and can say the same
of one setting on the prompts that are reported on. Prices are those of `evaluation/cost.py`; every choice of a system stands beside
all fixed exits, which need no system.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PretrainedConfig

from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.evaluation import frontier
from eelib.evaluation.cost import criterion_prices, look_price, policy_flops, stop_prices
from eelib.evaluation.equal_cost import THRESHOLDS, best_within, subsets
from eelib.evaluation.flops import generation_flops, head_flops
from eelib.evaluation.frontier import DEPTHS, QUANTILES, Curve, at_every_stop, first_above
from eelib.evaluation.offline import policy_exits, probabilities
from eelib.models.parts import ModelParts
from eelib.rl.rollouts import Rollouts

PROMPTS_AT_ONCE = 8  # whose logits are in memory
TOLERATED = (0.01, 0.02, 0.05)  # shares of tokens that may be lost

# What settings do on the prompts that choose, and what the k-th does on those reported on.
Choice = tuple[Curve, Callable[[int], Curve]]
# Prices (E + 1,) of a system's stops, by the exit points (E,) that it looks at.
Pricing = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Looks:
    """What heads over the vocabulary say at every exit point of N prompts of T tokens, all (N, T, E).

    Attributes
    ----------
    tokens: int64, the most probable one.
    confidence, difference, entropy: float32, the largest probability, that less the second, and nats as a share of log V.
    likelihood: float32, logarithm of the probability of the last layer's token.
    """

    tokens: np.ndarray
    confidence: np.ndarray
    difference: np.ndarray
    entropy: np.ndarray
    likelihood: np.ndarray


@dataclass(frozen=True)
class Split:
    """Recorded tokens, and what systems read beside their states.

    Attributes
    ----------
    inputs: (N, T) int64, the token that each state was computed from.
    looks: what the model's own head says; None where no system looks, as on what systems are fitted to.
    """

    rollouts: Rollouts
    inputs: np.ndarray
    looks: Looks | None = None

    def __post_init__(self):
        if self.inputs.shape != self.rollouts.last.shape:
            raise InputError(
                f"The inputs have shape {self.inputs.shape}: allowed is that of the recorded tokens, {self.rollouts.last.shape}."
            )


@dataclass(frozen=True)
class Told:
    """What a system says of one split: `scores` (N, T, E), high where it would leave, and whether its token there is `correct`."""

    scores: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class Bench:
    """What the systems of one model and language have in common.

    Attributes
    ----------
    config: of the model.
    positions: of the context after which a token is priced.
    chosen, unseen: what chooses settings, and what is reported on.
    """

    config: PretrainedConfig
    positions: int
    chosen: Split
    unseen: Split

    @property
    def splits(self) -> tuple[Split, Split]:
        return self.chosen, self.unseen

    @property
    def correct(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, T, E) bool of both splits: where the model's own head says the last layer's token."""
        return self.chosen.rollouts.correct, self.unseen.rollouts.correct

    @cached_property
    def prices(self) -> np.ndarray:
        """(E + 1,) of leaving at each stop, looking at nothing."""
        return stop_prices(self.config, self.unseen.rollouts.stops, self.positions)

    @cached_property
    def vocabulary(self) -> float:
        """Price of a look at the vocabulary."""
        return look_price(self.config, self.unseen.rollouts.total_layers, self.positions, None)

    def price(self, flops: float) -> float:
        """Of some FLOPs, as a share of the full model's token."""
        return flops * self.vocabulary / head_flops(self.config)

    @cached_property
    def unfilled(self) -> np.ndarray:
        """(E + 1,) prices where no later token goes deeper, so that nobody fills the cache of skipped layers."""
        stops = self.unseen.rollouts.stops.tolist()
        prefill = generation_flops(self.config, self.positions, stops[-1:], "propagate")
        tokens = [
            generation_flops(self.config, self.positions, [stops[-1], stop], "monotone") - prefill
            for stop in stops
        ]
        return np.array(tokens) / tokens[-1]

    def saying(self, beside: float = 0.0) -> Pricing:
        """Looks at the vocabulary, of which the last says the token; `beside` is what each takes in FLOPs beside the head."""
        own = self.price(beside)

        def pricing(looked_at: np.ndarray) -> np.ndarray:
            # What is computed beside the head is paid at the look that says the token as well.
            prices = self.prices + own * np.append(looked_at, False)
            return criterion_prices(prices, self.vocabulary + own, looked_at, says=True)

        return pricing

    def reading(self, flops: float) -> Pricing:
        """Looks of some FLOPs at the state alone; the token is said by one head at the end."""
        return lambda looked_at: criterion_prices(self.prices, self.price(flops), looked_at, says=False)


def look(logits: Tensor, last: Tensor) -> list[Tensor]:
    """Of (..., V) logits and the last layer's tokens (...): the fields of `Looks`, each (...).

    Entropy is Eq. (1) of DeeBERT over log V, the difference that of CALM, Section 3.5.
    """
    log_probabilities = logits.float().log_softmax(-1)
    top, tokens = log_probabilities.topk(2, -1)
    top = top.exp()
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1) / np.log(logits.shape[-1])
    likelihood = log_probabilities.gather(-1, last[..., None])[..., 0]
    return [tokens[..., 0], top[..., 0], top[..., 0] - top[..., 1], entropy, likelihood]


@torch.inference_mode()
def looks(rollouts: Rollouts, decode: Callable[[int, Tensor], Tensor], device: torch.device) -> Looks:
    """What heads say of recorded states; `decode` takes the index of an exit point and (N, T, D) states to (N, T, V) logits."""
    shape, found = rollouts.predictions.shape, []
    for start in range(0, shape[0], PROMPTS_AT_ONCE):
        rows = slice(start, start + PROMPTS_AT_ONCE)
        states = torch.tensor(rollouts.states[rows], dtype=torch.float32, device=device)
        last = torch.tensor(rollouts.last[rows], device=device)
        exits = [look(decode(place, states[:, :, place]), last) for place in range(shape[2])]
        found.append([torch.stack(kind, -1).cpu() for kind in zip(*exits, strict=True)])
    return Looks(*[torch.cat(kind).numpy() for kind in zip(*found, strict=True)])


def own_looks(parts: ModelParts, rollouts: Rollouts) -> Looks:
    """What the model's own norm and head say."""
    return looks(rollouts, lambda _, states: parts.logits(states.to(parts.model.dtype)).float(), parts.device)


# --- settings ---


def outcome(exits: Iterable[np.ndarray], prices: np.ndarray, correct: np.ndarray) -> Curve:
    """`frontier.outcome` by where exits are right, (N, T, E) bool: the last stop's token always is."""
    return frontier.outcome(exits, prices, at_every_stop(correct))


def by_threshold(
    chosen: Told,
    unseen: Told,
    pricing: Pricing,
    bar: Callable[[float], np.ndarray | float] = lambda threshold: threshold,
    thresholds: np.ndarray | None = None,
) -> list[Choice]:
    """Leaving at the first exit point whose score is above a bar: every subset of exit points, at quantiles of the scores.

    Parameters
    ----------
    bar: threshold -> what scores (N, T, E) are held against.
    thresholds: instead of the quantiles.
    """
    if thresholds is None:
        finite = chosen.scores[np.isfinite(chosen.scores)]
        if not len(finite):  # one exit point has none before it to be compared with
            return []
        thresholds = np.unique(np.quantile(finite, QUANTILES))
    choices = []
    for looked_at in subsets(chosen.scores.shape[-1]):
        prices = pricing(looked_at)

        def masked(told: Told, threshold: float, looked_at: np.ndarray = looked_at) -> np.ndarray:
            return first_above(np.where(looked_at, told.scores, -np.inf), bar(threshold))

        curve = outcome((masked(chosen, threshold) for threshold in thresholds), prices, chosen.correct)
        choices.append(
            (
                curve,
                lambda k, masked=masked, prices=prices: outcome(
                    [masked(unseen, thresholds[k])], prices, unseen.correct
                ),
            )
        )
    return choices


def by_policy(
    bench: Bench, policy: ExitPolicy, correct: tuple[np.ndarray, np.ndarray] | None = None
) -> list[Choice]:
    """An exit policy's probability; `correct` of both splits where its tokens are not the model's own."""
    pricing = bench.reading(policy_flops(policy))
    rights = correct or bench.correct
    if policy.price is not None:
        choosing, reporting = (policy_exits(split.rollouts, policy, THRESHOLDS) for split in bench.splits)
        return by_exits(choosing, reporting, pricing(np.ones(len(bench.prices) - 1, bool)), rights)
    told = [
        Told(probabilities(split.rollouts, policy, 1.0), right)
        for split, right in zip(bench.splits, rights, strict=True)
    ]
    return by_threshold(*told, pricing)


def by_exits(
    chosen: Sequence[np.ndarray],
    unseen: Sequence[np.ndarray],
    prices: np.ndarray,
    correct: tuple[np.ndarray, np.ndarray],
) -> list[Choice]:
    """Settings that are given by their exits, (N, T) indices of stops on both splits."""
    return [
        (outcome(chosen, prices, correct[0]), lambda k: outcome([unseen[k]], prices, correct[1])),
    ]


def fixed_exits(bench: Bench) -> list[Choice]:
    """Always leaving at one stop, which looks at nothing."""
    exits = [
        [np.full(split.rollouts.last.shape, stop) for stop in range(len(bench.prices))]
        for split in bench.splits
    ]
    return by_exits(*exits, bench.prices, bench.correct)


def chosen_settings(bench: Bench, choices: list[Choice]) -> pd.DataFrame:
    """What the settings chosen on validation prompts do on those reported on, fixed exits among them.

    Returns
    -------
    Rows: `tolerated` (missing: best for some budget; else the cheapest that loses no more than that share of tokens), `setting` (from 0, by
    mean price), `prompt`, `price`, `agreement`, and `trials`, the number of settings that were tried.
    """
    choices = [*fixed_exits(bench), *choices]
    places = [(which, k) for which, (curve, _) in enumerate(choices) for k in range(curve.prices.shape[1])]
    paid, agreed = (
        np.concatenate([getattr(curve, what).mean(0) for curve, _ in choices])
        for what in ("prices", "agreement")
    )
    budgets = np.linspace(bench.prices[0], 1.0, DEPTHS)
    wanted = [(np.nan, place) for place in dict.fromkeys(best_within(budgets, paid, agreed))]
    for share in TOLERATED:
        enough = np.flatnonzero(agreed >= 1 - share - 1e-12)  # full depth loses nothing
        wanted.append((share, enough[np.argmin(paid[enough])]))
    curves = [choices[which][1](k) for which, k in (places[place] for _, place in wanted)]
    paid, agreed = (
        np.concatenate([getattr(curve, what) for curve in curves], 1) for what in ("prices", "agreement")
    )
    order = np.argsort(paid.mean(0), kind="stable")
    prompts = len(paid)
    kept = pd.DataFrame(
        {
            "tolerated": np.repeat(np.array([share for share, _ in wanted])[order], prompts),
            "setting": np.repeat(np.arange(len(order)), prompts),
            "prompt": np.tile(np.arange(prompts), len(order)),
            "price": paid[:, order].T.ravel(),
            "agreement": agreed[:, order].T.ravel(),
        }
    )
    return kept.assign(trials=len(places) - len(bench.prices))
