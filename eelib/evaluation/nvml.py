"""A GPU's energy counter and state, read from NVML directly: needs no package but nvidia-ml-py.

`EnergyMonitor` reads the same counter through zeus; this one serves machines where zeus is not installed and nothing can
be. NVML's counter advances about every 100 ms: measure windows of seconds.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pynvml
import torch

from eelib.evaluation.measurement import Measurement, Source, check_duration


def handle(device: torch.device):
    """NVML's handle of torch's device: by its UUID, since the two may number GPUs differently. Starts NVML."""
    pynvml.nvmlInit()
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


class NvmlMonitor:
    """Measures windows of work on a GPU as `EnergyMonitor` does. NVMLError where the GPU has no energy counter."""

    source: Source = "nvml"

    def __init__(self, device: torch.device):
        self.device = device
        self._handle = handle(device)
        self._millijoules()

    def describe(self) -> str:
        """One sentence for the reader of the results: what the joules are."""
        name = torch.cuda.get_device_name(self.device)
        return f"Energy is the GPU's ({name}), from NVML's counter, read directly."

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Measure the block: seconds by `time.perf_counter`, joules by the counter, NaN where it did not advance."""
        measurement = Measurement()
        torch.cuda.synchronize(self.device)
        begun, start = self._millijoules(), time.perf_counter()
        yield measurement
        torch.cuda.synchronize(self.device)
        measurement.seconds = time.perf_counter() - start
        joules = (self._millijoules() - begun) / 1000
        if joules > 0:
            measurement.joules, measurement.source = joules, self.source

    def idle_power(self, seconds: float) -> float:
        """Mean watts over `seconds` of sleep."""
        check_duration(seconds)
        with self.measure() as measurement:
            time.sleep(seconds)
        return measurement.joules / measurement.seconds

    def _millijoules(self) -> int:
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)


def card_state(device: torch.device) -> dict[str, float]:
    """The GPU right now: clocks in MHz, temperature in degrees Celsius, power in watts; NaN where there is no GPU."""
    names = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
    if device.type != "cuda":
        return dict.fromkeys(names, math.nan)
    gpu = handle(device)
    values = (
        pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
        pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
        pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
        pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    )
    return dict(zip(names, map(float, values), strict=True))
