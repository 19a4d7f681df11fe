"""LITE, losses from intermediate layers (Varshney et al. 2024).

Trains: the model itself, by a loss that sums those of several layers, all decoded by the one head (its Section 3; Eq. 4.2 of the
thesis, `training/loss.py`). The models of this study are tuned so, with the thesis's weights instead of LITE's equal ones.
Decides: by the largest probability of the head's prediction (its Section 4).
Adapted: a completion of code follows instead of an instruction; a bar for all exit points instead of one a layer, since every
system here has one.
"""

from eelib.systems.harness import Bench, Choice, Told, by_threshold


def confidence(bench: Bench) -> list[Choice]:
    """By the largest probability."""
    told = [Told(split.rollouts.confidences, split.rollouts.correct) for split in bench.splits]
    return by_threshold(*told, bench.saying())
