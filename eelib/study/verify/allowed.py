"""What each column of the tidy datasets may hold, in the units of the data dictionary, and what tells a row from all others."""

from dataclasses import dataclass

from eelib.decoding.cache import CacheMode
from eelib.evaluation.equal_cost import DRAWN, RIVALS
from eelib.evaluation.probe_data import PARTS
from eelib.evaluation.variants import VARIANTS
from eelib.rl.reward import REWARDS
from eelib.systems import fitted, judged
from eelib.systems.layerskip import BLOCKS
from eelib.systems.sec import BARS
from eelib.training.tuned import KINDS


@dataclass(frozen=True)
class Values:
    """Numbers from `least` to `most`, or one of `names`; `gaps` says whether a value may be missing."""

    least: float | None = None
    most: float | None = None
    names: tuple[str, ...] = ()
    gaps: bool = False

    def __str__(self) -> str:
        if self.names:
            return "one of " + ", ".join(self.names)
        if self.most is None:
            return f"at least {self.least:g}"
        return f"from {self.least:g} to {self.most:g}"


def _names(*names: str, gaps: bool = False) -> Values:
    return Values(names=names, gaps=gaps)


SHARE, MAYBE_SHARE = Values(0, 1), Values(0, 1, gaps=True)
# Of what lies between a coin (0) and an oracle (1); below 0 is worse than the coin. Missing where an oracle wins nothing.
WON = Values(-20, 1, gaps=True)
DIFFERENCE = Values(-20, 20, gaps=True)
COUNT, FROM_ZERO, JOULES = Values(1), Values(0), Values(1e-9, 1e6, gaps=True)
METHODS = ("confidence", "agent", "probe", "stopping", "fixed", "coin", "oracle")
SYSTEMS = (*dict.fromkeys(method.system for method in fitted.METHODS.values()), fitted.OURS)
DECIDING = (*fitted.METHODS, fitted.NOBODY, *fitted.POLICIES)
# A chosen setting's cost; one that looks much may pay more than the full model for a token that it does not let go.
PAID = Values(0, 20)
SETTING = {"language": _names("java", "python")}
DECODED = SETTING | {
    "kind": _names(*KINDS, gaps=True),
    "context_fraction": Values(0.01, 0.99, gaps=True),
    "criterion": _names("full", "agent", "fixed", "scripted", "never"),
    "threshold": Values(0, 200, gaps=True),
    "seed": Values(-1, 1000),
    "cache": _names(*(mode.value for mode in CacheMode)),
}

ALLOWED: dict[str, dict[str, Values]] = {
    "predictions": DECODED
    | {
        "step": Values(0, gaps=True),
        "prompt_tokens": COUNT,
        "token_accuracy": SHARE,
        "flops": COUNT,
    },
    "timings": DECODED
    | {
        "repeat": FROM_ZERO,
        "tokens": COUNT,
        "seconds": Values(1e-5, 3600),
        "joules": JOULES,
        "energy_source": _names("nvml", "rapl", "none"),
        "decisions": Values(0, gaps=True),
    },
    "layers": SETTING
    | {
        "kind": _names(*KINDS),
        "layer": COUNT,
        "accuracy": SHARE,
        "agreement": SHARE,
        "tokens": COUNT,
    },
    "validation_losses": SETTING | {"kind": _names(*KINDS), "layer": COUNT, "loss": Values(0, 100)},
    "agents": SETTING
    | {
        "against": _names("best fixed exit", "coin between fixed exits"),
        "over": _names("all depths", "thresholds"),
        "method": _names("agent", "confidence"),
        **dict.fromkeys(("share", "low", "high", "least", "most"), WON),
    },
    "equal_cost": SETTING
    | {
        "method": _names(*METHODS),
        **dict.fromkeys(("share", "low", "high"), WON),
        **{f"over_{rival}{end}": DIFFERENCE for rival in RIVALS for end in ("", "_low", "_high")},
        "agreement_at_0.7": SHARE,
        "agreement_at_0.8": SHARE,
    },
    "reward_audit": SETTING
    | {
        "reward": _names(*REWARDS),
        **dict.fromkeys(("before", "at", "past"), Values(-4, 4, gaps=True)),
        **dict.fromkeys(("share", "low", "high"), WON),
    },
    "probe_data": SETTING
    | {
        "learnt_from": _names("completions", "real text", "both"),
        "tokens": COUNT,
        **dict.fromkeys(("share", "low", "high"), WON),
    },
    "cost_curves": SETTING | {"method": _names(*METHODS), "cost": SHARE, "agreement": SHARE},
    "systems": SETTING
    | {
        "system": _names(*SYSTEMS),
        "method": _names(*DECIDING),
        "seeds": COUNT,
        "trials": FROM_ZERO,
        "decision": SHARE,
        **dict.fromkeys(("share", "low", "high", "least", "most"), WON),
        **{f"over_{rival}{end}": DIFFERENCE for rival in judged.OVER for end in ("", "_low", "_high")},
        "agreement_at_0.7": SHARE,
        "agreement_at_0.8": SHARE,
        **{f"cost_{points}{end}": PAID for points in judged.POINTS for end in ("", "_low", "_high")},
        **{
            f"lost_{points}{end}": Values(0, 100) for points in judged.POINTS for end in ("", "_low", "_high")
        },
    },
    "system_curves": SETTING
    | {"method": _names(*DECIDING, "coin", "oracle"), "cost": SHARE, "agreement": SHARE},
    "speculation": SETTING
    | {
        "split": _names("validation", "test"),
        "layer": COUNT,
        "block": Values(min(BLOCKS), max(BLOCKS)),
        "accepted": Values(0, max(BLOCKS)),
        **{f"flops{end}": Values(1, 10) for end in ("", "_low", "_high")},
        **{f"reads{end}": Values(0, 10) for end in ("", "_low", "_high")},
    },
    "stopped": SETTING | {"bar": SHARE, "saved": SHARE, "lost": SHARE, "lost_by_chance": SHARE},
    "promises": SETTING
    | {"tolerated": SHARE, "prompts": COUNT, "broken": SHARE, "early": SHARE, "depth": SHARE},
    "promises_across": SETTING
    | {"tested_on": _names("java", "python")}
    | {"tolerated": SHARE, "prompts": COUNT, "broken": SHARE, "early": SHARE, "depth": SHARE},
    "variants": SETTING
    | {
        "variant": _names(*VARIANTS),
        "reward": Values(-1, 1),
        **dict.fromkeys(("share", "low", "high"), WON),
    },
    "decisions": SETTING | {"microseconds": Values(0.001, 1e7), "joules": JOULES},
    "serving": SETTING
    | {
        "measured": _names("sweep", "session"),
        "prompt": Values(0, gaps=True),
        "key": Values(1, gaps=True),
        "threshold": SHARE,
        "milliseconds": Values(0.1, 3.6e6),
        "tokens": COUNT,
        "mean_layers": COUNT,
        "total_layers": COUNT,
        "flops": COUNT,
        "energy_j": JOULES,
    },
}

# A place of the dataset, and within it what is crossed with what: every combination is there once.
DECODING = ("criterion", "threshold", "seed", "cache")
CROSSED: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "predictions": (
        ("node", "model", "language", "kind", "context_fraction", "step"),
        (DECODING, ("sample",)),
    ),
    "timings": (
        ("node", "model", "language", "context_fraction"),
        (("kind", *DECODING), ("sample",), ("repeat",)),
    ),
    "layers": (("model", "language"), (("kind",), ("layer",), ("sample",))),
    "validation_losses": (("model", "language"), (("kind",), ("layer",))),
    "agents": (("model", "language"), (("against",), ("over", "method"))),
    "equal_cost": (("model", "language"), (("method",),)),
    "reward_audit": (("model", "language"), (("reward",),)),
    "probe_data": (("model", "language"), (("learnt_from", "tokens"),)),
    "cost_curves": (("model", "language"), (("method",), ("cost",))),
    "systems": (("model", "language"), (("method",),)),
    "system_curves": (("model", "language"), (("method",), ("cost",))),
    "speculation": (("model", "language"), (("split",), ("layer",), ("block",))),
    "stopped": (("model", "language"), (("bar",),)),
    "promises": (("model", "language"), (("tolerated",), ("prompts",), ("method",))),
    "promises_across": (("model", "language", "tested_on"), (("tolerated",), ("prompts",), ("method",))),
    "variants": (("model", "language"), (("variant",),)),
    "decisions": (("node", "model", "language"), (("method",),)),
    "serving": (("model", "language", "measured"), (("threshold",), ("prompt", "key"))),
}

# How many rows a place has, where the code says it. Confidence has no thresholds of its own: three rows, not four.
ROWS = {
    "equal_cost": len(METHODS),
    "cost_curves": len(METHODS) * DRAWN,
    "agents": 2 * 3,
    "reward_audit": len(REWARDS),
    "probe_data": 2 + len(PARTS),
    "variants": len(VARIANTS),
    "stopped": len(BARS),
}
