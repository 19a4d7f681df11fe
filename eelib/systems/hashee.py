"""HashEE (Sun et al. 2022, "A Simple Hash-Based Early Exiting Approach").

Trains: nothing by gradients; tokens are hashed into buckets, and every bucket has one exit (Section 4).
Decides: before the first layer, by the token that is read, so that no state is looked at and a batch knows its depths beforehand.
Adapted: the paper spreads buckets over the layers by rank. Here a bucket takes the stop that pays most on training tokens, a right token
being worth 1 and layers their price, so that prices draw the curve. Two of its hashes: by *frequency*, buckets of equal mass; by
*clusters*, k-means of the model's input embeddings. The token read is the one before the token said.
"""

import numpy as np
from scipy.cluster.vq import kmeans2

from eelib.evaluation.frontier import at_every_stop
from eelib.systems.harness import Bench, Choice, Split, by_exits

BUCKETS = (4, 16, 64)
WORTHS = np.geomspace(0.02, 4.0, 40)  # prices of a full token, in right tokens


def frequency_buckets(tokens: np.ndarray, vocabulary: int, buckets: int) -> np.ndarray:
    """(V,) bucket of each token: from the most frequent down, each of about equal mass; unseen tokens are in the last."""
    counts = np.bincount(tokens.ravel(), minlength=vocabulary)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # occurrences of more frequent tokens
    of = np.empty(vocabulary, np.int64)
    of[order] = np.minimum(before * buckets // max(1, counts.sum()), buckets - 1)
    return of


def cluster_buckets(embeddings: np.ndarray, tokens: np.ndarray, buckets: int) -> np.ndarray:
    """(V,) nearest of the k-means centres of the tokens that occur, by their (V, D) embeddings."""
    seen = np.unique(tokens)
    centres, _ = kmeans2(embeddings[seen].astype(np.float64), min(buckets, len(seen)), minit="++", rng=0)
    distances = (centres**2).sum(1) - 2 * embeddings @ centres.T  # less the embedding's own square
    return distances.argmin(1)


def exits_of_buckets(
    correct: np.ndarray, buckets: np.ndarray, count: int, prices: np.ndarray, worth: float
) -> np.ndarray:
    """(count,) stop of each bucket: most right tokens less `worth` times the price; the best of all tokens where it is empty.

    Parameters
    ----------
    correct: (M, E) bool of training tokens; the last stop is always right.
    buckets: (M,) of the same tokens.
    """
    right = at_every_stop(correct)
    sizes = np.bincount(buckets, minlength=count)
    sums = np.zeros((count, right.shape[1]))
    np.add.at(sums, buckets, right)
    shares = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], right.mean(0))
    return (shares - worth * prices).argmax(1)


def hashed(bench: Bench, train: Split, embeddings: np.ndarray, clusters: bool) -> list[Choice]:
    """By frequency or by clusters, at every number of buckets and every price."""
    correct = train.rollouts.correct.reshape(-1, len(train.rollouts.exit_points))
    exits: tuple[list, list] = ([], [])
    for count in BUCKETS:
        if clusters:
            table = cluster_buckets(embeddings, train.inputs, count)
        else:
            table = frequency_buckets(train.inputs, len(embeddings), count)
        for worth in WORTHS:
            stops = exits_of_buckets(correct, table[train.inputs.ravel()], count, bench.prices, worth)
            for found, split in zip(exits, bench.splits, strict=True):
                found.append(stops[table[split.inputs]])
    return by_exits(*exits, bench.prices, bench.correct)
