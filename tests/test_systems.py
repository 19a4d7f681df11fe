"""The rules of Table 3.1's systems, each by a case computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import VOCABULARY

from eelib.errors import InputError
from eelib.models.pico import pico_config
from eelib.rl.perceptron import Recipe
from eelib.rl.rollouts import Rollouts, record
from eelib.systems import (
    berxit,
    calm,
    consistentee,
    depth_adaptive,
    ensemble,
    hashee,
    heads,
    layerskip,
    mat,
    sec,
    skipdecode,
)
from eelib.systems.harness import look
from eelib.systems.network import UNKNOWN, classify

CONFIG = pico_config("llama-pico", VOCABULARY, bos=0, eos=1, pad=2, layers=12)


# --- what a look at the vocabulary says: DeeBERT, CALM, LITE ---


def test_a_look_by_hand():
    """Probabilities 0.5, 0.25, 0.125, 0.125 of four tokens."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    token, confidence, difference, entropy, likelihood = look(logits, torch.tensor([1]))
    assert token.tolist() == [0]
    assert confidence.item() == pytest.approx(0.5)
    assert difference.item() == pytest.approx(0.25)
    assert entropy.item() == pytest.approx((0.5 * 1 + 0.25 * 2 + 2 * 0.125 * 3) * math.log(2) / math.log(4))
    assert likelihood.item() == pytest.approx(math.log(0.25))


def test_the_falling_bar_by_hand():
    bars = calm.falling_bar(0.8, 4)
    assert bars == pytest.approx(
        [0.82, 0.72 + 0.1 * math.exp(-1), 0.72 + 0.1 * math.exp(-2), 0.72 + 0.1 * math.exp(-3)]
    )
    assert calm.falling_bar(1.0, 4)[0] == 1.0 and calm.falling_bar(-1.0, 4).max() == 0.0


def test_saturation_compares_neighbouring_exit_points():
    states = np.array([[[[1, 0], [1, 1], [2, 2], [-1, -1]]]], np.float32)
    found = calm.saturation(states)[0, 0]
    assert found[0] == -np.inf and found[1:] == pytest.approx([math.sqrt(0.5), 1.0, -1.0])


# --- Depth-Adaptive Transformer ---


def test_the_oracle_weighs_gain_against_layers():
    prices = np.array([0.4, 0.6, 1.0])
    right = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1.0]])
    assert depth_adaptive.oracle_exits(right, prices, 0.5).tolist() == [1, 0, 2]
    assert depth_adaptive.oracle_exits(right, prices, 2.0).tolist() == [1, 0, 0]  # 1 - 2.0 < 0 - 0.8
    likelihood = np.array([-1.0, -0.9, -0.1])
    assert depth_adaptive.oracle_exits(likelihood, prices, 1.0) == 2  # -1.4, -1.5, -1.1
    assert depth_adaptive.oracle_exits(likelihood, prices, 2.0) == 0  # -1.8, -2.1, -2.1


def test_the_geometric_like_loss_is_the_likelihood_of_the_oracle_s_exit():
    targets = depth_adaptive.leaving_targets(np.array([1, 3]), 3)
    assert targets.tolist() == [[0, 1, -1], [0, 0, 0]]
    leave = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.2, 0.3]])
    by_hand = -(math.log(0.8 * 0.5) + math.log(0.9 * 0.8 * 0.7)) / 2
    loss = depth_adaptive.leaving_loss(leave.logit(), torch.from_numpy(targets))
    assert loss.item() == pytest.approx(by_hand)


def test_a_classifier_learns_classes_and_leaves_unknown_ones_out():
    """The sign of a coordinate is the class; tokens with a wrong label are marked unknown."""
    states = np.random.default_rng(0).normal(size=(40, 15, 2, 6)).astype(np.float32)
    classes = (states[..., 0] > 0).astype(np.int64)
    labels = np.where(np.arange(15)[None, :, None] < 5, UNKNOWN, classes)
    recorded = rollouts(np.zeros((40, 15, 2), bool), states)
    fitted = classify(recorded, torch.from_numpy(labels).flatten(0, 1), 2, 0, Recipe(steps=300))
    said = fitted.probabilities(recorded)
    assert said.shape == (40, 15, 2, 2) and (said.argmax(-1) == classes).mean() > 0.95
    assert fitted.flops == 2 * (6 * 64 + 64 * 64 + 64 * 2)


def rollouts(correct: np.ndarray, states: np.ndarray | None = None) -> Rollouts:
    shape = correct.shape
    return Rollouts(
        np.zeros((*shape, 4), np.float32) if states is None else states,
        np.where(correct, 7, 3),
        np.zeros(shape, np.float32),
        np.full(shape[:2], 7),
        [4, 6, 10][: shape[2]],
        12,
    )


# --- BERxiT, ConsistentEE, heads of their own ---


def test_certainty_is_fitted_by_squared_error():
    loss = berxit.certainty_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.25)


def test_the_memorised_layer_and_its_rewards_by_hand():
    correct = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    assert consistentee.memorised(correct).tolist() == [0, 2, 3]
    found = consistentee.rewards(correct, np.array([0.3, 0.5, 0.7, 1.0]), alpha=2.0)
    assert found[0] == pytest.approx([0.4, 0.0, -0.4, -1.0])  # the easiest: every layer at its whole price
    assert found[1] == pytest.approx([1 - 0.2, -1 / 3, 1 - 1.4 / 3, 1 - 2 / 3])  # a third of it
    assert found[2] == pytest.approx([1, 1, 0, 1])  # the hardest: layers are free


def test_the_expected_reward_by_hand():
    logits = torch.tensor([[0.5, 0.25]]).logit()
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    # Leaves at once by 0.5, then by 0.5 * 0.25, else at the last stop.
    assert consistentee.expected_loss(logits, rewards).item() == pytest.approx(-(0.5 + 0.125 * 2 + 0.375 * 4))


def test_own_heads_start_as_the_model_s_and_learn_the_last_layer_s_tokens(parts, prompts):
    recorded = record(parts, prompts, 8)
    untrained = heads.fit_heads(parts, recorded, recorded, seed=0, steps=1)
    start = heads.Heads(parts, parts.head.weight.detach().expand(3, -1, -1))
    assert (start.looks(recorded).tokens == recorded.predictions).all()
    trained = heads.fit_heads(parts, recorded, recorded, seed=0, steps=300)
    assert trained.correct(recorded).mean() > untrained.correct(recorded).mean() + 0.2


def test_own_heads_that_are_too_large_are_named(parts, prompts, monkeypatch):
    recorded = record(parts, prompts, 2)
    monkeypatch.setattr(heads, "MOST_PARAMETERS", 1000)
    assert not heads.affordable(parts)
    with pytest.raises(InputError, match=r"would have 36,864 parameters: allowed are 1,000"):
        heads.fit_heads(parts, recorded, recorded, 0, 1)


# --- MAT ---


def test_regression_recovers_a_known_map():
    rng = np.random.default_rng(0)
    known, states = rng.normal(size=(5, 5)), rng.normal(size=(400, 5))
    noisy = states @ known.T + 0.01 * rng.normal(size=(400, 5))
    assert mat.linear_map(states, noisy) == pytest.approx(known, abs=0.01)


def test_a_map_to_the_last_state_says_the_last_token(parts, prompts):
    """Exit states that are a linear image of the last layer's are mapped back, and decoded as the last layer is."""
    recorded = record(parts, prompts, 8)
    rng = np.random.default_rng(0)
    width = parts.width
    last = rng.normal(size=(40, 8, width)).astype(np.float32)
    with torch.inference_mode():
        tokens = parts.logits(torch.from_numpy(last)).argmax(-1).numpy()
    turned, _ = np.linalg.qr(rng.normal(size=(width, width)))
    states = np.repeat((last @ turned.T.astype(np.float32))[:, :, None], 3, 2)
    zeros = np.zeros(states.shape[:3])
    shown = replace(recorded, states=states, last=tokens, predictions=zeros.astype(int), confidences=zeros)
    said = mat.mapped_looks(parts, mat.fit_maps(shown, last), shown)
    assert (said.tokens == tokens[..., None]).mean() > 0.98


# --- SkipDecode ---


def test_the_falling_schedule_by_hand():
    stops = np.array([4, 6, 10, 12])
    # The line from 12 to 4 over five tokens: 12, 10, 8, 6, 4.
    assert skipdecode.falling_schedule(stops, 12, 4, 5).tolist() == [3, 2, 1, 1, 0]
    assert skipdecode.falling_schedule(stops, 6, 6, 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("most", "least"), [(12, 5), (4, 12), (13, 4)])
def test_a_schedule_outside_the_stops_is_named(most, least):
    with pytest.raises(InputError, match=r"from layer .* it has to fall between layers of \[4, 6, 10, 12\]"):
        skipdecode.falling_schedule(np.array([4, 6, 10, 12]), most, least, 5)


# --- LayerSkip ---


def test_dropout_grows_with_depth_and_training():
    rates = layerskip.dropout_rates(3, 0.2)
    assert rates == pytest.approx([0, 0.2 * (math.sqrt(2) - 1), 0.2])
    assert layerskip.dropout_rates(3, 0.2, step=0, steps=5) == pytest.approx([0, 0, 0])
    assert layerskip.dropout_rates(3, 0.2, step=4, steps=5) == pytest.approx(rates)
    with pytest.raises(InputError, match=r"largest rate of dropping a layer is 1\.5"):
        layerskip.dropout_rates(3, 1.5)


def test_early_exit_weights_rotate_and_always_hold_the_last_layer():
    # Sums 0, 1, 3 of layers 0 to 2 at scale 0.5; the last: 3 + 0.5 * 3.
    whole = layerskip.loss_weights(4, 0.5, step=0, rotation=1)
    assert whole == pytest.approx(np.array([0, 0.5, 1.5, 4.5]) / 6.5)
    assert layerskip.loss_weights(4, 0.5, step=0, rotation=2) == pytest.approx(np.array([0, 0, 1.5, 4.5]) / 6)
    assert layerskip.loss_weights(4, 0.5, step=1, rotation=2) == pytest.approx(np.array([0, 0.5, 0, 4.5]) / 5)


def test_accepted_drafts_by_hand():
    agrees = np.array([1, 1, 0, 1, 1, 1, 0], bool)
    # Two of three drafts, then the verifier's token in place of the third; all of three.
    assert layerskip.accepted_blocks(agrees, 3) == [(3, 2), (3, 3)]
    # One of one and the verifier's each time; the last token is left alone.
    assert layerskip.accepted_blocks(agrees, 1) == [(1, 1), (1, 0), (1, 1), (1, 1)]
    assert layerskip.accepted_blocks(np.zeros(3, bool), 4) == [(2, 0), (1, 0), (0, 0)]


def test_speculation_writes_every_token_once():
    rng = np.random.default_rng(0)
    for block in layerskip.BLOCKS:
        agrees = rng.random(15) < 0.6
        assert sum(accepted + 1 for _, accepted in layerskip.accepted_blocks(agrees, block)) == 15


def test_the_cost_of_a_round_by_hand():
    """Layers of 10, a head of 3, exit at 2 of 5, three drafts."""
    drafting, ends = 3 * (2 * 10 + 3), 2 * 10
    assert layerskip.round_cost(10, 3, 2, 5, 3, reads=False) == drafting + ends + 4 * (3 * 10 + 3)
    assert layerskip.round_cost(10, 3, 2, 5, 3, reads=True) == drafting + ends + 3 * 10 + 3
    for reads in (False, True):  # nothing drafted: the full model's token
        assert layerskip.round_cost(10, 3, 2, 5, 0, reads) == 5 * 10 + 3


def test_speculation_saves_reads_where_exits_agree_and_never_flops():
    always = layerskip.speculation(rollouts(np.ones((2, 15, 3), bool)), CONFIG, 100)
    never = layerskip.speculation(rollouts(np.zeros((2, 15, 3), bool)), CONFIG, 100)
    first = always.query("layer == 4 and block == 4")
    assert (first["reads"] < 0.7).all() and (first["accepted"] == 12).all()
    assert (never["reads"] > 1).all() and (never["accepted"] == 0).all() and (never["rounds"] == 15).all()
    assert (pd_min(always, "flops") > 1) and (pd_min(never, "flops") > pd_min(always, "flops"))


def pd_min(frame, column: str) -> float:
    return frame[column].min()


# --- SEC ---


def test_actions_by_hand():
    predictions = np.array([[5, 7, 7], [3, 7, 3], [3, 3, 3], [7, 7, 7]])
    last, truth = np.array([7, 3, 7, 7]), np.array([7, 7, 9, -1])
    stop, go, leave = sec.STOP, sec.CONTINUE, sec.EXIT
    assert sec.actions(predictions, last, truth).tolist() == [
        [go, leave, leave],
        [go, leave, stop],  # right in the middle alone
        [stop, stop, stop],
        [UNKNOWN] * 3,
    ]


def test_what_stopping_saves_and_loses_by_hand():
    completions = np.array([[1, 2, 3, 4], [1, 9, 3, 4]])
    references = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert sec.accepted(completions, references).tolist() == [4, 1]
    stop = np.array([[0.1, 0.2, 0.1, 0.6], [0.1, 0.8, 0.0, 0.0]])
    assert sec.lengths(stop, 0.5).tolist() == [3, 1] and sec.lengths(stop, 0.7).tolist() == [4, 1]
    assert sec.lengths(stop, 0.9).tolist() == [4, 4]


# --- HashEE ---


def test_buckets_by_frequency_have_equal_mass():
    tokens = np.array([[2] * 4 + [0] * 2 + [3] + [4]])
    # Half of the occurrences are token 2; 0, 3 and 4 share the rest; 1 and 5 are unseen.
    assert hashee.frequency_buckets(tokens, 6, 2).tolist() == [1, 1, 0, 1, 1, 1]
    assert hashee.frequency_buckets(tokens, 6, 4).tolist() == [2, 3, 0, 3, 3, 3]


def test_buckets_by_clusters_join_near_embeddings():
    embeddings = np.array([[0, 0], [0.1, 0], [9, 9], [9, 9.1], [8.9, 9]])
    found = hashee.cluster_buckets(embeddings, np.array([[0, 1, 2, 3]]), 2)
    assert found[0] == found[1] != found[2] and found[2] == found[3] == found[4]


def test_a_bucket_takes_the_stop_that_pays_most():
    correct = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [0, 0]], bool)
    buckets, prices = np.array([0, 0, 1, 1, 2]), np.array([0.4, 0.6, 1.0])
    assert hashee.exits_of_buckets(correct, buckets, 3, prices, 0.5).tolist() == [0, 1, 2]
    assert hashee.exits_of_buckets(correct, buckets, 3, prices, 2.0).tolist() == [0, 1, 0]
    # An empty bucket goes by all tokens: 0.4 - 0.2, 0.8 - 0.3, 1 - 0.5.
    assert hashee.exits_of_buckets(correct, buckets, 4, prices, 0.5)[3] in (1, 2)


# --- ensembles ---


def test_votes_by_hand():
    tokens, everyone = np.array([[[5, 6, 6, 5]]]), np.ones(4, bool)
    scores, elected = ensemble.votes(tokens, np.ones(4), everyone, 0.0)
    assert scores[0, 0].tolist() == [1, 1, 2, 2]
    assert elected[0, 0].tolist() == [5, 6, 6, 5]  # of equal votes, the latest voter's token
    weighted, elected = ensemble.votes(tokens, np.array([1, 1, 1, 3]), everyone, 0.0)
    assert weighted[0, 0].tolist() == [1, 1, 2, 4] and elected[0, 0, 3] == 5
    shared, _ = ensemble.votes(tokens, np.ones(4), everyone, 0.5)
    assert shared[0, 0] == pytest.approx([1, 1 / math.sqrt(2), 2 / math.sqrt(3), 1])
    some, _ = ensemble.votes(tokens, np.ones(4), np.array([True, False, True, True]), 0.0)
    assert some[0, 0].tolist() == [1, -np.inf, 1, 2]
