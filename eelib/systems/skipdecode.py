"""SkipDecode (Del Corro et al. 2023).

Trains: nothing here; the paper tunes the model with the schedule.
Decides: depth by the token's position alone, falling linearly from a largest to a smallest number of layers, so that no token goes
deeper than one before it and all rows of a batch stop together; nothing has to be filled in the cache (Section 3).
Adapted: the paper passes over lower layers and always runs a few first and all last ones; on states that were recorded bottom-up the
token leaves early instead, as everywhere in this study. The first exit point stands for the layers that always run.
"""

import numpy as np

from eelib.errors import InputError
from eelib.systems.harness import Bench, Choice, by_exits


def falling_schedule(stops: np.ndarray, most: int, least: int, tokens: int) -> np.ndarray:
    """(T,) index of each token's stop: the deepest that is no deeper than the line from layer `most` to layer `least`.

    Layers that are no stops, or that rise, give InputError.
    """
    allowed = stops.tolist()
    if most not in allowed or least not in allowed or least > most:
        raise InputError(
            f"A schedule from layer {most} to {least} is not possible: it has to fall between layers of {allowed}."
        )
    line = np.linspace(most, least, tokens)
    return np.searchsorted(stops, line + 1e-9, side="right") - 1


def scheduled(bench: Bench) -> list[Choice]:
    """Every falling pair of stops."""
    stops = bench.unseen.rollouts.stops
    tokens = bench.unseen.rollouts.last.shape[1]
    schedules = [
        falling_schedule(stops, most, least, tokens) for least in stops for most in stops if least <= most
    ]
    exits = [
        [np.broadcast_to(schedule, split.rollouts.last.shape) for schedule in schedules]
        for split in bench.splits
    ]
    return by_exits(*exits, bench.unfilled, bench.correct)
