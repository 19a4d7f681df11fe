"""What a decision, or what it looks at, costs: measured as the decoder does it, one state at a time."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from eelib.evaluation.energy import EnergyMonitor

# States in a measured window; with NVML, whose counter steps every tenth of a second, a window of a second or so.
CHUNK, CHUNK_NVML = 500, 20_000


def costs(
    methods: dict[str, Callable[[Tensor], object]],
    width: int,
    count: int,
    monitor: EnergyMonitor,
    device: torch.device,
    dtype: torch.dtype,
) -> pd.DataFrame:
    """Mean cost of each method on `count` random (1, `width`) states, methods interleaved by chunks, after one warm-up.

    Returns
    -------
    One row a method: `method`, `microseconds`, `joules` (NaN when not measured).
    """
    chunk = min(CHUNK_NVML if monitor.source == "nvml" else CHUNK, count)
    totals = {name: [0.0, 0.0] for name in methods}
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for method in methods.values():
            method(torch.zeros(1, width, device=device, dtype=dtype))
        for _ in range(count // chunk):
            states = torch.randn(chunk, 1, width, generator=generator).to(device, dtype)
            for name, method in methods.items():
                with monitor.measure() as measured:
                    for state in states:
                        method(state)
                totals[name][0] += measured.seconds
                totals[name][1] += measured.joules
    done = count // chunk * chunk
    return pd.DataFrame(
        [
            {"method": name, "microseconds": 1e6 * seconds / done, "joules": joules / done}
            for name, (seconds, joules) in totals.items()
        ]
    )
