"""Windows of time and energy: how `timings` lays them, and NVML's counter read directly."""

import math
from types import SimpleNamespace

import pynvml
import pytest
import torch
from replay import ReplayMonitor

from eelib.data.samples import Sample
from eelib.decoding.criteria import FixedLayer, FullDepth, Scripted
from eelib.decoding.generate import Generation
from eelib.evaluation import nvml, sweep
from eelib.evaluation.sweep import Setting, summarise_timings, timings

SETTINGS = [Setting("full", FullDepth()), Setting("fixed", FixedLayer(4), 4.0)]


@pytest.fixture
def samples(prompts) -> list[Sample]:
    return [Sample(f"file {i}", prompt, []) for i, prompt in enumerate(prompts[:3])]


def test_nvml_measures_energy_in_one_window_a_setting(parts, samples):
    """Two repeats of three samples in two settings: twelve short windows for time, then one a setting for energy."""
    short = [(1.0 + i, math.nan) for i in range(12)]  # the counter did not advance in any
    rows = timings(
        {"aggregated": parts}, samples, SETTINGS, 2, 2, ReplayMonitor([*short, (60.0, 120.0), (30.0, 30.0)])
    )
    assert rows["seconds"].tolist() == [seconds for seconds, _ in short]
    assert rows["joules"].tolist() == [20.0, 5.0] * 6
    assert set(rows["energy_source"]) == {"nvml"}
    assert summarise_timings(rows)["joules"].tolist() == [60.0, 15.0]  # of one pass over the samples


def test_an_energy_window_lasts_two_seconds_however_short_completions_are(parts, samples, monkeypatch):
    """One pass over three samples takes 0.3 s: seven passes; at 5 s a sample the single repeat is long enough."""
    decoded = []

    def generate(parts, prompt: list[int], *_) -> Generation:
        decoded.append(prompt)
        return Generation([5], [12])

    monkeypatch.setattr(sweep, "generate", generate)
    readings = [(0.1, math.nan), (5.0, math.nan)] * 3 + [(2.1, 42.0), (15.0, 30.0)]
    rows = timings({"aggregated": parts}, samples, SETTINGS, 2, 1, ReplayMonitor(readings))
    assert len(decoded) == 2 + 6 + (7 + 1) * 3  # the first two warm up
    assert rows["joules"].tolist() == [2.0, 10.0] * 3


def test_a_setting_may_have_a_rule_for_each_sample(parts, samples, monkeypatch):
    rules = {sample.id: Scripted([[4, layer]]) for sample, layer in zip(samples, (6, 10, 12), strict=True)}
    seen = []

    def generate(parts, prompt: list[int], new_tokens: int, rule: Scripted, *_) -> Generation:
        seen.append(rule)
        return Generation([5], [12])

    monkeypatch.setattr(sweep, "generate", generate)
    timings(
        {"aggregated": parts},
        samples,
        [Setting("scripted", rules)],
        2,
        1,
        ReplayMonitor([(1.0, 1.0)] * 3, "rapl"),
    )
    assert seen[1:] == list(rules.values())  # after the one that warms up


def test_other_counters_measure_every_completion(parts, samples):
    readings = [(1.0, float(i)) for i in range(1, 7)]
    rows = timings({"aggregated": parts}, samples, SETTINGS, 2, 1, ReplayMonitor(readings, "rapl"))
    assert rows["joules"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    unmeasured = ReplayMonitor([(1.0, math.nan)] * 6, "none")
    assert timings({"aggregated": parts}, samples, SETTINGS, 2, 1, unmeasured)["joules"].isna().all()


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose counter stands at `gpu.millijoules`."""
    state = SimpleNamespace(millijoules=5_000, uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=state.uuid))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fake GPU")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: state.millijoules)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", lambda handle, kind: 100 + kind)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda handle, kind: 40)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 75_500)
    return state


def test_the_counter_is_read_at_both_ends_and_unknown_where_it_stands_still(gpu):
    monitor = nvml.NvmlMonitor(torch.device("cuda"))
    with monitor.measure() as window:
        gpu.millijoules += 2_500
    assert (window.joules, window.source) == (2.5, "nvml") and window.seconds > 0
    with monitor.measure() as window:
        pass
    assert math.isnan(window.joules) and window.source == "none"
    assert "Fake GPU" in monitor.describe()


def test_the_card_is_found_by_its_uuid_and_tells_its_state(gpu):
    assert nvml.handle(torch.device("cuda")) == "GPU-1234"
    gpu.uuid = "GPU-5678"
    assert nvml.handle(torch.device("cuda")) == "GPU-5678"
    assert nvml.card_state(torch.device("cuda")) == {
        "sm_clock_mhz": 100.0 + pynvml.NVML_CLOCK_SM,
        "memory_clock_mhz": 100.0 + pynvml.NVML_CLOCK_MEM,
        "temperature_c": 40.0,
        "power_w": 75.5,
    }
    assert all(math.isnan(value) for value in nvml.card_state(torch.device("cpu")).values())
