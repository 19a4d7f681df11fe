"""The frames behind the exhibits of notebooks 03 to 07, by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from replay import ReplayMonitor
from torch.utils._python_dispatch import TorchDispatchMode

from eelib.data.samples import Sample
from eelib.decoding.cache import KeyValueCache
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation import observations, overhead, results, timed
from eelib.evaluation.caching import tradeoff_frame
from eelib.evaluation.intervals import interval_frame
from eelib.evaluation.layers import kinds_frame
from eelib.evaluation.offline import calibration_frame, probabilities
from eelib.evaluation.predict import CACHES
from eelib.models.loading import CodeModel
from eelib.profile import Context
from eelib.report import chapter6_results
from eelib.rl.rollouts import Rollouts
from eelib.rl.trained import optimal_exits


def rollouts(states: np.ndarray) -> Rollouts:
    """Of a model with exit points 4, 6 and 10 of 12 layers, right everywhere."""
    shape = states.shape[:-1]
    return Rollouts(
        states=states,
        predictions=np.full(shape, 7),
        confidences=np.zeros(shape, np.float32),
        last=np.full(shape[:2], 7),
        exit_points=[4, 6, 10],
        total_layers=12,
    )


def test_a_policy_on_the_cpu_is_asked_there_on_a_machine_with_a_gpu(monkeypatch):
    """Notebook 04's variants load theirs there, while the model decodes on the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    policy = ExitPolicy([torch.tensor([[0.0, 0.0], [1.0, 0.0]])], [torch.zeros(2)], "fingerprint")
    states = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32)
    found = probabilities(rollouts(states), policy, temperature=2.0)
    # A single layer, whose margin is the first coordinate.
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-states[..., 0] / 2)), rtol=1e-5)


def test_an_agent_that_never_leaves_early_breaks_no_promise():
    """One prompt of four tokens at 4, 6 and 10 of 12, right from 4 on, from 6 on, only at 10, nowhere."""
    correct = np.array([[[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]], bool)
    recorded = rollouts(np.zeros((1, 4, 3, 2), np.float32))
    recorded = replace(recorded, predictions=np.where(correct, 7, 3))
    leaves = np.array([[[0.8, 0, 0], [0.8, 0, 0], [0, 0, 0.95], [0, 0, 0]]])
    never = np.zeros_like(leaves)
    frame = calibration_frame(recorded, [leaves, never], [0.5, 0.9, 0.99])
    # At 0.5 one agent's first three tokens leave and two are right; at 0.9 the third alone; then none of either agent.
    assert frame["early"].tolist() == [3 / 8, 1 / 8, 0]
    assert frame["agreement_early"].tolist()[:2] == [2 / 3, 1]
    assert np.isnan(frame["agreement_early"].iloc[2])
    assert (frame["kept"].sum(), frame["kept"].count()) == (2, 2)


def test_the_layer_of_table_5_1_attends_to_the_profiles_context(parts, monkeypatch):
    attended = []
    update = KeyValueCache.update

    def spy(self, keys, values, layer):
        held = update(self, keys, values, layer)
        attended.append(held[0].shape[2])
        return held

    monkeypatch.setattr(KeyValueCache, "update", spy)
    with torch.inference_mode():
        layer = observations.candidates(parts, 17)[observations.LAYER]
        for _ in range(2):
            layer(torch.zeros(1, parts.width))
    assert attended == [18, 18]  # and its own
    rows = {"Hidden State of current layer": 1.0, "Confidence": 7.0, observations.LAYER: 3.0}
    measured = pd.DataFrame({"method": rows.keys(), "microseconds": rows.values(), "joules": np.nan})
    printed = pd.DataFrame({"observation": ["Confidence"]})
    table = observations.observation_frame(measured, printed, 17).set_index("observation")
    assert table.loc["Confidence", "of_a_layer"] == pytest.approx(3.0)  # (7 - 1) / (3 - 1)
    assert set(table["cached_positions"]) == {17}


class Operations(TorchDispatchMode):
    """Names of torch's operations that ran."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*arguments, **(keywords or {}))


def test_all_decisions_of_figure_6_13_but_the_agents_own_end_in_a_softmax(parts):
    shapes = [(8, parts.width), (2, 8)]
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]
    policy = ExitPolicy(weights, [torch.ones(8), torch.tensor([0.5, -0.5])], "fingerprint")
    with torch.inference_mode():
        states = torch.randn(50, 1, parts.width, generator=torch.Generator().manual_seed(0))
        ran, said = {}, {}
        for name, decide in overhead.decision_methods(parts, policy).items():
            with Operations() as operations:
                said[name] = [decide(state) for state in states]
            ran[name] = operations.names
        with_softmax = [
            name
            for name, operations in ran.items()
            if any("softmax" in operation for operation in operations)
        ]
        assert with_softmax == ["agent with softmax", "linear classifier", "norm + head + softmax"]
        # The thesis's decision: Listing 4's network, a softmax, and a comparison with the threshold.
        logits = torch.tanh(states[:, 0] @ weights[0].T + 1) @ weights[1].T + policy.biases[1]
        assert said["agent with softmax"] == (logits.softmax(-1)[:, 1] > 0.9).tolist()
    assert len(set(said["agent with softmax"])) == 2


@pytest.mark.parametrize(
    ("measured", "drawn"),
    [
        ([0.2, 0.6], {0.2: [0.2], 0.6: [0.5]}),
        ([0.2, 0.3, 0.5, 0.6], {0.2: [0.2], 0.5: [0.5]}),
        ([0.3], {0.3: [0.2, 0.5]}),
    ],
)
def test_figure_6_12_is_drawn_at_the_thesiss_contexts_or_the_nearest(measured, drawn):
    assert overhead.thesis_contexts(measured) == drawn


def test_a_setting_is_timed_in_one_go(parts, prompts, monkeypatch):
    """Two samples, and at one threshold fourteen ways: both models twice, an agent without and with every cache, two replays of it."""
    samples = [Sample(f"file {i}", prompts[i], []) for i in (0, 2)]
    monkeypatch.setattr(timed, "test_samples", lambda *_: (samples, 0))
    ways = 4 + 1 + len(CACHES) + 1 + 1
    monitor = ReplayMonitor([(1.0, np.nan)] * (2 * ways) + [(2.0, float(place)) for place in range(ways)])
    monkeypatch.setattr(timed, "EnergyMonitor", lambda: monitor)
    # Leaves at every exit point: at the first.
    policy = ExitPolicy([torch.zeros(2, parts.width)], [torch.tensor([0.0, 9.0])], "fingerprint")
    model = CodeModel(parts, SimpleNamespace(eos_token_id=None))
    rows = timed.setting_timings(model, model, [], policy, [0.9], 1.0, 0.2, 2, 1, Context(64, 3))
    first = rows[rows["sample"] == "file 0"]
    assert first["kind"].tolist() == ["base", "aggregated"] * 2 + ["aggregated"] * (ways - 4)
    assert first["criterion"].tolist() == ["full"] * 4 + ["agent"] * (1 + len(CACHES)) + ["never", "scripted"]
    assert first["cache"].tolist()[:5] == ["none", "none", "propagate", "propagate", "none"]
    assert sorted(first["cache"][5:-2]) == sorted(mode.value for mode in CACHES)
    assert set(first["cache"][-2:]) == {"propagate"}
    assert rows["joules"].tolist() == [place / 2 for place in range(ways)] * 2
    # Each of three tokens is decided once, and its trace says so.
    traced = rows["criterion"].isin(["agent", "scripted"]) & (rows["cache"] == "propagate")
    assert rows.loc[traced, "decisions"].tolist() == [3.0] * 4
    assert rows.loc[~traced, "decisions"].isna().all()


def test_an_agents_share_of_time_and_energy_by_hand():
    """Without a cache the full model takes 10 s and the agent 6 s; with one 2 s, 1.5 s, and 1 s along the exits without it."""
    rows = pd.DataFrame(
        [
            ("base", "full", np.nan, "none", 9.0, 20.0, None),
            ("base", "full", np.nan, "propagate", 2.2, 20.0, None),
            ("aggregated", "full", np.nan, "none", 10.0, 20.0, None),
            ("aggregated", "agent", 0.9, "none", 6.0, 8.0, None),
            ("aggregated", "agent", 0.9, "propagate", 1.5, 8.0, 30),
            ("aggregated", "scripted", 0.9, "propagate", 1.0, 7.0, 30),
            ("aggregated", "full", np.nan, "propagate", 2.0, 4.0, None),
            ("aggregated", "never", np.nan, "propagate", 3.0, 4.0, None),
        ],
        columns=["kind", "criterion", "threshold", "cache", "seconds", "joules", "decisions"],
    ).assign(sample="file", tokens=15, model="m", language="java", context_fraction=0.2)
    alone = pd.DataFrame({"method": ["agent", "linear classifier"], "microseconds": [1e4, 1.0]})
    (row,) = overhead.overhead_frame(rows, alone).to_dict("records")
    expected = {"threshold": 0.9, "windows_of_exit_time": 30 * 1e-2 / 6}
    expected |= {"of_full_time": 0.05, "of_exit_time": 0.5 / 6, "of_cached_full_time": 0.25}
    expected |= {"of_full_energy": 0.05, "of_exit_energy": 1 / 8, "aa_of_full_time": 0.02}
    assert row == pytest.approx(expected)
    (never,) = overhead.never_frame(rows).to_dict("records")
    assert (never["time"], never["energy"]) == pytest.approx((1.5, 1.0))


def test_the_same_work_is_told_apart_by_its_noise_alone():
    """The base takes 2 and 0.5 times as long a token on two prompts: 1 in the geometric mean, and as far as 2 times by chance."""
    rows = pd.DataFrame({"kind": ["base", "aggregated"] * 2, "sample": ["a", "a", "b", "b"]})
    rows = rows.assign(seconds=[4.0, 1.0, 1.0, 2.0], tokens=[10, 5, 5, 5], criterion="full", cache="none")
    rows = rows.assign(model="m", language="java", context_fraction=0.2)
    (row,) = timed.same_work(rows).to_dict("records")
    assert (row["prompts"], row["ratio"]) == (2, pytest.approx(1.0))
    assert (row["low"], row["high"], row["within"]) == pytest.approx((0.5, 2.0, 1.0))
    (single,) = timed.same_work(rows[rows["sample"] == "a"]).to_dict("records")
    assert np.isnan(single["low"]) and single["within"] == pytest.approx(1.0)


def evaluated(monkeypatch, seeds: int) -> pd.DataFrame:
    """`evaluation_frame` of one sample: the full model, and agents of which the second leaves later than the first."""
    monkeypatch.setattr(results, "_cached_flops", lambda config, rows: 1.0)
    keys = {"kind": "aggregated", "cache": "none", "sample": "file"}
    settings = [("full", np.nan, -1, 12), *[("agent", 0.9, seed, 4 + 2 * seed) for seed in range(seeds)]]
    rows = pd.DataFrame(
        [
            {"criterion": criterion, "threshold": threshold, "seed": seed, "exit_layers": [layer], **keys}
            for criterion, threshold, seed, layer in settings
        ]
    )
    said = {"prediction": "a = b", "reference": "a = b", "token_accuracy": 1.0, "flops": 6.0}
    rows = rows.assign(agrees=[[True]] * len(rows), **said)
    timed = rows[rows["seed"] < 1].assign(seconds=[9.0, 3.0], joules=np.nan, tokens=1)
    frame = results.evaluation_frame(rows, timed, None, "python")
    return frame.assign(model="model", language="python", context_fraction=0.2)


def test_scores_of_all_agents_beside_times_of_the_first_say_so(monkeypatch):
    frame = evaluated(monkeypatch, seeds=2)
    by = frame.set_index("label")
    assert by.loc["0.9", ["mean_layers", "time_s", "agents", "timed_agents"]].tolist() == [5, 3, 2, 1]
    assert by.loc[["full", "full_cached"], ["agents", "timed_agents"]].isna().all(axis=None)
    curves = tradeoff_frame(frame)["criterion"].tolist()
    assert curves == ["full", "agent, uncached (scores: mean of 2 agents, time: the first's)"]
    said = chapter6_results.results_by_threshold(frame).axes[0].get_xlabel()
    assert "means over 2 agents" in said and "the first agent's" in said


def test_where_the_only_agent_was_timed_nothing_is_said(monkeypatch):
    frame = evaluated(monkeypatch, seeds=1)
    assert tradeoff_frame(frame)["criterion"].tolist() == ["full", "agent, uncached"]
    assert chapter6_results.results_by_threshold(frame).axes[0].get_xlabel() == ""


def test_what_a_threshold_saves_by_hand(monkeypatch):
    """The full model takes 12 layers and 9 s, uncached; the agent 4 layers and 3 s."""
    frame = evaluated(monkeypatch, seeds=1)
    cached = frame["label"] == "full_cached"
    frame["time_s"] = frame["time_s"].where(~cached, 1.5)
    (row,) = results.savings(frame).to_dict("records")
    assert row == pytest.approx(
        {
            "threshold": "0.9",
            "layers_saved": 2 / 3,
            "time_saved": 2 / 3,
            "rouge_l_lost": 0.0,
            "time_over_cached_full": 2.0,
            "agents": 1,
            "timed_agents": 1,
        }
    )


def test_optimal_exits_are_counted_over_tokens_and_over_all_agents_decisions():
    """Four tokens with the optimal exits 4, 6, 6 and 12, and two agents' logs of two episodes each."""
    correct = np.array([[[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]]], bool)
    recorded = replace(rollouts(np.zeros((1, 4, 3, 2), np.float32)), predictions=np.where(correct, 7, 3))
    met = pd.DataFrame(
        {f"optimal_{layer}": [count, 0] for layer, count in ((4, 1), (6, 4), (10, 0), (12, 3))}
    )
    frame = optimal_exits(recorded, [met, met])
    assert frame["layer"].tolist() == [4, 6, 10, 12]
    assert frame["tokens"].tolist() == [1, 2, 0, 1]
    assert frame["decisions"].tolist() == [2, 8, 0, 6]


def test_kinds_are_compared_over_projects_by_hand():
    """Two projects of two files each; the aggregated model is right twice as often as the plain one in the first alone."""
    rows = [
        {"layer": layer, "sample": sample, "project": project, "kind": kind, "accuracy": accuracy}
        for layer in (4, 8)
        for kind, accuracies in {"plain": [0.2, 0.2, 0.6, 0.6], "aggregated": [0.4, 0.4, 0.6, 0.6]}.items()
        for sample, project, accuracy in zip("wxyz", "aabb", accuracies, strict=True)
    ]
    table = kinds_frame(pd.DataFrame(rows).assign(model="model", language="java"))
    assert table["layer"].tolist() == [4, 4, 8, 8] and set(table["kind"]) == {"plain", "aggregated"}
    plain, aggregated = (table[table["kind"] == kind].iloc[0] for kind in ("plain", "aggregated"))
    assert plain[["accuracy", "low", "high"]].tolist() == pytest.approx([0.4, 0.2, 0.6])
    assert plain[["over_plain", "over_plain_low", "over_plain_high"]].tolist() == [0, 0, 0]
    over = aggregated[["over_plain", "over_plain_low", "over_plain_high"]].tolist()
    assert over == pytest.approx([0.1, 0.0, 0.2]) and aggregated[["samples", "projects"]].tolist() == [4, 2]


def test_intervals_are_over_projects_by_hand():
    """Three files, two of them of one project: the full model's token accuracy is 0 there and 1 in the other project."""
    rows = pd.DataFrame(
        [
            {"kind": "aggregated", "criterion": criterion, "threshold": threshold, "sample": sample}
            | {
                "prediction": "a",
                "reference": "a",
                "token_accuracy": right,
                "agrees": [True],
                "exit_layers": [depth],
            }
            for criterion, threshold, depth in (("full", np.nan, 8), ("agent", 0.9, 4))
            for sample, right in (("x", 0.0), ("y", 0.0), ("z", 1.0))
        ]
    )
    rows["project"] = rows["sample"].map({"x": "p", "y": "p", "z": "q"})
    table = interval_frame(rows, "java").set_index(["label", "score"])
    right, depth = table.loc[("full", "token_accuracy")], table.loc[("0.9", "mean_layers")]
    assert right[["mean", "low", "high", "projects"]].tolist() == pytest.approx([1 / 3, 0, 1, 2])
    assert depth[["mean", "over_full", "over_full_low", "over_full_high"]].tolist() == [4, -4, -4, -4]
