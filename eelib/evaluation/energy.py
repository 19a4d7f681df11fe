"""Seconds and joules of a block of code.

    monitor = EnergyMonitor()
    with monitor.measure() as measurement:
        generate(...)
    measurement.seconds, measurement.joules, measurement.source

Energy is read by zeus from the counter of the device that does the work: NVML's of the GPU, or RAPL's of the CPU
packages (with their DRAM where it is counted). A GPU's figure leaves its host's CPU out, as the thesis's does. Where there
is no counter, or it did not advance within a window, the energy is unknown: NaN joules and source "none", never 0 J.

Counters advance in steps, NVML's about every 100 ms and RAPL's about every millisecond, so that a window is off by up
to a step of power at either end. Measure windows over many tokens; no instantaneous power stands in for short ones.
"""

import itertools
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml
import torch
import zeus
from zeus.device import get_gpus
from zeus.device.cpu import rapl
from zeus.monitor import ZeusMonitor

from eelib.errors import InputError
from eelib.evaluation.measurement import Measurement, Source, check_duration


class EnergyMonitor:
    """Measures windows of work on one device; windows may be nested.

    Args:
        device: where the work runs, "cpu", "cuda" or "cuda:1"; None is the current GPU if there is one, else the CPU. It
            decides what is waited for and which counter is read.

    RAPL is followed by a helper process of zeus that Python spawns, which imports the main module again: a script that
    measures on the CPU needs the usual `if __name__ == "__main__":`.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._window_numbers = itertools.count()
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise InputError(f"device is {device!r}, but torch finds no GPU; expected 'cpu'")
            self._index = torch.cuda.current_device() if self.device.index is None else self.device.index
            self._unavailable = _nvml_unavailable(self._index)
            self.source: Source = "none" if self._unavailable else "nvml"
            gpu_indices, cpu_indices = [self._index], []
        elif self.device.type == "cpu":
            self._packages, self._unavailable = _rapl_packages()
            self.source = "none" if self._unavailable else "rapl"
            gpu_indices, cpu_indices = [], self._packages
        else:
            raise InputError(f"energy is measured on devices of type cpu or cuda, got {self.device.type!r}")
        self._zeus = None
        if self.source != "none":
            self._zeus = ZeusMonitor(gpu_indices=gpu_indices, cpu_indices=cpu_indices)

    def describe(self) -> str:
        """One sentence for the reader of the results: what the joules are, or why there are none."""
        if self.source == "nvml":
            name = torch.cuda.get_device_name(self._index)
            return f"Energy is GPU {self._index}'s ({name}), from NVML's counter through zeus {zeus.__version__}."
        if self.source == "rapl":
            packages = len(self._packages)
            return f"Energy is that of {packages} CPU package(s), from RAPL's counters through zeus {zeus.__version__}."
        return f"Energy is not measured (joules are NaN), because {self._unavailable}."

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Measure the block: wall-clock seconds by `time.perf_counter`, joules by the counter.

        On a GPU, work queued before the block is waited for before it starts, and work of the block before it ends.
        """
        measurement = Measurement()
        window = f"window {next(self._window_numbers)}"  # zeus tells nested windows apart by name
        self._synchronize()
        if self._zeus is not None:
            self._zeus.begin_window(window, sync_execution=False)
        try:
            start = time.perf_counter()
            yield measurement
            self._synchronize()
            seconds = time.perf_counter() - start
        except BaseException:
            if self._zeus is not None:
                self._zeus.end_window(window, sync_execution=False, cancel=True)
            raise
        measurement.seconds = seconds
        joules = self._joules(window)
        if joules > 0:
            measurement.joules, measurement.source = joules, self.source

    def idle_power(self, seconds: float) -> float:
        """Mean watts of the device over `seconds` of sleep; NaN where energy is not measured."""
        check_duration(seconds)
        with self.measure() as measurement:
            time.sleep(seconds)
        return measurement.joules / measurement.seconds

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _joules(self, window: str) -> float:
        """Joules since the window began; 0 where the counter did not advance, NaN where there is none."""
        if self._zeus is None:
            return math.nan
        with warnings.catch_warnings():
            # zeus warns of a window shorter than the counter's step; `measure` turns it into NaN.
            warnings.filterwarnings(
                "ignore", message="The energy consumption of one or more GPUs was measured as zero"
            )
            result = self._zeus.end_window(window, sync_execution=False)
        counters = (result.gpu_energy, result.cpu_energy, result.dram_energy)
        return sum(sum(counter.values()) for counter in counters if counter)


def _nvml_unavailable(index: int) -> str | None:
    """Why NVML cannot count the energy of that GPU, as the end of a sentence; None if it can."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML does not start ({error})"
    if not get_gpus().supports_get_total_energy_consumption(index):
        return f"GPU {index} has no energy counter (NVML has one since the Volta generation)"
    return None


def _rapl_packages() -> tuple[list[int], str]:
    """Indices of the CPU packages whose RAPL counters can be read, and why there are none as the end of a sentence.

    zeus lists every top-level zone; `psys` is left out, because it counts the packages once more.
    """
    # Inside a container zeus expects the host's folder under another name.
    folder = next(
        (path for path in map(Path, (rapl.RAPL_DIR, rapl.CONTAINER_RAPL_DIR)) if path.exists()), None
    )
    if folder is None:
        return [], f"this machine shows no RAPL counters ({rapl.RAPL_DIR} does not exist)"
    zones = sorted(folder.glob("intel-rapl:*"), key=lambda path: int(path.name.split(":")[1]))
    packages = []
    for index, zone in enumerate(zones):
        try:
            is_package = (zone / "name").read_text().startswith("package")
            (zone / "energy_uj").read_text()
        except OSError as error:
            return (
                [],
                f"RAPL's counters cannot be read ({error.strerror}: {error.filename}; root may be needed)",
            )
        if is_package:
            packages.append(index)
    return packages, "" if packages else f"{folder} lists no CPU package"
