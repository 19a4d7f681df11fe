"""Energy without hardware: what a monitor says, waits for and refuses to guess."""

import math
import time

import pynvml
import pytest
import torch
from zeus.monitor import ZeusMonitor
from zeus.monitor.energy import Measurement as ZeusMeasurement

from eelib.errors import InputError
from eelib.evaluation import energy
from eelib.evaluation.energy import EnergyMonitor


class FakeZeus:
    """Counts one device's joules: `step` more every time it is read, and notes what was asked of it."""

    def __init__(self, gpu_indices, cpu_indices, step=5.0):
        self.gpu_indices, self.cpu_indices, self.step = gpu_indices, cpu_indices, step
        self.windows, self.calls, self.reading = {}, [], 0.0

    def begin_window(self, key, sync_execution):
        assert key not in self.windows, "zeus refuses a second open window of the same name"
        self.calls.append(("begin", sync_execution))
        self.windows[key] = self.reading
        self.reading += self.step

    def end_window(self, key, sync_execution, cancel=False):
        self.calls.append(("cancel" if cancel else "end", sync_execution))
        joules = self.reading - self.windows.pop(key)
        if self.cpu_indices:
            return ZeusMeasurement(
                0.0, {}, cpu_energy=dict.fromkeys(self.cpu_indices, joules), dram_energy={0: 1.5}
            )
        return ZeusMeasurement(0.0, dict.fromkeys(self.gpu_indices, joules))


@pytest.fixture
def no_counters(monkeypatch, tmp_path):
    """A machine with neither a GPU nor RAPL, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(energy.rapl, "RAPL_DIR", str(tmp_path / "intel-rapl"))
    monkeypatch.setattr(energy.rapl, "CONTAINER_RAPL_DIR", str(tmp_path / "container"))


@pytest.fixture
def rapl_folder(no_counters, tmp_path):
    """Two packages, and the psys zone that counts both once more."""
    for index, name in enumerate(["psys", "package-0", "package-1"]):
        zone = tmp_path / "intel-rapl" / f"intel-rapl:{index}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text("1000000\n")
    return tmp_path / "intel-rapl"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with an energy counter, of which torch notes every wait."""
    waits = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Test GPU {index}")
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(energy, "_nvml_unavailable", lambda index: None)
    monkeypatch.setattr(energy, "ZeusMonitor", FakeZeus)
    return waits


def test_without_a_counter_time_is_measured_and_energy_is_unknown_not_zero(no_counters):
    monitor = EnergyMonitor()
    with monitor.measure() as measurement:
        assert math.isnan(measurement.seconds)  # nothing to read before the window ends
        time.sleep(0.02)
    assert 0.02 <= measurement.seconds < 5
    assert math.isnan(measurement.joules)
    assert monitor.source == measurement.source == "none"
    assert math.isnan(monitor.idle_power(0.001))


def test_the_missing_counter_is_named(no_counters, tmp_path):
    missing = tmp_path / "intel-rapl"
    reason = f"this machine shows no RAPL counters ({missing} does not exist)"
    assert EnergyMonitor().describe() == f"Energy is not measured (joules are NaN), because {reason}."


def test_this_machine_says_a_sentence():
    monitor = EnergyMonitor()
    assert monitor.describe().startswith("Energy is ") and monitor.describe().endswith(".")


def test_rapl_counts_packages_and_not_psys(rapl_folder, monkeypatch):
    monkeypatch.setattr(energy, "ZeusMonitor", FakeZeus)
    monitor = EnergyMonitor("cpu")
    assert monitor.describe().startswith("Energy is that of 2 CPU package(s), from RAPL's counters")
    with monitor.measure() as measurement:
        pass
    assert (measurement.joules, measurement.source) == (5.0 + 5.0 + 1.5, "rapl")  # two packages and the DRAM


def test_unreadable_rapl_is_named(rapl_folder):
    counter = rapl_folder / "intel-rapl:1" / "energy_uj"
    counter.unlink()
    monitor = EnergyMonitor("cpu")
    assert monitor.source == "none"
    assert f"RAPL's counters cannot be read (No such file or directory: {counter}" in monitor.describe()


def test_rapl_without_a_package_is_named(rapl_folder):
    for zone in rapl_folder.iterdir():
        (zone / "name").write_text("psys\n")
    assert "lists no CPU package" in EnergyMonitor("cpu").describe()


def test_gpu_windows_wait_for_the_gpu_on_both_sides(gpu):
    monitor = EnergyMonitor()
    with monitor.measure() as measurement:
        assert gpu == [torch.device("cuda")]
    assert gpu == [torch.device("cuda")] * 2
    assert (measurement.joules, measurement.source) == (5.0, "nvml")
    assert monitor._zeus.gpu_indices == [1] and monitor._zeus.cpu_indices == []
    assert monitor._zeus.calls == [("begin", False), ("end", False)]
    assert monitor.describe().startswith("Energy is GPU 1's (Test GPU 1), from NVML's counter")


def test_windows_nest_and_follow_each_other(gpu):
    monitor = EnergyMonitor("cuda:0")
    with monitor.measure() as outer:
        with monitor.measure() as first:
            pass
        with monitor.measure() as second:
            pass
    assert (first.joules, second.joules, outer.joules) == (5.0, 5.0, 15.0)
    assert outer.seconds >= first.seconds + second.seconds
    assert not monitor._zeus.windows


def test_a_counter_that_did_not_advance_is_unknown_not_zero(gpu):
    monitor = EnergyMonitor()
    monitor._zeus.step = 0.0
    with monitor.measure() as measurement:
        pass
    assert math.isnan(measurement.joules) and measurement.source == "none"
    assert measurement.seconds > 0


def test_the_warning_of_zeus_about_short_windows_is_the_one_that_is_handled(gpu, monkeypatch):
    """The real ZeusMonitor on a GPU whose counter stands still: the suite would fail on its warning."""

    class StillGpus:
        def supports_get_total_energy_consumption(self, index):
            return True

        def get_total_energy_consumption(self, index):
            return 1000.0

    monkeypatch.setattr("zeus.monitor.energy.get_gpus", StillGpus)
    monkeypatch.setattr(energy, "ZeusMonitor", ZeusMonitor)
    with EnergyMonitor("cuda:0").measure() as measurement:
        pass
    assert math.isnan(measurement.joules) and measurement.source == "none"


def test_an_exception_passes_and_leaves_no_window_behind(gpu):
    monitor = EnergyMonitor()
    with pytest.raises(ZeroDivisionError), monitor.measure() as measurement:
        1 / 0  # noqa: B018
    assert math.isnan(measurement.seconds) and math.isnan(measurement.joules)
    assert monitor._zeus.calls[-1] == ("cancel", False) and not monitor._zeus.windows


def test_idle_power_is_joules_over_seconds(gpu):
    watts = EnergyMonitor().idle_power(0.05)
    assert 5.0 / 5 < watts <= 5.0 / 0.05  # the sleep is no shorter, and on a busy machine longer


def test_nvml_that_does_not_start_is_named(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert "NVML does not start" in energy._nvml_unavailable(0)


@pytest.mark.parametrize("supported", [True, False])
def test_gpus_before_volta_have_no_counter(monkeypatch, supported):
    class Gpus:
        def supports_get_total_energy_consumption(self, index):
            return supported

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(energy, "get_gpus", Gpus)
    reason = energy._nvml_unavailable(3)
    assert reason is None if supported else "GPU 3 has no energy counter" in reason


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_idle_power_needs_a_duration(no_counters, seconds):
    with pytest.raises(InputError, match="expected a positive number"):
        EnergyMonitor().idle_power(seconds)


def test_devices_that_cannot_be_measured_are_refused(no_counters):
    with pytest.raises(InputError, match="cpu or cuda, got 'meta'"):
        EnergyMonitor("meta")
    with pytest.raises(InputError, match="torch finds no GPU"):
        EnergyMonitor("cuda")
