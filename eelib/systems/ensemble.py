"""Early exiting with ensemble internal classifiers (Sun et al. 2021).

Trains: in the paper, heads at every layer with a loss that makes them differ; here nothing, the model's own head votes.
Decides: every layer that is passed votes for its token; leaves when the votes for one, divided by a power of how many have voted, are
above a threshold, and says that token (Section 3.3).
Adapted: exit points vote, by the one head that a code model has, since E heads over its vocabulary are dear; votes are equal or weighted
by depth, the thesis's "later layers have a more significant impact" (Section 3.5). Every vote is a look at the vocabulary.
"""

import itertools

import numpy as np

from eelib.evaluation.equal_cost import subsets
from eelib.evaluation.frontier import first_above
from eelib.systems.harness import Bench, Choice, outcome

POWERS = (0.0, 0.5)  # of the number of votes
MOST_THRESHOLDS = 40


def votes(
    tokens: np.ndarray, weights: np.ndarray, looked_at: np.ndarray, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, T, E) float64 and elected tokens (N, T, E) after each exit point has voted.

    Parameters
    ----------
    tokens: (N, T, E) predictions.
    weights: (E,) of the votes.
    looked_at: (E,) bool, who votes; others score -inf.
    """
    scores, elected = np.full(tokens.shape, -np.inf), tokens.copy()
    voted = np.flatnonzero(looked_at)
    for number, place in enumerate(voted, 1):
        so_far = voted[:number]
        ballots = tokens[..., so_far]
        # The votes for each voter's own token; of equal ones the latest voter's is taken.
        support = ((ballots[..., None] == ballots[..., None, :]) * weights[so_far]).sum(-1)
        winner = number - 1 - support[..., ::-1].argmax(-1)
        scores[..., place] = support.max(-1) / number**power
        elected[..., place] = np.take_along_axis(ballots, winner[..., None], -1)[..., 0]
    return scores, elected


def voted(bench: Bench) -> list[Choice]:
    """Every subset of voters, equal and weighted, at thresholds between the scores that occur."""
    exits, choices = bench.unseen.rollouts.exit_points, []
    weightings = (np.ones(len(exits)), np.array(exits) / np.mean(exits))
    for looked_at, weights, power in itertools.product(subsets(len(exits)), weightings, POWERS):
        prices = bench.saying()(looked_at)
        told = []
        for split in bench.splits:
            scores, elected = votes(split.rollouts.predictions, weights, looked_at, power)
            told.append((scores, elected == split.rollouts.last[..., None]))
        levels = np.unique(told[0][0][np.isfinite(told[0][0])].round(9))
        if len(levels) > MOST_THRESHOLDS:
            levels = np.quantile(levels, np.linspace(0, 1, MOST_THRESHOLDS))
        bars = levels - 1e-6  # scores of a level are above its bar
        (choosing, right), (reporting, unseen_right) = told
        choices.append(
            (
                outcome((first_above(choosing, bar) for bar in bars), prices, right),
                lambda k, reporting=reporting, bars=bars, prices=prices, right=unseen_right: outcome(
                    [first_above(reporting, bars[k])], prices, right
                ),
            )
        )
    return choices
