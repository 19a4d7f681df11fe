"""Completions to be read: pieces make up the text, samples come in order, boxes say layer and agreement."""

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from eelib.data.samples import Sample
from eelib.evaluation.completions import pieces, token_rows
from eelib.models.loading import load_tokenizer
from eelib.report import completions as drawn
from eelib.report.figures import VERMILLION


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("opt-pico")


def test_pieces_make_up_the_text(tokenizer):
    ids = tokenizer("def größer ( self ) : <EOL> return 'é'", add_special_tokens=False).input_ids
    parts = pieces(ids, tokenizer)
    assert len(parts) == len(ids) and "".join(parts) == tokenizer.decode(ids)


def test_rows_are_tokens_of_the_samples_asked_for_in_their_order(tokenizer):
    ids = tokenizer("if x is None : return", add_special_tokens=False).input_ids
    samples = [Sample(name, [0, *ids[:3]], ids[3:5]) for name in ("b", "a")]
    made = pd.DataFrame({"sample": ["a", "b", "c"], "tokens": [ids[:1], ids[:2], ids[:3]]})
    made["exit_layers"] = [[4], [4, 32], [8, 8, 8]]
    made["agrees"] = [[True], [False, True], [True] * 3]
    rows = token_rows(made, samples, tokenizer)
    assert rows["sample"].tolist() == ["b", "b", "a"]
    assert rows["exit_layer"].tolist() == [4, 32, 4] and rows["agrees"].tolist() == [False, True, True]
    assert rows["context"].unique().tolist() == [tokenizer.decode(ids[:3])]  # without the start token
    assert rows["truth"].unique().tolist() == [tokenizer.decode(ids[3:5])]
    with pytest.raises(ValueError, match="a sample has several"):  # two agents or thresholds at once
        token_rows(pd.concat([made, made]), samples, tokenizer)


def frame(tokens, layers, agrees):
    rows = pd.DataFrame({"token": tokens, "exit_layer": layers, "agrees": agrees})
    return rows.assign(sample="x.py", context="def f ( ) :", truth="return 1")


def test_boxes_show_layers_and_disagreement():
    (ax,) = drawn.side_by_side(frame(["return", " $1$", ""], [4, 32, 8], [True, False, True]), 32).axes
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [box.get_facecolor() for box in boxes] == [pytest.approx(drawn.shade(at, 32)) for at in (4, 32, 8)]
    red = [box.get_edgecolor()[:3] == pytest.approx((0xD5 / 255, 0x5E / 255, 0)) for box in boxes]
    assert red == [False, True, False] and VERMILLION == "#D55E00"
    texts = [text.get_text() for text in ax.texts]
    assert {"x.py", "context", "def f ( ) :", "truth", "return 1", "return", "$1$", "4", "32", "8"} <= set(
        texts
    )


def test_a_long_completion_is_wrapped_and_boxes_do_not_overlap():
    tokens = ["a" * 30] * 7
    assert drawn.lines_of(tokens) == [[0, 1, 2], [3, 4, 5], [6]]
    (ax,) = drawn.side_by_side(frame(tokens, [4] * 7, [True] * 7), 32).axes
    boxes = [patch.get_bbox() for patch in ax.patches]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


def test_deeper_exits_are_darker():
    sums = [sum(drawn.shade(layer, 28)[:3]) for layer in (4, 14, 28)]
    assert sums == sorted(sums, reverse=True)
