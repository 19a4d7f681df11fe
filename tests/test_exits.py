"""Exit points and loss weights, against values computed by hand from Section 4.4."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eelib.errors import InputError
from eelib.models.exits import exit_points, loss_weights

DEPTHS = st.integers(min_value=8, max_value=200)


@pytest.mark.parametrize(
    ("layers", "points"),
    [
        (28, [4, 6, 8, 10, 12, 14, 18, 22, 26]),  # Llama-3.2-3B
        (32, [4, 6, 8, 10, 12, 14, 16, 20, 24, 28]),  # OPT-2.7B
        (12, [4, 6, 10]),
        (9, [4, 8]),
        (8, [4]),
    ],
)
def test_exit_points_by_hand(layers, points):
    assert exit_points(layers) == points


@pytest.mark.parametrize("layers", [0, 1, 4, 7])
def test_a_model_too_shallow_is_one_sentence(layers):
    with pytest.raises(InputError, match=f"model of {layers} layers has no exit point"):
        exit_points(layers)
    with pytest.raises(InputError, match="no exit point"):
        loss_weights(layers)


@given(DEPTHS)
def test_exit_points_follow_the_rule_at_any_depth(layers):
    points = exit_points(layers)
    first = [point for point in points if point <= layers // 2]
    second = [point for point in points if point > layers // 2]
    assert points[0] == 4 and points[-1] < layers <= points[-1] + 4
    assert {b - a for a, b in pairwise(first)} <= {2}
    assert {b - a for a, b in pairwise([first[-1], *second])} <= {4}


def test_weights_of_28_layers_by_hand():
    # Eq. 4.3: ratios 1, 0.9, 0.81, ...; Eq. 4.4: ratio / sum * budget.
    first = [1.0, 0.9, 0.81, 0.729, 0.6561, 0.59049]  # sum 4.68559
    expected = {layer: 0.7 * r / 4.68559 for layer, r in zip((4, 6, 8, 10, 12, 14), first, strict=True)}
    expected |= {18: 0.2 / 2.71, 22: 0.2 * 0.9 / 2.71, 26: 0.2 * 0.81 / 2.71, 28: 0.1}
    weights = loss_weights(28)
    assert list(weights) == list(expected)
    assert weights == pytest.approx(expected, rel=1e-12)
    assert weights[4] == pytest.approx(0.149394, abs=1e-6)


def test_weights_of_32_layers_have_the_ratios_that_the_thesis_prints():
    weights = loss_weights(32)
    ratios = [weights[layer] / weights[4] for layer in (4, 6, 8, 10, 12, 14, 16)]
    assert ratios == pytest.approx([1.0, 0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441])


def test_another_decay_by_hand():
    assert loss_weights(12, decay=0.5) == pytest.approx({4: 0.7 / 1.5, 6: 0.35 / 1.5, 10: 0.2, 12: 0.1})
    equal = loss_weights(28, decay=1.0)
    assert {equal[layer] for layer in (4, 14)} == {0.7 / 6} and equal[18] == equal[26]


@given(DEPTHS, st.floats(min_value=0.1, max_value=1.0))
def test_every_group_spends_its_budget(layers, decay):
    weights = loss_weights(layers, decay)
    assert list(weights) == [*exit_points(layers), layers]
    half = layers // 2
    first = sum(weight for layer, weight in weights.items() if layer <= half)
    second = sum(weight for layer, weight in weights.items() if half < layer < layers)
    assert first == pytest.approx(0.7)
    assert weights[layers] == 0.1
    assert second == pytest.approx(0.0 if layers == 8 else 0.2)  # 8 layers: layer 4 is the only exit point
