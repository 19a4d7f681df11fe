"""Rollouts: recorded states are the model's own, and correctness and optimal exits are as by hand."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from gymnasium.utils.env_checker import check_env as gymnasium_check

from eelib.errors import InputError
from eelib.models.parts import take_apart
from eelib.rl.env import EarlyExitEnv
from eelib.rl.reward import RewardCoefficients
from eelib.rl.rollouts import LiveEpisodes, Rollouts, load_rollouts, optimal_index, record, record_prefixes

NEW = 5


@pytest.fixture(scope="module")
def rollouts(parts, prompts):
    return record(parts, prompts, NEW)


def tiny(**changes) -> Rollouts:
    """Two prompts, two tokens, exit points 4, 6, 10 of 12 layers."""
    arrays = {
        "states": np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2),
        "predictions": np.array([[[7, 7, 7], [1, 7, 2]], [[1, 2, 3], [9, 4, 9]]]),
        "confidences": np.full((2, 2, 3), 0.5, np.float32),
        "last": np.array([[7, 2], [5, 9]]),
    }
    return Rollouts(**(arrays | changes), exit_points=[4, 6, 10], total_layers=12)


def test_shapes_and_dtypes(parts, prompts, rollouts):
    shape = (len(prompts), NEW, len(parts.exit_points))
    assert rollouts.states.shape == (*shape, parts.width) and rollouts.states.dtype == np.float32
    assert rollouts.predictions.shape == shape and rollouts.predictions.dtype == np.int64
    assert rollouts.last.shape == shape[:2] and rollouts.last.dtype == np.int64
    assert (rollouts.exit_points, rollouts.total_layers) == ([4, 6, 10], 12)
    assert len(rollouts) == len(prompts)


@torch.no_grad()
def test_recorded_states_are_the_models_before_the_final_norm(parts, prompts, rollouts):
    for index, prompt in enumerate(prompts):
        sequence = torch.tensor([[*prompt, *rollouts.last[index, :-1].tolist()]])
        states = parts.hidden_states(sequence)
        for column, layer in enumerate(parts.exit_points):
            expected = states[layer - 1][0, len(prompt) - 1 :]  # the positions that predict the new tokens
            recorded = torch.from_numpy(rollouts.states[index, :, column])
            torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=1e-4)
            assert not torch.allclose(recorded, parts._norm(expected), atol=1e-2)
            torch.testing.assert_close(
                torch.from_numpy(rollouts.predictions[index, :, column]), parts.logits(expected).argmax(-1)
            )
        torch.testing.assert_close(
            torch.from_numpy(rollouts.last[index]), parts.logits(states[-1][0, len(prompt) - 1 :]).argmax(-1)
        )


def test_the_last_tokens_are_the_full_models(parts, prompts, rollouts):
    for index in (0, 2):
        theirs = parts.model.generate(
            torch.tensor([prompts[index]]),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=2,
        )
        assert rollouts.last[index].tolist() == theirs[0, len(prompts[index]) :].tolist()


def rounding(rollouts) -> float:
    """What float32 may lose by another order of sums: a part of the states' size, not of the entry that is near 0."""
    return 5e-5 * float(rollouts.states.std())


def test_recording_in_batches_changes_nothing(parts, prompts, rollouts):
    pairs = record(parts, prompts, NEW, batch_size=4)  # four, then two
    np.testing.assert_array_equal(pairs.last, rollouts.last)
    np.testing.assert_array_equal(pairs.predictions, rollouts.predictions)
    np.testing.assert_allclose(pairs.states, rollouts.states, rtol=1e-4, atol=rounding(rollouts))


def test_states_of_a_half_precision_model_are_float32(prompts):
    parts = take_apart(tiny_model("llama-pico", 8).bfloat16())
    assert record(parts, prompts[:2], 2).states.dtype == np.float32


def test_correct_and_optimal_exits_by_hand():
    rollouts = tiny()
    expected = [[[1, 1, 1], [0, 0, 1]], [[0, 0, 0], [1, 0, 1]]]
    assert rollouts.correct.astype(int).tolist() == expected
    # No exit point predicts the last layer's token: the last layer itself. Right, wrong, right: the first.
    assert rollouts.optimal_exits.tolist() == [[4, 10], [12, 4]]
    assert optimal_index(np.array([[False, True, True], [False, False, False]])).tolist() == [1, 3]


def test_an_episode_is_a_prompts_slice():
    rollouts = tiny()
    episode = rollouts.episode(1)
    np.testing.assert_array_equal(episode.states, rollouts.states[1])
    np.testing.assert_array_equal(episode.predictions, rollouts.predictions[1])
    np.testing.assert_array_equal(episode.last, [5, 9])
    rng = np.random.default_rng(0)
    drawn = {rollouts.draw(rng).last[0].item() for _ in range(20)}
    assert drawn == {7, 5}


def test_rollouts_are_saved_and_load(tmp_path, rollouts):
    for number, saved in enumerate([tiny(), rollouts]):
        folder = tmp_path / str(number)
        folder.mkdir()
        saved.save(folder)
        loaded = load_rollouts(folder)
        for name in ("states", "predictions", "confidences", "last"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
            assert getattr(loaded, name).dtype == getattr(saved, name).dtype
        assert (loaded.exit_points, loaded.total_layers) == (saved.exit_points, saved.total_layers)


def test_a_transposed_array_is_saved_as_it_is(tmp_path):
    states = tiny().states.transpose(1, 0, 2, 3)  # not contiguous
    tiny(states=states).save(tmp_path)
    np.testing.assert_array_equal(load_rollouts(tmp_path).states, states)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_states_may_be_recorded_to_disk_and_stay_there(tmp_path, parts, prompts, rollouts, dtype):
    recorded = record(parts, prompts, NEW, batch_size=4, dtype=dtype, folder=tmp_path)
    recorded.save(tmp_path)
    loaded = load_rollouts(tmp_path)
    assert isinstance(loaded.states, np.memmap) and loaded.states.dtype == dtype
    np.testing.assert_allclose(
        loaded.states, rollouts.states, rtol=1e-3, atol=0.05 if dtype == "float16" else rounding(rollouts)
    )
    np.testing.assert_array_equal(loaded.predictions, rollouts.predictions)
    mean, deviation = loaded.moments()
    flat = loaded.states.astype(np.float64).reshape(-1, parts.width)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(deviation, flat.std(0), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_confidence_is_the_softmax_of_what_the_exit_point_says(parts, rollouts):
    states = torch.from_numpy(rollouts.states)
    expected = parts.logits(states).softmax(-1).amax(-1)
    torch.testing.assert_close(torch.from_numpy(rollouts.confidences), expected, rtol=1e-3, atol=1e-5)


def test_live_episodes_are_what_would_have_been_recorded(parts, prompts, rollouts):
    source = LiveEpisodes(parts, lambda rng: prompts[rng.integers(len(prompts))], NEW)
    live, recorded = source.draw(np.random.default_rng(3)), rollouts.draw(np.random.default_rng(3))
    np.testing.assert_array_equal(live.last, recorded.last)
    np.testing.assert_array_equal(live.predictions, recorded.predictions)
    np.testing.assert_allclose(live.states, recorded.states, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m(in|ax)imum value is -?infinity.*:UserWarning")
def test_the_environment_takes_live_episodes(parts, prompts):
    source = LiveEpisodes(parts, lambda rng: prompts[rng.integers(2)], NEW)
    coefficients = RewardCoefficients(alpha=0.5, beta=0.75, gamma=0.6, epsilon=0.1)
    gymnasium_check(EarlyExitEnv(source, parts.width, coefficients), skip_render_check=True)


def test_states_too_large_for_their_format_are_one_sentence(prompts):
    model = tiny_model("llama-pico", 8)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(
            1e6
        )  # the norms take it out of everything but the recorded states
    record(take_apart(model), prompts, NEW)
    with pytest.raises(InputError, match="too large for float16"):
        record(take_apart(model), prompts, NEW, dtype="float16")


def test_loading_does_not_go_through_the_states(tmp_path):
    """They were looked at when they were recorded; a file of gigabytes is not read to be opened."""
    tiny(states=np.full((2, 2, 3, 2), math.nan, np.float32)).save(tmp_path)
    assert np.isnan(load_rollouts(tmp_path).states).all()


def test_no_prompts_are_one_sentence(parts):
    with pytest.raises(InputError, match="There are no rollouts"):
        record(parts, [], NEW)


def test_a_broken_model_is_one_sentence(prompts):
    model = tiny_model("llama-pico", 8)
    with torch.no_grad():
        model.model.layers[5].mlp.down_proj.weight.fill_(math.nan)  # after the only exit point
    with pytest.raises(InputError, match="NaN"):
        record(take_apart(model), prompts, NEW)


# --- along real text ---


@torch.no_grad()
def test_positions_of_real_text_are_recorded_as_a_rollout_would(parts):
    """Windows of 23 ids, episodes of 5 tokens: two episodes, the last ten positions."""
    windows = torch.arange(3 * 23).view(3, 23) % 60 + 3
    recorded = record_prefixes(parts, windows.tolist(), 5, batch_size=2)
    states = parts.hidden_states(windows)
    assert recorded.states.shape == (6, 5, len(parts.exit_points), parts.width)
    for place, layer in enumerate(parts.exit_points):
        expected = states[layer - 1][:, 13:].reshape(6, 5, -1)
        torch.testing.assert_close(
            torch.from_numpy(recorded.states[:, :, place]), expected, rtol=1e-4, atol=1e-4
        )
        probabilities = parts.logits(expected).softmax(-1)
        assert np.array_equal(recorded.predictions[:, :, place], probabilities.argmax(-1))
        np.testing.assert_allclose(recorded.confidences[:, :, place], probabilities.amax(-1), rtol=1e-4)
    assert np.array_equal(recorded.last, parts.logits(states[-1][:, 13:]).argmax(-1).view(6, 5))


@pytest.mark.parametrize("windows", [[], [[5] * 9]])
def test_windows_too_short_for_an_episode_are_refused(parts, windows):
    with pytest.raises(InputError, match="at least one window of 10 tokens"):
        record_prefixes(parts, windows, 5)


def test_joined_rollouts_hold_the_prompts_of_both():
    both = tiny().joined(tiny(last=np.array([[1, 1], [1, 1]])))
    assert len(both) == 4 and both.stops.tolist() == [4, 6, 10, 12]
    assert both.last.tolist() == [[7, 2], [5, 9], [1, 1], [1, 1]]
    assert np.array_equal(both.first(2).states, tiny().states)
