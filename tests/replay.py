"""A monitor that replays readings, for tests of what is done with time and energy."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from eelib.evaluation.measurement import Measurement, Source


class ReplayMonitor:
    """Stands in for `EnergyMonitor`: (seconds, joules) of one window after the other, in the order they end; NaN joules for
    an unmeasured one. `source` is the counter that the readings are said to come from."""

    def __init__(self, readings: Iterable[tuple[float, float]], source: Source = "nvml"):
        self.source = source
        self._readings = iter(readings)

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        measurement = Measurement()
        yield measurement
        measurement.seconds, measurement.joules = next(self._readings)
        measurement.source = "none" if math.isnan(measurement.joules) else self.source
