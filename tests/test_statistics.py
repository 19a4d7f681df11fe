"""Intervals on samples whose answer is known by hand, by theory, or by simulation."""

import math

import numpy as np
import pytest

from eelib.errors import InputError
from eelib.evaluation.statistics import bootstrap_interval, linear_fit_interval, paired_difference

NAN = float("nan")


def test_bootstrap_interval_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = bootstrap_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_bootstrap_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    intervals = [
        bootstrap_interval(rng.exponential(size=60), confidence=0.8, n_resamples=300) for _ in range(200)
    ]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.7 < covered < 0.88  # a binomial with p = 0.8 over 200 stays within about 0.08


def test_bootstrap_is_repeatable_and_depends_on_the_seed():
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 3.0]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    many = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(many, seed=3) != bootstrap_interval(many, seed=4)


def test_higher_confidence_is_wider():
    values = np.arange(30.0)
    narrow, wide = (bootstrap_interval(values, confidence=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_resampling_in_batches_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=40)
    whole = bootstrap_interval(values, n_resamples=200)
    monkeypatch.setattr("eelib.evaluation.statistics._RESAMPLED_VALUES_AT_ONCE", 400)
    assert bootstrap_interval(values, n_resamples=200) == whole


def test_whole_groups_are_drawn_again():
    """Two projects of three files each, all alike within: four equally likely draws, with the means 0, 0.5, 0.5 and 1."""
    values, projects = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], ["a", "a", "a", "b", "b", "b"]
    assert bootstrap_interval(values, projects) == (0.5, 0.0, 1.0)
    middle = bootstrap_interval(
        values, projects, confidence=0.4
    )  # a quarter of the draws lies beyond either end
    assert middle == (0.5, 0.5, 0.5)
    by_file = bootstrap_interval(values)
    assert 0.0 < by_file.low < by_file.high < 1.0
    # A project of five files weighs more than one of a single file.
    assert bootstrap_interval([0.0] * 5 + [6.0], list("aaaaab")).mean == 1.0
    assert bootstrap_interval([1.0, 2.0], ["a", "a"]) == pytest.approx((1.5, NAN, NAN), nan_ok=True)


def test_groups_of_one_value_each_are_no_groups():
    values = np.random.default_rng(3).normal(size=30)
    assert bootstrap_interval(values, list(range(30))) == bootstrap_interval(values)


def test_a_rest_of_rounding_is_no_difference():
    third = 0.1 + 0.2  # not 0.3
    assert paired_difference([third, 0.5, 0.25], [0.3, 0.5, 0.25]) == (0.0, 0.0, 0.0)
    ends = bootstrap_interval([0.1, 0.2, -0.3, 0.1, 0.2, -0.3], list("aaabbb"))
    assert (ends.low, ends.high) == (0.0, 0.0)


def test_one_value_has_no_interval_and_equal_values_one_of_no_width():
    assert bootstrap_interval([4.0]) == pytest.approx((4.0, NAN, NAN), nan_ok=True)
    assert bootstrap_interval([4.0, 4.0, 4.0]) == (4.0, 4.0, 4.0)


def test_paired_difference_is_narrower_than_the_two_settings():
    rng = np.random.default_rng(5)
    difficulty = rng.normal(0, 10, size=100)
    a, b = difficulty + 1 + rng.normal(0, 0.1, size=100), difficulty + rng.normal(0, 0.1, size=100)
    paired = paired_difference(a, b)
    assert paired.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert 0.9 < paired.low < paired.high < 1.1
    assert bootstrap_interval(a).high - bootstrap_interval(a).low > 20 * (paired.high - paired.low)


def test_paired_difference_keeps_the_pairing_and_the_sign():
    assert paired_difference([3.0, 1.0], [1.0, -1.0]) == (2.0, 2.0, 2.0)
    assert paired_difference([1.0], [4.0]) == pytest.approx((-3.0, NAN, NAN), nan_ok=True)


def test_linear_fit_by_hand():
    # x centred is -1.5, -0.5, 0.5, 1.5, whose squares sum to 5; the mean of y is 3.625.
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 5.0, 5.5]
    slope = ((-1.5 * 1) + (-0.5 * 3) + (0.5 * 5) + (1.5 * 5.5)) / 5
    intercept = 3.625 - slope * 2.5
    residual = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - 3.625) ** 2 for b in y)
    half_width = 4.302653 * math.sqrt(
        residual / 2 / 5
    )  # Student's t, 97.5%, 2 degrees of freedom, from a table
    expected = (slope, intercept, 1 - residual / total, slope - half_width, slope + half_width)
    assert linear_fit_interval(x, y) == pytest.approx(expected, rel=1e-5)


def test_slope_interval_covers_the_true_slope_as_often_as_it_says():
    rng, x = np.random.default_rng(7), np.arange(12.0)
    fits = [linear_fit_interval(x, 2 * x + rng.normal(size=12), confidence=0.8) for _ in range(300)]
    covered = np.mean([fit.slope_low <= 2 <= fit.slope_high for fit in fits])
    assert 0.73 < covered < 0.87


def test_exact_lines_have_no_width():
    fit = linear_fit_interval([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    assert fit == pytest.approx((2.0, 1.0, 1.0, 2.0, 2.0))


def test_two_points_fix_a_line_without_an_interval():
    fit = linear_fit_interval([0.0, 2.0], [1.0, 5.0])
    assert fit == pytest.approx((2.0, 1.0, 1.0, NAN, NAN), nan_ok=True)


def test_equal_y_explain_nothing():
    fit = linear_fit_interval([0.0, 1.0, 2.0], [7.0, 7.0, 7.0])
    assert fit == pytest.approx((0.0, 7.0, NAN, 0.0, 0.0), nan_ok=True)
    assert math.isnan(linear_fit_interval([0.0, 1.0], [7.0, 7.0]).slope_low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), r"values has shape \(0,\)"),
        (lambda: bootstrap_interval([[1.0, 2.0]]), r"values has shape \(1, 2\)"),
        (lambda: bootstrap_interval([1.0, NAN, NAN]), "2 of the 3 values are not finite"),
        (lambda: bootstrap_interval([1.0, 2.0], ["a"]), "groups has 1 names and values has 2"),
        (lambda: bootstrap_interval([1.0, 2.0], confidence=95), "confidence is 95"),
        (lambda: bootstrap_interval([1.0], confidence=0), "confidence is 0"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "a has 2 values and b has 1"),
        (lambda: paired_difference([1.0], [NAN]), "1 of the 1 b are not finite"),
        (lambda: linear_fit_interval([1.0], [1.0]), "at least two points, got 1"),
        (lambda: linear_fit_interval([2.0, 2.0], [1.0, 3.0]), "all 2 are 2"),
        (lambda: linear_fit_interval([1.0, 2.0], [1.0, 3.0, 4.0]), "x has 2 values and y has 3"),
        (lambda: linear_fit_interval([1.0, 2.0], [1.0, 3.0], confidence=1.0), "confidence is 1.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
