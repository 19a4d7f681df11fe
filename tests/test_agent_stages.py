"""What notebooks 04 to 07 compute from agents, rollouts and measurements, by hand."""

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
from eelib.decoding.criteria import FixedLayer
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.sweep import Setting
from eelib.pipeline import agents, caching, fixed_exits, frontier, intervals, observations, overhead, results
from eelib.pipeline.frontier import probabilities
from eelib.report import chapter6_results
from eelib.rl.rollouts import Rollouts


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


def test_an_agent_that_never_leaves_early_breaks_no_promise(monkeypatch):
    """One prompt of four tokens at 4, 6 and 10 of 12, right from 4 on, from 6 on, only at 10, nowhere."""
    correct = np.array([[[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]], bool)
    recorded = rollouts(np.zeros((1, 4, 3, 2), np.float32))
    recorded = replace(recorded, predictions=np.where(correct, 7, 3))
    leaves = np.array([[[0.8, 0, 0], [0.8, 0, 0], [0, 0, 0.95], [0, 0, 0]]])
    never = np.zeros_like(leaves)
    monkeypatch.setattr(frontier, "unseen", lambda *_: recorded)
    monkeypatch.setattr(frontier, "agent_scores", lambda *_: [leaves, never])
    thresholds = SimpleNamespace(thresholds=[0.5, 0.9, 0.99])
    study = SimpleNamespace(profile=SimpleNamespace(evaluation=thresholds))
    frame = frontier.calibration_frame(study, "model", "java")
    # At 0.5 one agent's first three tokens leave and two are right; at 0.9 the third alone; then none of either agent.
    assert frame["early"].tolist() == [3 / 8, 1 / 8, 0]
    assert frame["agreement_early"].tolist()[:2] == [2 / 3, 1]
    assert np.isnan(frame["agreement_early"].iloc[2])
    assert (frame["kept"].sum(), frame["kept"].count()) == (2, 2)


def test_the_layer_of_table_5_1_attends_to_the_profiles_context(parts, monkeypatch, tmp_path):
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
    measured.to_parquet(tmp_path / "costs.parquet")
    monkeypatch.setattr(observations, "observation_cost", lambda *_: SimpleNamespace(path=tmp_path))
    study = SimpleNamespace(profile=SimpleNamespace(context=SimpleNamespace(max_tokens=17)))
    table = observations.observation_frame(study, "model", "java").set_index("observation")
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


def test_all_decisions_of_figure_6_13_but_the_agents_own_end_in_a_softmax(parts, monkeypatch):
    shapes = [(8, parts.width), (2, 8)]
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes]
    policy = ExitPolicy(weights, [torch.ones(8), torch.tensor([0.5, -0.5])], "fingerprint")
    monkeypatch.setattr(overhead, "policy_of", lambda *_: policy)
    study = SimpleNamespace(dtype=torch.float32)
    with torch.inference_mode():
        states = torch.randn(50, 1, parts.width, generator=torch.Generator().manual_seed(0))
        ran, said = {}, {}
        for name, decide in overhead.decision_methods(parts, study, "model", "java").items():
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
    ("timed", "drawn"),
    [
        ([0.2, 0.6], {0.2: [0.2], 0.6: [0.5]}),
        ([0.2, 0.3, 0.5, 0.6], {0.2: [0.2], 0.5: [0.5]}),
        ([0.3], {0.3: [0.2, 0.5]}),
    ],
)
def test_figure_6_12_is_drawn_at_the_thesiss_contexts_or_the_nearest(timed, drawn):
    profile = SimpleNamespace(evaluation=SimpleNamespace(timed_fractions=timed))
    assert overhead.thesis_contexts(SimpleNamespace(profile=profile)) == drawn


def test_overhead_has_one_energy_window_a_setting(parts, prompts, monkeypatch, tmp_path):
    """Two samples and six settings: twelve windows for time, then six for energy, each over both samples."""
    samples = [Sample(f"file {i}", prompts[i], []) for i in (0, 2)]
    early = Setting("agent", FixedLayer(6), 0.9, 0)
    monitor = ReplayMonitor([(1.0, np.nan)] * 12 + [(2.0, float(place)) for place in range(6)])
    for name, value in {
        "load_kind": (parts, SimpleNamespace(eos_token_id=None)),
        "chosen_samples": (samples, 0),
        "policy_of": ExitPolicy([torch.zeros(2, parts.width)], [torch.zeros(2)], "fingerprint"),
        "agent_settings": [early],
        "decoding_stage": None,
    }.items():
        monkeypatch.setattr(overhead, name, lambda *_, value=value: value)
    monkeypatch.setattr(results, "EnergyMonitor", lambda: monitor)
    study = SimpleNamespace(
        profile=SimpleNamespace(
            evaluation=SimpleNamespace(timing_samples=2, timing_repeats=1),
            context=SimpleNamespace(new_tokens=3),
        ),
        stage=lambda stage, notebook, measure, timed: measure(tmp_path),
    )
    overhead.overhead(study, "model", "java", 0.2)
    rows = pd.read_parquet(tmp_path / "overhead.parquet")
    assert rows["criterion"].tolist() == ["full", "never", "full", "never", "agent", "scripted"] * 2
    assert rows["joules"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5] * 2
    # Each of three tokens is decided at 4 and at 6.
    assert rows.loc[rows["threshold"] == 0.9, "decisions"].tolist() == [6, 6, 6, 6]
    assert rows.loc[rows["threshold"].isna(), "decisions"].isna().all()


def evaluated(monkeypatch, tmp_path, seeds: int) -> pd.DataFrame:
    """`evaluation_frame` of one sample: the full model, and agents of which the second leaves later than the first."""
    monkeypatch.setattr(results, "load_config", lambda name: None)
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
    monkeypatch.setattr(results, "evaluation_rows", lambda *_: rows)
    timed = rows[rows["seed"] < 1].assign(seconds=[9.0, 3.0], joules=np.nan, tokens=1)
    timed.to_parquet(tmp_path / "timings.parquet")
    monkeypatch.setattr(results, "evaluation_timings", lambda *_: SimpleNamespace(path=tmp_path))
    evaluation = SimpleNamespace(timed_fractions=[0.2])
    profile = SimpleNamespace(evaluation=evaluation, context=SimpleNamespace(new_tokens=1))
    return results.evaluation_frame(SimpleNamespace(profile=profile), "model", "python", 0.2)


def test_scores_of_all_agents_beside_times_of_the_first_say_so(monkeypatch, tmp_path):
    frame = evaluated(monkeypatch, tmp_path, seeds=2)
    by = frame.set_index("label")
    assert by.loc["0.9", ["mean_layers", "time_s", "agents", "timed_agents"]].tolist() == [5, 3, 2, 1]
    assert by.loc[["full", "full_cached"], ["agents", "timed_agents"]].isna().all(axis=None)
    curves = caching.tradeoff_frame(frame)["criterion"].tolist()
    assert curves == ["full", "agent, uncached (scores: mean of 2 agents, time: the first's)"]
    said = chapter6_results.results_by_threshold(frame).axes[0].get_xlabel()
    assert "means over 2 agents" in said and "the first agent's" in said


def test_where_the_only_agent_was_timed_nothing_is_said(monkeypatch, tmp_path):
    frame = evaluated(monkeypatch, tmp_path, seeds=1)
    assert caching.tradeoff_frame(frame)["criterion"].tolist() == ["full", "agent, uncached"]
    assert chapter6_results.results_by_threshold(frame).axes[0].get_xlabel() == ""


def test_optimal_exits_are_counted_over_tokens_and_over_all_agents_decisions(monkeypatch, tmp_path):
    """Four tokens with the optimal exits 4, 6, 6 and 12, and two agents' logs of two episodes each."""
    correct = np.array([[[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]]], bool)
    recorded = replace(rollouts(np.zeros((1, 4, 3, 2), np.float32)), predictions=np.where(correct, 7, 3))
    met = pd.DataFrame(
        {f"optimal_{layer}": [count, 0] for layer, count in ((4, 1), (6, 4), (10, 0), (12, 3))}
    )
    met.to_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr(agents, "rollouts", lambda *_: None)
    monkeypatch.setattr(agents, "read_rollouts", lambda _: recorded)
    monkeypatch.setattr(agents, "agents", lambda *_: [(s, SimpleNamespace(path=tmp_path)) for s in (0, 1)])
    frame = agents.optimal_exit_frame(SimpleNamespace(settings=[("model", "java")]))
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
    table = fixed_exits.kinds_frame(pd.DataFrame(rows).assign(model="model", language="java"))
    assert table["layer"].tolist() == [4, 4, 8, 8] and set(table["kind"]) == {"plain", "aggregated"}
    plain, aggregated = (table[table["kind"] == kind].iloc[0] for kind in ("plain", "aggregated"))
    assert plain[["accuracy", "low", "high"]].tolist() == pytest.approx([0.4, 0.2, 0.6])
    assert plain[["over_plain", "over_plain_low", "over_plain_high"]].tolist() == [0, 0, 0]
    over = aggregated[["over_plain", "over_plain_low", "over_plain_high"]].tolist()
    assert over == pytest.approx([0.1, 0.0, 0.2]) and aggregated[["samples", "projects"]].tolist() == [4, 2]


def test_intervals_are_over_projects_by_hand(monkeypatch):
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
    monkeypatch.setattr(intervals, "evaluation_rows", lambda *_: rows)
    monkeypatch.setattr(intervals, "projects_of", lambda *_: {"x": "p", "y": "p", "z": "q"})
    table = intervals.interval_frame(None, "model", "java", 0.2).set_index(["label", "score"])
    right, depth = table.loc[("full", "token_accuracy")], table.loc[("0.9", "mean_layers")]
    assert right[["mean", "low", "high", "projects"]].tolist() == pytest.approx([1 / 3, 0, 1, 2])
    assert depth[["mean", "over_full", "over_full_low", "over_full_high"]].tolist() == [4, -4, -4, -4]
