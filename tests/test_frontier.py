"""The curves between fixed exits and the oracle, and the recovered share, by hand and by their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelib.evaluation.frontier import Frontier
from eelib.rl.rollouts import Rollouts


def rollouts(correct: np.ndarray, points: list[int], total: int, confidences=None) -> Rollouts:
    """Of a model whose exit points are right where (N, T, E) says."""
    confidences = np.zeros(correct.shape) if confidences is None else confidences
    return Rollouts(
        states=np.zeros((*correct.shape, 2), np.float32),
        predictions=np.where(correct, 7, 3),
        confidences=confidences.astype(np.float32),
        last=np.full(correct.shape[:2], 7),
        exit_points=points,
        total_layers=total,
    )


# One prompt of four tokens at layers 4, 6, 10 of 12: right from 4 on, from 6 on, only at 10, nowhere.
CORRECT = np.array([[[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]], bool)


@pytest.fixture
def by_hand() -> Frontier:
    return Frontier(rollouts(CORRECT, [4, 6, 10], 12))


def test_fixed_exits_coins_and_oracle_by_hand(by_hand):
    everyone, depths = by_hand.prompts, np.array([4.0, 5, 6, 8, 10, 12])
    # Always leaving at 4, 6, 10, 12 is right for 1, 2, 3, 4 of the 4 tokens.
    assert by_hand.best_fixed(depths, everyone).tolist() == [0.25, 0.375, 0.5, 0.625, 0.75, 1]
    # A coin between 6 (0.5) and 12 (1) gives 0.833 at 10, more than leaving there.
    assert by_hand.mixed_fixed(depths, everyone) == pytest.approx([0.25, 0.375, 0.5, 2 / 3, 5 / 6, 1])
    # The oracle: all leave at 4 (1 right); waiting for the second costs 2 of 4 tokens' layers, for the third 6, the fourth 8.
    assert by_hand.oracle(np.array([4.0, 4.5, 6, 8, 9]), everyone) == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_a_curve_by_hand(by_hand):
    scores = np.array([[[0.9, 0, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.7], [0.1, 0.6, 0]]])
    curve = by_hand.curve(scores, [0.5, 0.65, 0.95])
    # At 0.5 the last token leaves at 6, wrongly; at 0.65 it runs on; at 0.95 all do.
    assert curve.prices.tolist() == [[(4 + 6 + 10 + 6) / 4, (4 + 6 + 10 + 12) / 4, 12]]
    assert curve.agreement.tolist() == [[0.75, 1, 1]]
    # The same exits at random: half the tokens at 6 (0.5), a quarter each at 4 (0.25) and 10 (0.75).
    assert by_hand.over_random([curve], [scores], [0.5]) == pytest.approx(0.75 - (0.5 * 0.5 + 0.25))
    # Depths 6.5 and 8: fixed 0.53125 and 0.625, the oracle 0.8125 and 1.
    won, gap = (0.75 - 0.53125) + (1 - 0.625), (0.8125 - 0.53125) + (1 - 0.625)
    share = by_hand.recovered_at([by_hand.curve(scores, [0.5, 0.65])], by_hand.prompts, by_hand.best_fixed)
    assert share == pytest.approx(won / gap)


def random_frontier(seed: int) -> tuple[Frontier, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return Frontier(rollouts(rng.random((6, 5, 3)) < 0.5, [4, 6, 10], 12)), rng


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_fixed_is_below_the_coin_is_below_the_oracle(seed):
    frontier, rng = random_frontier(seed)
    prompts, depths = rng.integers(6, size=6), np.linspace(4, 12, 50)
    best, coin, oracle = (
        line(depths, prompts) for line in (frontier.best_fixed, frontier.mixed_fixed, frontier.oracle)
    )
    assert (best <= coin + 1e-12).all() and (coin <= oracle + 1e-12).all()
    curve = frontier.whole_curve(rng.random((6, 5, 3)))
    layers, agreement = curve.points(prompts)
    assert (np.diff(layers) >= 0).all() and (layers[0], layers[-1], agreement[-1]) == (4, 12, 1)
    assert (agreement <= frontier.oracle(layers, prompts) + 1e-12).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_exits_that_know_recover_all(seed):
    """Tokens that are right at the k-th stop or before wait for it, the others leave at the first exit point at once."""
    frontier, _ = random_frontier(seed)
    optimal = frontier.correct.argmax(-1)
    scores = np.where(frontier.correct[..., :-1], np.inf, -np.inf)
    scores[..., 0] = np.where(optimal == 0, np.inf, optimal - 0.5)
    curve = frontier.curve(scores, range(4))
    for fixed in (frontier.best_fixed, frontier.mixed_fixed):
        assert frontier.recovered_at([curve], frontier.prompts, fixed) == pytest.approx(1)


def test_exits_at_random_win_nothing_on_average():
    frontier, rng = random_frontier(0)
    gains = []
    for _ in range(300):
        scores = rng.random((6, 5, 3))
        gains.append(frontier.over_random([frontier.curve(scores, [0.5])], [scores], [0.5]))
    error = np.std(gains) / len(gains) ** 0.5
    assert 0 < error and abs(np.mean(gains)) < 4 * error
    knowing = np.where(frontier.correct[..., :-1], 1.0, 0.0)
    assert frontier.over_random([frontier.curve(knowing, [0.5])], [knowing], [0.5]) > 20 * error


def test_scores_that_know_are_worth_more_than_noise():
    rng = np.random.default_rng(0)
    correct = np.maximum.accumulate(rng.random((60, 5, 3)) < 0.4, -1)
    frontier = Frontier(rollouts(correct, [4, 6, 10], 12))
    knowing, noise = correct + 0.3 * rng.random(correct.shape), rng.random(correct.shape)

    def share(scores):
        curve = frontier.whole_curve(scores)
        return frontier.interval(lambda p: frontier.recovered_area([curve], p, frontier.best_fixed))

    known, noisy = share(knowing), share(noise)
    assert known.low > noisy.high and known.mean > 0.5
    assert known.low <= known.mean <= known.high


def test_where_nothing_can_be_won_the_share_is_not_known():
    frontier = Frontier(rollouts(np.ones((3, 2, 3), bool), [4, 6, 10], 12))
    curve = frontier.whole_curve(np.random.default_rng(0).random((3, 2, 3)))
    interval = frontier.interval(lambda p: frontier.recovered_area([curve], p, frontier.best_fixed))
    assert np.isnan(interval).all()
