"""The aggregated loss: values by hand, the model's own loss at the last layer, and the sampled exit positions."""

import pandas as pd
import pytest
import torch
from conftest import VOCABULARY, tiny_model

from eelib.models.exits import loss_weights
from eelib.models.parts import take_apart
from eelib.training import loss as module
from eelib.training.loss import aggregated_loss, exit_loss, layer_losses
from eelib.training.shortlist import Shortlists
from eelib.training.trainer import step_weights

LAYERS = [4, 6, 10, 12]


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, VOCABULARY, (2, 21), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def states(parts, ids):
    with torch.no_grad():
        return parts.hidden_states(ids)


def test_aggregated_loss_by_hand():
    losses = {4: torch.tensor(2.0), 6: torch.tensor(3.0), 8: torch.tensor(1.0), 12: torch.tensor(100.0)}
    # Divided by the weights' sum, whatever it is; layers without a weight do not count.
    assert aggregated_loss(losses, {4: 0.5, 6: 0.2, 8: 0.1}).item() == pytest.approx(1.7 / 0.8)
    weights = loss_weights(8)  # 0.7 and 0.1
    assert aggregated_loss(losses, weights).item() == pytest.approx((0.7 * 2 + 0.1 * 1) / 0.8)


@pytest.mark.parametrize("exit_positions", [1.0, 0.25])
def test_the_last_layers_loss_is_the_models_own(parts, ids, states, exit_positions):
    with torch.no_grad():
        theirs = parts.model(ids, labels=ids).loss
    ours = layer_losses(parts, states, ids, LAYERS, exit_positions)
    torch.testing.assert_close(ours[12], theirs)


def test_an_exit_points_loss_by_hand(parts, ids, states):
    ours = layer_losses(parts, states, ids, LAYERS)
    decoder = getattr(parts.model.model, "decoder", parts.model.model)
    norm = decoder.norm if hasattr(decoder, "norm") else decoder.final_layer_norm
    for layer in (4, 6, 10):
        logits = norm(states[layer - 1]) @ parts.model.lm_head.weight.T
        terms = [
            -logits[row, t].log_softmax(-1)[ids[row, t + 1]]
            for row in range(2)
            for t in range(len(ids[0]) - 1)
        ]
        torch.testing.assert_close(ours[layer], torch.stack(terms).mean())
    assert len({round(loss.item(), 3) for loss in ours.values()}) == len(LAYERS)  # layers do differ


def test_a_share_of_all_positions_is_the_full_mean(parts, ids, states):
    full = layer_losses(parts, states, ids, LAYERS)
    shared = layer_losses(parts, states, ids, LAYERS, 0.999, torch.Generator().manual_seed(0))  # 40 of 40
    for layer in LAYERS:
        torch.testing.assert_close(shared[layer], full[layer])


@torch.no_grad()
def test_sampled_positions_give_an_unbiased_estimate(parts, ids, states):
    full = layer_losses(parts, states, ids, LAYERS)
    generator = torch.Generator().manual_seed(0)
    draws = [layer_losses(parts, states, ids, LAYERS, 0.25, generator) for _ in range(400)]
    for layer in LAYERS[:-1]:
        values = torch.stack([draw[layer] for draw in draws]).double()
        standard_error = values.std() / len(draws) ** 0.5
        assert standard_error > 0
        assert abs(values.mean() - full[layer]) < 4 * standard_error
    assert all(draw[12] == full[12] for draw in draws)


def test_all_layers_are_sampled_at_the_same_positions(parts, ids, states):
    # One layer's states at every depth: equal losses if and only if the positions are the same.
    copies = [states[3]] * 12
    for seed in range(5):
        losses = layer_losses(parts, copies, ids, LAYERS, 0.25, torch.Generator().manual_seed(seed))
        assert losses[4] == losses[6] == losses[10] != losses[12]


def test_the_draw_is_the_generators(parts, ids, states):
    first, again, other = (
        layer_losses(parts, states, ids, [4], 0.25, torch.Generator().manual_seed(seed))[4]
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_a_tiny_share_still_takes_one_position(parts, ids, states):
    # The loss at one position is one of the 40 that a sequence of two tokens each would give.
    singles = [
        layer_losses(
            parts, [s[row : row + 1, t : t + 2] for s in states], ids[row : row + 1, t : t + 2], [4]
        )[4].item()
        for row in range(2)
        for t in range(20)
    ]
    for seed in range(5):
        loss = layer_losses(parts, states, ids, [4], 1e-6, torch.Generator().manual_seed(seed))[4].item()
        assert min(abs(loss - single) for single in singles) < 1e-5


@pytest.mark.parametrize("pico", ["llama-pico", "opt-pico"])
@pytest.mark.parametrize("exit_positions", [1.0, 0.25])
def test_gradients_reach_the_early_layers(pico, exit_positions, ids):
    parts = take_apart(tiny_model(pico))

    def gradient_norms(weights):
        parts.model.zero_grad()
        losses = layer_losses(parts, parts.hidden_states(ids), ids, list(weights), exit_positions)
        aggregated_loss(losses, weights).backward()
        return [
            sum(p.grad.norm().item() for p in layer.parameters() if p.grad is not None)
            for layer in parts.layers
        ]

    only_first = gradient_norms({4: 1.0})
    assert all(norm > 0 for norm in only_first[:4]) and only_first[4:] == [0.0] * 8
    assert all(norm > 0 for norm in gradient_norms(loss_weights(12)))


def gradients(parts) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in parts.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("pico", ["llama-pico", "opt-pico"])
@pytest.mark.parametrize("exit_positions", [1.0, 0.25])
@pytest.mark.parametrize("chunk", [VOCABULARY, 7 * VOCABULARY, 2**22])
def test_the_loss_of_training_is_the_definition_with_its_gradients(
    pico, exit_positions, chunk, ids, monkeypatch
):
    monkeypatch.setattr(module.HeadLoss, "CHUNK", chunk)  # 1 row, 7 rows, all at once
    parts, weights = take_apart(tiny_model(pico)), loss_weights(12)
    losses = layer_losses(
        parts, parts.hidden_states(ids), ids, list(weights), exit_positions, torch.Generator().manual_seed(5)
    )
    expected = aggregated_loss(losses, weights)
    expected.backward()
    expected_gradients = gradients(parts)
    parts.model.zero_grad()
    loss, by_layer = exit_loss(
        parts,
        parts.hidden_states(ids),
        ids,
        weights,
        exit_positions,
        generator=torch.Generator().manual_seed(5),
    )
    (3 * loss).backward()  # a Trainer scales it
    torch.testing.assert_close(loss, expected)
    assert by_layer == pytest.approx({layer: value.item() for layer, value in losses.items()}, rel=1e-5)
    for ours, theirs in zip(gradients(parts), expected_gradients, strict=True):
        torch.testing.assert_close(ours / 3, theirs, rtol=1e-3, atol=1e-6 + 1e-4 * theirs.abs().max().item())


def test_plain_fine_tuning_is_the_models_own_loss(parts, ids):
    loss, by_layer = exit_loss(parts, parts.hidden_states(ids), ids, {12: 1.0}, exit_positions=0.25)
    torch.testing.assert_close(loss, parts.model(ids, labels=ids).loss)
    assert list(by_layer) == [12]


@torch.no_grad()
def test_autocast_leaves_the_sum_of_the_losses_in_float32(parts, ids, states):
    weights = loss_weights(12)
    with torch.autocast("cpu", torch.bfloat16):
        loss, by_layer = exit_loss(parts, states, ids, weights)
    assert loss.dtype == torch.float32
    expected = sum(weights[layer] * value for layer, value in by_layer.items())
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # bfloat16 would keep two or three digits


@torch.no_grad()
def test_drawn_exits_are_an_unbiased_estimate(parts, ids, states, monkeypatch):
    """Over all draws of one exit, weighted by their probability, the loss is the full sum."""
    weights = {4: 0.5, 6: 0.3, 10: 0.1, 12: 0.1}
    full, _ = exit_loss(parts, states, ids, weights)
    expectation = 0.0
    for index, layer in enumerate([4, 6, 10]):
        monkeypatch.setattr(torch, "multinomial", lambda *_, index=index, **__: torch.tensor([index]))
        one, by_layer = exit_loss(parts, states, ids, weights, exits_per_step=1)
        assert list(by_layer) == [layer, 12]
        expectation += weights[layer] / 0.9 * one.item()
    assert expectation == pytest.approx(full.item(), rel=1e-5)


@torch.no_grad()
def test_an_exit_drawn_twice_counts_twice(parts, ids, states, monkeypatch):
    weights = {4: 0.5, 6: 0.4, 12: 0.1}
    losses = {layer: loss.item() for layer, loss in layer_losses(parts, states, ids, list(weights)).items()}
    for drawn, expected in (([0, 0], 0.9 * losses[4]), ([1, 0], 0.45 * (losses[4] + losses[6]))):
        monkeypatch.setattr(torch, "multinomial", lambda *_, drawn=drawn, **__: torch.tensor(drawn))
        loss, _ = exit_loss(parts, states, ids, weights, exits_per_step=2)
        assert loss.item() == pytest.approx(expected + 0.1 * losses[12], rel=1e-5)


@torch.no_grad()
def test_a_shortlist_of_all_tokens_is_the_whole_softmax(parts, ids, states):
    weights = loss_weights(12)
    full, _ = exit_loss(parts, states, ids, weights)
    lists = Shortlists(torch.tensor([5, 9]), VOCABULARY, VOCABULARY)
    drawn, _ = exit_loss(parts, states, ids, weights, generator=torch.Generator(), shortlists=lists)
    torch.testing.assert_close(drawn, full)


def test_a_shortlists_normaliser_is_right_in_expectation():
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lists, generator = Shortlists(torch.tensor([0, 1, 2]), 40, 6), torch.Generator().manual_seed(1)
    sums = []
    for _ in range(4000):
        chosen, corrections = lists.draw(torch.tensor([7, 7]), generator)
        assert {0, 1, 2, 7} <= set(chosen.tolist()) and len(chosen) == 10
        sums.append((logits[chosen] + corrections).exp().sum())
    sums = torch.stack(sums)
    assert abs(sums.mean() - logits.exp().sum()) < 4 * sums.std() / len(sums) ** 0.5


def test_shallow_steps_keep_every_layers_weight_in_expectation():
    weights, generator = loss_weights(12), torch.Generator().manual_seed(0)  # exits 4, 6 | 10 of 12
    counts = dict.fromkeys(weights, 0.0)
    for _ in range(4000):
        layers, taken = step_weights(weights, 12, 0.5, generator)
        assert layers == max(taken)
        for layer, weight in taken.items():
            counts[layer] += weight / 4000
    assert counts == pytest.approx(weights, rel=0.05)
    assert step_weights({12: 1.0}, 12, 0.5, generator) == (12, {12: 1.0})


@pytest.mark.parametrize("shortlist", [False, True])
def test_distilled_layers_learn_the_last_layers_distribution(parts, ids, states, shortlist):
    taught = parts.logits(states[-1][:, :-1]).float().softmax(-1).detach()
    student = parts.logits(states[3][:, :-1]).float().log_softmax(-1)
    expected = -(taught * student).sum(-1).mean()
    # A shortlist that holds everything changes nothing.
    shortlists = Shortlists(torch.arange(VOCABULARY), VOCABULARY, 0) if shortlist else None
    _, losses = exit_loss(parts, states, ids, {4: 0.5, 12: 0.5}, distilled=True, shortlists=shortlists)
    assert losses[4] == pytest.approx(expected.item(), rel=1e-5)
    assert losses[12] == pytest.approx(layer_losses(parts, states, ids, [12])[12].item(), rel=1e-5)


def test_a_distilled_loss_sends_no_gradient_to_the_last_layer(parts, ids, states):
    leaves = [state.clone().requires_grad_() for state in states]
    loss, _ = exit_loss(parts, leaves, ids, {4: 1.0}, distilled=True)
    assert len(leaves) == parts.total_layers and leaves[-1].grad is None
    loss.backward()
    student = states[3].clone().requires_grad_()
    with torch.no_grad():
        taught = parts.logits(states[-1][:, :-1]).softmax(-1)
    (-(taught * parts.logits(student[:, :-1]).log_softmax(-1)).sum(-1).mean()).backward()
    assert leaves[-1].grad is None
    torch.testing.assert_close(leaves[3].grad, student.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"exits_per_step": 2}, {"distilled": True}, {"shortlist": 10}])
@pytest.mark.parametrize("exit_positions", [1.0, 0.3])
def test_the_parts_of_a_batch_have_its_loss_and_gradient_in_the_mean(parts, ids, settings, exit_positions):
    weights = {4: 0.3, 6: 0.3, 10: 0.2, 12: 0.2}

    def computed(batch: torch.Tensor, part: tuple[int, int]) -> tuple[float, pd.Series, torch.Tensor]:
        options = dict(settings)
        if shortlist := options.pop("shortlist", None):
            needed = torch.bincount(ids[:, 1:].flatten(), minlength=VOCABULARY)  # by all processes together
            options["shortlists"] = Shortlists(torch.arange(5), VOCABULARY, shortlist, lambda _: needed)
        states, generator = parts.hidden_states(batch), torch.Generator().manual_seed(3)
        loss, by_layer = exit_loss(
            parts, states, batch, weights, exit_positions, generator=generator, part=part, **options
        )
        parts.model.zero_grad()
        loss.backward()
        return loss.item(), pd.Series(by_layer), parts.head.weight.grad.clone()

    whole = computed(ids, (0, 1))
    halves = [computed(half, (i, 2)) for i, half in enumerate(ids.chunk(2))]
    parts.model.zero_grad()
    loss, by_layer, gradient = ((one + other) / 2 for one, other in zip(*halves, strict=True))
    assert loss == pytest.approx(whole[0], rel=1e-5)
    pd.testing.assert_series_equal(by_layer, whole[1], rtol=1e-5)
    torch.testing.assert_close(gradient, whole[2], rtol=1e-4, atol=1e-6)
