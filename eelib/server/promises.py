"""What the agent that serves promises: for a tolerated loss, a threshold. Calibrated where it was trained, and shipped with it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eelib.errors import InputError

FULL = 1.0  # a threshold that nothing exceeds
HOLDS = (
    "At most the tolerated share of tokens differs from the full model's, each token after the full model's own text, "
    "for prompts like those of the study's test projects."
)


@dataclass(frozen=True)
class Promises:
    """Promises of `eelib.evaluation.promises`, as `scripts/ship_agents.py` writes them.

    Attributes
    ----------
    rows: `tolerated`, `threshold` (None for full depth, at which no token differs), `depth`.
    delta: one less the confidence. prompts: calibration prompts, of at most `max_tokens` tokens.
    """

    rows: tuple[dict[str, float | None], ...] = ()
    delta: float | None = None
    prompts: int = 0
    max_tokens: int | None = None

    def threshold(self, loss: float) -> float:
        """The threshold that keeps a tolerated loss; InputError for one that was not promised, with those that were."""
        for row in self.rows:
            if math.isclose(row["tolerated"], loss):
                return FULL if row["threshold"] is None else row["threshold"]
        if not self.rows:
            raise InputError(
                f"The tolerated loss is {loss:g}: this agent promises nothing, and allowed is an exit threshold."
            )
        allowed = ", ".join(
            f"{row['tolerated']:g}" + (" (at full depth)" if row["threshold"] is None else "")
            for row in self.rows
        )
        raise InputError(f"The tolerated loss is {loss:g}: this agent's promises allow {allowed}.")

    def described(self) -> dict[str, Any]:
        """What clients are told."""
        promises = [
            {
                "tolerated_loss": row["tolerated"],
                "exit_threshold": self.threshold(row["tolerated"]),
                "share_of_layers": row["depth"],
            }
            for row in self.rows
        ]
        if not promises:
            return {"promises": []}
        conditions = {"confidence": 1 - self.delta, "calibration_prompts": self.prompts}
        return {"promises": promises, **conditions, "prompt_tokens": self.max_tokens, "what_holds": HOLDS}


def read_promises(agent: Path) -> Promises:
    """The promises in an agent's folder; none where none were shipped."""
    file = agent / "record.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    if "promises" not in record:
        return Promises()
    return Promises(tuple(record["promises"]), record["delta"], record["prompts"], record["max_tokens"])
