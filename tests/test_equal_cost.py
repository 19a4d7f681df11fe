"""The account of criteria at equal cost, the supervised probe and optimal stopping, by hand."""

import numpy as np
import pytest
import torch
from conftest import VOCABULARY

from eelib.decoding.criteria import Agent, ExitState
from eelib.decoding.policy import PRICES, ExitPolicy, load_policy, normed
from eelib.evaluation import equal_cost, probe_data
from eelib.evaluation.cost import criterion_prices, look_price, policy_flops, stop_prices
from eelib.evaluation.equal_cost import Account, best_within, subsets
from eelib.evaluation.offline import policy_exits
from eelib.models.pico import pico_config
from eelib.rl.perceptron import Best, Perceptron, Recipe
from eelib.rl.probe import train_probe
from eelib.rl.rollouts import Rollouts
from eelib.rl.stopping import JUDGED_AT, continuing, paid, train_stopping

CONFIG = pico_config("llama-pico", VOCABULARY, bos=0, eos=1, pad=2, layers=12)
STOPS = np.array([4, 6, 10, 12])


def policy(width: int = 128) -> ExitPolicy:
    return ExitPolicy(
        [torch.zeros(64, width), torch.zeros(2, 64)], [torch.zeros(64), torch.zeros(2)], "model"
    )


# --- prices ---


def test_the_price_of_a_stop_by_hand():
    """Llama pico: width 128, 4 heads of 32 with 2 groups, SwiGLU 352; one position attends to 101 after a context of 100."""
    layer = 2 * (2 * 128 * (128 + 64) + 3 * 128 * 352) + 2 * 2 * 101 * 128
    fill, head = 2 * 128 * 2 * 64, 2 * 128 * VOCABULARY
    tokens = [stop * layer + (12 - stop) * fill + head for stop in STOPS]
    assert stop_prices(CONFIG, STOPS, 100) == pytest.approx(np.array(tokens) / tokens[-1])
    assert look_price(CONFIG, 12, 100, None) == pytest.approx(head / tokens[-1])
    assert policy_flops(policy()) == 2 * (128 * 64 + 64 * 2)
    assert look_price(CONFIG, 12, 100, policy()) == pytest.approx(policy_flops(policy()) / tokens[-1])


def test_a_look_is_paid_where_it_is_taken_and_the_one_that_says_the_token_once():
    prices = np.array([0.4, 0.6, 0.9, 1.0])
    everywhere, twice = np.array([True, True, True]), np.array([True, False, True])
    assert criterion_prices(prices, 0.1, everywhere, says=False) == pytest.approx([0.5, 0.8, 1.2, 1.3])
    assert criterion_prices(prices, 0.1, everywhere, says=True) == pytest.approx([0.4, 0.7, 1.1, 1.3])
    assert criterion_prices(prices, 0.1, twice, says=False) == pytest.approx([0.5, 0.7, 1.1, 1.2])
    assert criterion_prices(prices, 0.1, twice, says=True) == pytest.approx([0.4, 0.7, 1.0, 1.2])


# --- choices ---


def test_the_best_within_a_budget():
    prices, agreement = np.array([0.5, 0.4, 0.8, 0.6]), np.array([0.7, 0.6, 0.9, 0.65])
    assert best_within(np.array([0.3, 0.4, 0.55, 0.7, 0.8, 1.0]), prices, agreement) == [1, 1, 0, 0, 2, 2]


def test_the_exit_points_that_are_tried():
    tried = {tuple(np.flatnonzero(subset)) for subset in subsets(4)}
    assert tried == {(0, 1, 2, 3), (0, 2), (0, 3), (1, 2, 3), (1, 3), (1,), (2, 3), (2,), (3,)}


def rollouts(correct: np.ndarray, states: np.ndarray | None = None, confidences=None) -> Rollouts:
    shape = correct.shape
    return Rollouts(
        np.zeros((*shape, 128), np.float32) if states is None else states,
        np.where(correct, 7, 3),
        np.zeros(shape, np.float32) if confidences is None else confidences,
        np.full(shape[:2], 7),
        [4, 6, 10],
        12,
    )


@pytest.fixture
def account() -> Account:
    """Half of the tokens are right from 4 on, the others at 12 alone; confidence tells them apart, in both sets of prompts."""
    right = np.arange(40).reshape(4, 10, 1) % 2 == 0
    correct = np.broadcast_to(right, (4, 10, 3))
    confident = np.where(correct, 0.9, 0.1).astype(np.float32)
    recorded = rollouts(correct, confidences=confident)
    return Account(CONFIG, recorded, recorded, 100)


def test_a_criterion_that_is_always_right_pays_for_its_looks(account):
    """It may look at the first exit point alone: half of the tokens leave there, the others pay a look and all layers."""
    curve = account.of_confidence()
    look = look_price(CONFIG, 12, 100, None)
    whole = (account.prices[0] + 1 + look) / 2
    everyone = np.arange(4)
    prices, agreement = curve.points(everyone)
    assert prices[0] == pytest.approx(account.prices[0]) and agreement[0] == pytest.approx(0.5)
    assert (prices[-1], agreement[-1]) == (pytest.approx(whole), 1.0)
    oracle = account.frontier.oracle(np.array([whole - look / 2]), everyone)
    assert oracle == pytest.approx([1.0])
    coin = account.frontier.mixed_fixed(np.array([whole]), everyone)
    assert coin == pytest.approx([0.5 + 0.5 * (whole - account.prices[0]) / (1 - account.prices[0])])


def test_the_share_is_0_for_a_blind_policy_and_near_1_for_one_that_knows(account):
    blind = account.of_policy(policy())  # one score everywhere: a fixed exit at best
    assert account.share([blind], np.arange(4)) <= 0
    assert account.share([account.of_confidence()], np.arange(4)) > 0.8
    curves = {"confidence": [account.of_confidence()], "agent": [blind], "probe": [blind]}
    table = account.table(curves).set_index("method")
    paired = table.loc["confidence", "share"] - table.loc["agent", "share"]
    assert table.loc["confidence", "over_agent"] == pytest.approx(paired)
    assert table.loc["confidence", "over_confidence"] == table.loc["agent", "over_agent"] == 0
    assert table.loc["oracle", "agreement_at_0.8"] == 1.0


# --- the probe ---


def test_a_probe_learns_what_can_be_seen_and_exports_to_the_policy_that_decodes(tmp_path):
    """A token is right where the first coordinate is positive; the others are noise."""
    rng = np.random.default_rng(0)
    states = rng.normal(3.0, 2.0, (60, 15, 3, 8)).astype(np.float32)
    recorded = rollouts(states[..., 0] > 3, states)
    chosen = recorded.first(10)
    probe = train_probe(recorded, chosen, seed=1, model="fingerprint")
    probe.save(tmp_path)
    again = load_policy(tmp_path, "fingerprint")
    test = torch.from_numpy(rng.normal(3.0, 2.0, (500, 8)).astype(np.float32))
    said = again.probability(test) > 0.5
    assert (said == (test[:, 0] > 3)).float().mean() > 0.95
    assert Agent(again, 0.9).exits  # the criterion that decodes takes it
    same = train_probe(recorded, chosen, seed=1, model="fingerprint")
    assert all(torch.equal(a, b) for a, b in zip(same.weights, probe.weights, strict=True))
    other = train_probe(recorded, chosen, seed=2, model="fingerprint")
    assert not torch.equal(other.weights[0], probe.weights[0])


# --- optimal stopping ---


def test_what_going_on_pays_by_hand():
    """Three exit points, steps of 0.1, 0.2 and 0.3 of a token, a price of 2. The first token leaves at the second exit, where it is wrong;
    the second never leaves."""
    leave, go_on = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), torch.full((2, 3), 0.5)
    correct, steps = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), torch.tensor([0.1, 0.2, 0.3])
    paid = continuing(go_on, leave, correct, torch.full((2,), 2.0), steps)
    torch.testing.assert_close(paid, torch.tensor([[-0.2, 0.0, 0.4], [-0.2, 0.0, 0.4]]))
    dear = continuing(go_on, leave, correct, torch.tensor([2.0, 0.0]), steps)
    assert dear[1].tolist() == [1.0, 1.0, 1.0]  # nothing costs anything, and the last layer is always right


def test_what_a_network_s_decisions_pay_by_hand():
    """Two tokens, one exit point at half of the cost. Leaving always pays what is right, never leaving 1 less the price's half."""
    states, correct, steps = torch.zeros(2, 1, 4), torch.tensor([[1.0], [0.0]]), torch.tensor([0.5])
    generator = torch.Generator().manual_seed(0)
    network = Perceptron(4, Recipe(steps=1), 2, generator, priced=True)
    prices = np.geomspace(*PRICES, JUDGED_AT)
    for leave, pays in ((9.0, np.full(JUDGED_AT, 0.5)), (-9.0, 1 - prices / 2)):
        with torch.no_grad():
            network.layers[-1].weight.zero_()
            network.layers[-1].bias.copy_(torch.tensor([0.0, leave]))
        assert paid(network, states, correct, steps) == pytest.approx((pays / (1 + prices)).mean(), rel=1e-5)


def test_the_best_state_of_a_training_is_kept():
    """Of 32 steps every second is judged; the least loss comes at step 20."""
    network = Perceptron(1, Recipe(steps=32), 1, torch.Generator().manual_seed(0))
    best, judged = Best(network, 32), []
    for step in range(1, 33):
        with torch.no_grad():
            network.layers[-1].bias.fill_(float(step))
        best.offer(step, lambda step=step: judged.append(step) or abs(step - 20))
    assert judged == list(range(2, 33, 2))
    assert best.kept.layers[-1].bias.item() == 20.0


def test_a_stopping_policy_leaves_where_going_on_buys_nothing(tmp_path):
    """Tokens of three kinds: right everywhere, right from the second exit on, right at the last layer alone. Three coordinates tell the
    kind, three the exit point. The first leave at once; the second go on for one step; the third go on if full depth is cheap."""
    kind = np.arange(900).reshape(60, 15) % 3
    correct = np.stack([kind == 0, kind <= 1, kind <= 1], -1)
    states = np.random.default_rng(0).normal(size=(60, 15, 3, 8)).astype(np.float32)
    states[..., :3] = 3 * np.where(kind[..., None, None] == np.arange(3), 1.0, -1.0)
    states[..., 3:6] = 3 * np.eye(3)
    costs = np.array([0.4, 0.5, 0.9, 1.0])
    recorded = rollouts(correct, states)
    policy = train_stopping(recorded, recorded.first(20), costs, seed=0, model="fingerprint")
    policy.save(tmp_path)
    again = load_policy(tmp_path, "fingerprint")
    recorded = rollouts(correct[:4], states[:4])

    def exits(price: float) -> list[float]:
        [index] = policy_exits(recorded, again, [1 / (1 + price)])
        return [np.median(index[kind[:4] == which]) for which in range(3)]

    assert exits(0.5) == [0, 1, 3]  # 1 - 0.5 * 0.6 > 0
    assert exits(4.0) == [0, 1, 0]  # 1 - 4 * 0.6 < 0, and 1 - 4 * 0.1 > 0
    [never], [always] = (policy_exits(recorded, again, [threshold]) for threshold in (1.0, 0.0))
    assert (never == 3).all() and (always == 0).all()


def test_a_priced_policy_decides_alike_in_the_account_and_in_the_decoder():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 8, generator=generator), torch.randn(2, 5, generator=generator)]
    priced = ExitPolicy(weights, [torch.zeros(5), torch.zeros(2)], "model", torch.ones(5), direction=True)
    states = torch.randn(4, 15, 3, 8, generator=generator).numpy()
    recorded = rollouts(np.zeros((4, 15, 3), bool), states)
    for threshold in (0.0, 0.3, 0.8, 0.999, 1.0):
        [index] = policy_exits(recorded, priced, [threshold])
        state = ExitState(lambda hidden: hidden, torch.from_numpy(states).flatten(0, 2))
        leaves = Agent(priced, threshold).exits(state).view(4, 15, 3).numpy()
        assert (np.where(leaves.any(-1), leaves.argmax(-1), 3) == index).all()
    cheap, margin = priced.at(1 / 3)  # a price of 2
    features = torch.tanh(normed(torch.from_numpy(states[0, 0])) @ weights[0].T + np.log(2)) @ weights[1].T
    torch.testing.assert_close(cheap.margin(torch.from_numpy(states[0, 0])), features[:, 1] - features[:, 0])
    assert margin == 0 and torch.equal(priced.at(0.01)[0].biases[0], priced.at(0.2)[0].biases[0])


def test_the_account_takes_a_priced_policy_at_every_price(account):
    """Half of the tokens are right from 4 on, and the state says which: the policy's share is an oracle's but for its looks."""
    known = np.where(account.unseen.correct[..., None], 1.0, -1.0) * np.ones(128, np.float32)
    recorded = rollouts(account.unseen.correct, known.astype(np.float32))
    seeing = Account(CONFIG, recorded, recorded, 100)
    priced = train_stopping(recorded, recorded, seeing.prices, 0, "model", Recipe(steps=300))
    assert seeing.share([seeing.of_policy(priced)], np.arange(4)) > 0.9


# --- the study's frames ---


def test_the_frames_of_the_study_name_every_method(monkeypatch, account):
    monkeypatch.setattr(equal_cost, "load_config", lambda name: CONFIG)
    recorded = account.unseen
    policies = {0: policy(), 1: policy()}
    rivals = [recorded, recorded, policies, policies, policies]
    table = equal_cost.equal_cost(*rivals, "model", 100)
    assert table["method"].tolist() == [
        "confidence",
        "agent",
        "probe",
        "stopping",
        "fixed",
        "coin",
        "oracle",
    ]
    curves = equal_cost.cost_curves(*rivals, "model", 100)
    assert set(curves["method"]) == set(table["method"])
    assert curves.groupby("method")["cost"].agg(["min", "max"]).nunique().tolist() == [1, 1]


def test_a_probe_s_data_is_told_by_its_source_and_size(monkeypatch):
    """States that say nothing in completions and everything in real text: the probe of the latter knows more."""
    monkeypatch.setattr(probe_data, "load_config", lambda name: CONFIG)
    rng = np.random.default_rng(0)
    telling, blank = (rng.normal(size=(40, 15, 3, 128)).astype(np.float32) * scale for scale in (1, 0))
    correct = np.broadcast_to(telling[..., :1, 0] > 0, telling.shape[:3])
    telling[..., 0] *= 3
    text, silent = rollouts(correct, telling), rollouts(correct, blank)
    probe = train_probe(silent.joined(text), text.first(8), 0, "model")
    table = probe_data.probe_data(silent, text, text.first(8), text, probe, "model", 100, 400)
    assert table["learnt_from"].tolist() == ["completions", "real text", "real text", "real text", "both"]
    assert table["tokens"].tolist() == [600, 150, 300, 600, 1200]
    assert table["share"].iloc[0] + 0.4 < table["share"].iloc[3]
    assert (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()
