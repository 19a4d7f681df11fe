"""The harness that all systems are judged on, on tiny rollouts: prices, settings, shares and the study's tables."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import VOCABULARY, tiny_model

from eelib.data import samples
from eelib.data.corpus import CodeFile
from eelib.decoding.policy import ExitPolicy
from eelib.errors import InputError
from eelib.evaluation.cost import criterion_prices
from eelib.evaluation.equal_cost import Account
from eelib.evaluation.flops import head_flops
from eelib.models.parts import take_apart
from eelib.models.pico import pico_config
from eelib.profile import Context
from eelib.rl.perceptron import Recipe
from eelib.rl.rollouts import Rollouts, record, record_prefixes
from eelib.systems import fitted, harness, judged, lite, material
from eelib.systems.harness import Bench, Split, Told
from eelib.systems.layerskip import BLOCKS
from eelib.systems.network import classify

CONFIG = pico_config("llama-pico", VOCABULARY, bos=0, eos=1, pad=2, layers=12)
EVERYWHERE = np.ones(3, bool)


def rollouts(correct: np.ndarray, confidences: np.ndarray) -> Rollouts:
    shape = correct.shape
    states = np.zeros((*shape, 128), np.float32)
    return Rollouts(states, np.where(correct, 7, 3), confidences, np.full(shape[:2], 7), [4, 6, 10], 12)


@pytest.fixture
def bench() -> Bench:
    """Half of the tokens are right from 4 on, the others at 12 alone; confidence tells them apart, in both sets of prompts."""
    right = np.broadcast_to(np.arange(40).reshape(4, 10, 1) % 2 == 0, (4, 10, 3))
    recorded = rollouts(right, np.where(right, 0.9, 0.1).astype(np.float32))
    split = Split(recorded, np.zeros((4, 10), int))
    return Bench(CONFIG, 100, split, split)


# --- prices ---


def test_a_look_at_the_vocabulary_is_paid_with_what_is_computed_beside_it(bench):
    assert bench.saying()(EVERYWHERE) == pytest.approx(
        criterion_prices(bench.prices, bench.vocabulary, EVERYWHERE, says=True)
    )
    beside = bench.price(1000)
    assert beside / bench.vocabulary == pytest.approx(1000 / head_flops(CONFIG))
    # Leaving at 4 pays one of them, at 6 two and a look, at 12 three and three looks.
    own = bench.saying(1000)(EVERYWHERE) - bench.prices
    looks = np.array([0, 1, 2, 3]) * bench.vocabulary
    assert own == pytest.approx(looks + np.array([1, 2, 3, 3]) * beside)
    assert bench.reading(1000)(np.array([True, False, True])) - bench.prices == pytest.approx(
        np.array([1, 1, 2, 2]) * beside
    )


def test_what_fills_no_cache_is_cheaper_but_for_the_whole_model(bench):
    assert (bench.unfilled[:-1] < bench.prices[:-1]).all() and bench.unfilled[-1] == 1.0
    fill = 2 * 128 * 2 * 64  # keys and values of a layer, in FLOPs
    assert (bench.prices - bench.unfilled)[0] == pytest.approx(bench.price(8 * fill))


def test_the_price_of_a_decision_is_that_of_its_network(bench):
    recorded, labels = bench.unseen.rollouts, torch.zeros(40, 3, dtype=torch.int64)
    for outputs, told in ((2, fitted._perceptron), (3, fitted._actions)):
        network = classify(recorded, labels, outputs, 0, Recipe(steps=1))
        assert told(bench) == pytest.approx(bench.price(network.flops))
    for outputs, told in ((2, fitted._linear), (4, fitted._exits)):
        network = classify(recorded, labels, outputs, 0, Recipe(steps=1, hidden_layers=0))
        assert told(bench) == pytest.approx(bench.price(network.flops))
    assert fitted._mapped(bench) - bench.vocabulary == pytest.approx(bench.price(2 * 128 * 128))
    assert fitted._cosine(bench) == pytest.approx(bench.price(3 * 2 * 128))


# --- settings ---


def test_outcomes_by_hand():
    prices, correct = np.array([0.4, 0.7, 1.0]), np.array([[[1, 0], [0, 1], [0, 0]]], bool)
    curve = harness.outcome([np.array([[0, 0, 0]]), np.array([[0, 1, 2]])], prices, correct)
    assert curve.prices.tolist() == [[pytest.approx(0.4), pytest.approx(0.7)]]
    assert curve.agreement.tolist() == [[pytest.approx(1 / 3), 1.0]]


def test_thresholds_may_differ_by_token():
    scores = np.full((1, 2, 1), 0.5)
    told = Told(scores, np.zeros((1, 2, 1), bool))
    [(curve, of_one)] = harness.by_threshold(
        told,
        told,
        lambda looked_at: np.array([0.5, 1.0]),
        lambda bar: np.array([[bar], [1 - bar]]),
        np.array([0.1]),
    )
    assert curve.prices.tolist() == [[0.75]] and of_one(0).prices.tolist() == [[0.75]]


def test_the_chosen_settings_are_those_of_the_account_at_equal_cost(bench):
    """Softmax confidence is a criterion of notebook 04 and LITE's: both harnesses give it the same curve, so the same share."""
    account = Account(CONFIG, bench.unseen.rollouts, bench.chosen.rollouts, 100)
    settings = harness.chosen_settings(bench, lite.confidence(bench)).assign(method="lite", seed=-1)
    [curve] = judged._curves(settings)["lite"]
    everyone = np.arange(4)
    assert account.share([curve], everyone) == pytest.approx(
        account.share([account.of_confidence()], everyone)
    )
    blind = harness.chosen_settings(bench, []).assign(method="fixed", seed=-1)
    assert account.share(judged._curves(blind)["fixed"], everyone) <= 0


def test_a_policy_of_the_study_has_the_account_s_curve():
    rng = np.random.default_rng(0)
    correct = rng.random((6, 15, 3)) < [0.3, 0.5, 0.8]
    recorded = rollouts(correct, rng.random((6, 15, 3)).astype(np.float32))
    states = rng.normal(size=(*correct.shape, 128)).astype(np.float32)
    states[..., 0] += 2 * correct  # seen in part
    recorded = replace(recorded, states=states)
    read = torch.zeros(2, 128)
    read[1, 0] = 1.0
    plain = ExitPolicy([read], [torch.zeros(2)], "model")
    hidden = [torch.randn(4, 128), torch.randn(2, 4)]
    priced = ExitPolicy(hidden, [torch.zeros(4), torch.zeros(2)], "model", torch.ones(4))
    split = Split(recorded, np.zeros((6, 15), int))
    bench, account = Bench(CONFIG, 100, split, split), Account(CONFIG, recorded, recorded, 100)
    for policy in (plain, priced):
        settings = harness.chosen_settings(bench, harness.by_policy(bench, policy))
        [curve] = judged._curves(settings.assign(method="own", seed=0))["own"]
        theirs = account.of_policy(policy)
        assert account.share([curve], np.arange(6)) == pytest.approx(account.share([theirs], np.arange(6)))


def test_the_cheapest_setting_loses_no_more_than_tolerated(bench):
    settings = harness.chosen_settings(bench, lite.confidence(bench))
    for share in harness.TOLERATED:
        own = settings[settings["tolerated"] == share]
        assert own["agreement"].mean() >= 1 - share
        # One look at the first exit point alone, which half of the tokens pass.
        assert own["price"].mean() == pytest.approx((bench.prices[0] + 1 + bench.vocabulary) / 2)
    nothing = harness.chosen_settings(bench, [])
    assert (nothing.query("tolerated > 0")["price"] == 1).all() and (nothing["trials"] == 0).all()


def test_inputs_of_another_shape_are_named(bench):
    with pytest.raises(InputError, match=r"inputs have shape \(4, 9\).*\(4, 10\)"):
        Split(bench.chosen.rollouts, np.zeros((4, 9), int))


# --- the study's tables ---


def test_a_share_and_what_it_is_over_by_hand(bench, monkeypatch):
    monkeypatch.setattr(judged, "load_config", lambda name: CONFIG)
    unseen = bench.unseen.rollouts
    chosen = {
        "votes": harness.chosen_settings(bench, lite.confidence(bench)),
        "probe": harness.chosen_settings(bench, []),
        "stopping": harness.chosen_settings(bench, lite.confidence(bench)),
    }
    settings = pd.concat(
        [
            rows.assign(method=name, system="S", seed=seed, decision=0.1)
            for name, rows in chosen.items()
            for seed in (0, 1)
        ]
    )
    table = judged.systems(settings, unseen, "model", 100).set_index("method")
    votes, probe = table.loc["votes"], table.loc["probe"]
    assert votes["seeds"] == 2 and votes["least"] == votes["most"] == votes["share"]
    assert votes["over_probe"] == pytest.approx(votes["share"] - probe["share"])
    assert votes["over_stopping"] == votes["over_stopping_high"] == 0
    assert votes["low"] <= votes["share"] <= votes["high"]
    assert (votes["cost_1"], probe["cost_1"]) == (
        pytest.approx((bench.prices[0] + 1 + bench.vocabulary) / 2),
        1.0,
    )
    assert votes["lost_1"] == votes["lost_5"] == probe["lost_1_high"] == 0
    curves = judged.system_curves(settings, unseen, "model", 100)
    assert set(curves["method"]) == {"votes", "probe", "stopping", "coin", "oracle"}
    oracle, coin = (curves[curves["method"] == name]["agreement"].to_numpy() for name in ("oracle", "coin"))
    assert (oracle >= coin).all() and oracle[-1] == coin[-1] == 1


def test_speculation_is_told_for_both_splits(bench, monkeypatch):
    monkeypatch.setattr(judged, "load_config", lambda name: CONFIG)
    table = judged.speculated(bench.chosen.rollouts, bench.unseen.rollouts, "model", 100)
    assert len(table) == 2 * 3 * len(BLOCKS)
    assert (table["flops"] >= 1).all() and (table["reads_low"] <= table["reads"]).all()


# --- the whole node, on a tiny model ---


class Words:
    """A tokenizer of whole words: `w7` is token 7."""

    bos_token_id = 0

    def __call__(self, text, add_special_tokens, verbose):
        return SimpleNamespace(input_ids=[int(word[1:]) for word in text.split()])


@pytest.fixture(scope="module")
def setting():
    """A tiny OPT, its files and what is recorded of them."""
    parts, rng = take_apart(tiny_model("opt-pico", layers=8)), np.random.default_rng(0)
    files = []
    for split in ("train", "validation", "test"):
        for number in range(3):
            words = [f"w{token}" for token in rng.integers(3, VOCABULARY, 90)]
            files.append(CodeFile(f"{split}{number}", split, "java", split, words))
    context = Context(max_tokens=24, new_tokens=4)
    code_model, recorded = SimpleNamespace(parts=parts, tokenizer=Words()), {}
    for split, count in (("train", 6), ("validation", 5), ("test", 5)):
        own = [file for file in files if file.split == split]
        prompts = samples.random_prompts(own, Words(), count, context, seed=0)
        recorded[split] = record(parts, prompts, context.new_tokens)
    own = [file for file in files if file.split == "train"]
    windows = samples.random_windows(own, Words(), 4, context, seed=1)
    recorded["text"] = record_prefixes(parts, windows, context.new_tokens)
    return files, code_model, recorded, context


def test_prompts_are_drawn_again_with_what_follows_them(setting):
    files, code_model, recorded, context = setting
    own = [file for file in files if file.split == "test"]
    prompts, references = material.prompts_and_references(own, code_model, 5, context)
    assert prompts == samples.random_prompts(own, Words(), 5, context, seed=0)
    for prompt, reference in zip(prompts, references, strict=True):
        written = [*prompt[1:], *reference]
        assert any(
            written == samples.encode(file, Words())[at : at + len(written)]
            for file in own
            for at in range(90)
        )
    read = material.inputs_of(prompts, recorded["test"])
    assert (read[:, 0] == [prompt[-1] for prompt in prompts]).all()
    assert (read[:, 1:] == recorded["test"].last[:, :-1]).all()


def test_text_is_run_again_for_what_its_recording_left_out(setting):
    files, code_model, recorded, context = setting
    own = [file for file in files if file.split == "train"]
    windows = samples.random_windows(own, Words(), 4, context, seed=1)
    text = material.along_text(code_model.parts, windows, recorded["text"])
    with torch.inference_mode():
        said = code_model.parts.logits(torch.from_numpy(text.last_states)).argmax(-1).numpy()
    assert (said == recorded["text"].last).all()
    assert text.split.inputs.ravel()[:12].tolist() == windows[0][-12:]
    assert text.truth.ravel()[:12].tolist() == [*windows[0][-11:], material.UNKNOWN]


def test_the_node_fits_every_method(setting, tmp_path, monkeypatch):
    files, code_model, recorded, context = setting
    width = code_model.parts.width
    policy = ExitPolicy([torch.ones(2, width)], [torch.zeros(2)], "model")
    policies = {0: policy, 1: policy}
    given = (files, code_model, recorded["train"], recorded["text"], recorded["validation"], recorded["test"])
    fitted.fit_systems(*given, policies, policies, policies, 4, 16, context, tmp_path)
    settings = pd.read_parquet(tmp_path / fitted.SETTINGS)
    run = {name: method for name, method in fitted.METHODS.items() if not method.instead}
    assert set(settings["method"]) == {*run, fitted.NOBODY, *fitted.POLICIES}
    seeds = settings.groupby("method")["seed"].unique().map(sorted)
    for name, method in run.items():
        assert seeds[name] == ([0, 1] if method.seeded else [fitted.NO_SEED]), name
    monkeypatch.setattr(judged, "load_config", lambda name: code_model.parts.model.config)
    table = judged.systems(settings, recorded["test"], "model", context.max_tokens)
    assert set(table["method"]) == set(settings["method"]) and table["agreement_at_0.8"].between(0, 1).all()
    stops = judged.stopped(tmp_path)
    assert stops["saved"].between(0, 1).all() and len(stops) == len(fitted.sec.BARS)
    monkeypatch.setattr(fitted, "affordable", lambda parts: False)
    monkeypatch.setattr(
        fitted, "METHODS", {name: fitted.METHODS[name] for name in ("entropy", "entropy, own heads")}
    )
    fitted.fit_systems(*given, policies, policies, policies, 4, 16, context, tmp_path)
    assert "entropy, own heads" not in set(pd.read_parquet(tmp_path / fitted.SETTINGS)["method"])
