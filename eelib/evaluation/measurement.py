"""What a monitor of time and energy gives for a window of work."""

import math
from dataclasses import dataclass
from typing import Literal

from eelib.errors import InputError

Source = Literal["nvml", "rapl", "none"]


@dataclass
class Measurement:
    """One window. Filled in when its `with` block ends without an exception; NaN until then."""

    seconds: float = math.nan
    joules: float = math.nan  # NaN: not measured
    source: Source = "none"  # the counter that `joules` comes from


def check_duration(seconds: float) -> None:
    """InputError unless the seconds are a positive number."""
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds}, expected a positive number")
