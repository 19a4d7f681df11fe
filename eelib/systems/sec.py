"""SEC, the Stop & Exit Controller (Sun et al. 2024, "When Neural Code Completion Models Size up the Situation").

Trains: a classifier of three actions, one for all layers, on real code: *exit* where this layer says the next token of the file,
*continue* where a later layer does, *stop* where none does, so that going on yields nothing that a programmer would take.
Decides: at every exit point, exit or continue; and by stop it ends the whole completion.
Adapted: the paper's heads at every layer are the model's one head, its layers exit points. At equal cost, where all tokens are told,
only exit and continue act. What *stop* saves and loses is told apart (`stopped`): of the leading tokens of a completion that are the file's own,
which is what could be accepted; whether programmers would, no recording can say.
"""

import numpy as np
import pandas as pd
import torch

from eelib.rl.perceptron import Recipe
from eelib.rl.rollouts import Rollouts
from eelib.systems.harness import Bench, Choice, Told, by_threshold
from eelib.systems.network import UNKNOWN, Classifier, classify

EXIT, CONTINUE, STOP = range(3)
BARS = (0.3, 0.5, 0.7, 0.9)  # of the probability of stopping
SHUFFLES = 200


def actions(predictions: np.ndarray, last: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(..., E) int64 best action at each exit point: of (..., E) tokens, the last layer's and the file's own (...); UNKNOWN where the file's is -1."""
    right = np.concatenate([predictions, last[..., None]], -1) == truth[..., None]
    # Whether a later stop is right: the running maximum from the right, shifted by one.
    later = np.maximum.accumulate(right[..., ::-1], -1)[..., ::-1][..., 1:]
    found = np.where(right[..., :-1], EXIT, np.where(later, CONTINUE, STOP))
    return np.where(truth[..., None] < 0, UNKNOWN, found)


def controller(text: Rollouts, truth: np.ndarray, seed: int, steps: int) -> Classifier:
    """Fit the three actions to real code; `truth` (N, T) is the token that follows, -1 where it is not known."""
    labels = torch.from_numpy(actions(text.predictions, text.last, truth)).flatten(0, 1)
    return classify(text, labels, 3, seed, Recipe(steps=steps))


def exiting(bench: Bench, fitted: Classifier) -> list[Choice]:
    """By the probability of exiting."""
    told = [
        Told(fitted.probabilities(split.rollouts)[..., EXIT], split.rollouts.correct)
        for split in bench.splits
    ]
    return by_threshold(*told, bench.reading(fitted.flops))


def accepted(last: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(N,) number of leading tokens of (N, T) completions that are the references'."""
    return np.logical_and.accumulate(last == references, 1).sum(1)


def lengths(stop: np.ndarray, bar: float) -> np.ndarray:
    """(N,) tokens written before the first whose probability of stopping (N, T) is above a bar."""
    above = stop > bar
    return np.where(above.any(1), above.argmax(1), stop.shape[1])


def stopped(rollouts: Rollouts, references: np.ndarray, fitted: Classifier) -> pd.DataFrame:
    """What stopping saves and loses, decided for every token at its first exit point.

    Returns
    -------
    A row a bar: `bar`, `saved` (share of tokens that are not written), `lost` (share of acceptable tokens that are among them), and
    `lost_by_chance` (the same lengths dealt out to completions at random).
    """
    stop = fitted.probabilities(rollouts)[:, :, 0, STOP]
    good, rng, rows = accepted(rollouts.last, references), np.random.default_rng(0), []
    whole = max(1, good.sum())
    for bar in BARS:
        kept = lengths(stop, bar)
        chance = [np.minimum(rng.permutation(kept), good).sum() / whole for _ in range(SHUFFLES)]
        rows.append(
            {
                "bar": bar,
                "saved": 1 - kept.sum() / stop.size,
                "lost": 1 - np.minimum(kept, good).sum() / whole,
                "lost_by_chance": 1 - np.mean(chance),
            }
        )
    return pd.DataFrame(rows)
