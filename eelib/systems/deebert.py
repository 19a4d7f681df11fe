"""DeeBERT (Xin et al. 2020).

Trains: a classification head at every layer ("off-ramp") on a frozen model, after fine-tuning (Section 3.1): `heads.py`.
Decides: leaves at the first off-ramp whose prediction has an entropy below a threshold (Section 3.2, Eq. 1).
Adapted: a classifier over a few labels becomes a head over the vocabulary at every exit point, and the label the last layer's token;
entropy is divided by its maximum, log V. Where such heads are too large, the model's own head stands in (`entropy`, without heads).
"""

from eelib.systems.harness import Bench, Choice, Looks, Told, by_threshold


def entropy(bench: Bench, said: tuple[Looks, Looks] | None = None) -> list[Choice]:
    """By the entropy of what heads said of both splits; by default of what the model's own does."""
    told = []
    for split, looks in zip(bench.splits, said or [split.looks for split in bench.splits], strict=True):
        told.append(Told(-looks.entropy, looks.tokens == split.rollouts.last[..., None]))
    return by_threshold(*told, bench.saying())
