"""Profiles: the numbers that make a run a test, a laptop study or the thesis's own.

A profile is a YAML file in `profiles/` with exactly the fields below; a run may override any of them by its dotted name
(`evaluation.samples=50`). Every value is checked when it is read, so that a run never fails on one later.
"""

import contextlib
import dataclasses
import hashlib
import re
import shlex
import types
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from eelib import paths
from eelib.checks import check_profile
from eelib.errors import InputError

LONGEST_LABEL = 150  # characters of a folder's name that say what was overridden
_ALLOWED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Data:
    """Where code files come from and how many of them are used."""

    source: str  # shipped | hub | line-completion
    path: str | None  # folder of line-completion files, or of a local copy of the hub's; null: the hub
    projects: list[str] | None  # shipped: only these projects; null: all
    train_files: int | None  # at most this many files of each language; null: all
    validation_files: int | None
    test_files: int | None


@dataclass(frozen=True)
class Context:
    """What a model is given and asked for."""

    max_tokens: int  # longest context, in model tokens
    new_tokens: int  # tokens to generate (T)


@dataclass(frozen=True)
class FineTuning:
    """Fine-tuning with the aggregated loss (Table 6.5)."""

    shipped: (
        bool  # models that ship fine-tuned weights are taken as shipped; the others are trained in the run
    )
    steps: int
    batch_size: int  # sequences of a micro-batch, shared by all processes
    gradient_accumulation_steps: int
    sequence_length: int
    learning_rate: float
    adam_beta2: float
    weight_decay: float
    max_gradient_norm: float
    lr_scheduler_type: str
    warmup_steps: int
    bf16: bool  # mixed precision, where the machine has kernels for it
    loss_weights: str  # thesis (Eq. 4.3, 4.4) | uniform | linear
    decay: float  # r of Eq. 4.3
    exit_positions: float  # share of positions at which intermediate losses are taken, drawn anew each step
    exits_per_step: int | None  # of the exit points, drawn anew each step by their weights; null for all
    distilled: bool  # intermediate layers learn the last layer's distribution, not the true tokens
    shallow_steps: float  # share of steps that end at the first exit point past the middle
    shortlist: (
        int | None
    )  # frequent tokens in the softmax, beside a batch's own and as many random ones; null for all tokens
    lora_rank: (
        int | None
    )  # train low-rank updates of the matrices within layers instead of them; null: all weights
    train_embeddings: bool  # false: only that of <EOL>
    checkpoint_steps: int  # a killed run goes on from the last multiple
    seed: int


@dataclass(frozen=True)
class EpochStudy:
    """How layers learn to decode while one setting is fine-tuned (Figure 4.8)."""

    model: str
    language: str
    snapshots: int  # kept at equal distances over the steps, the finished model being the last
    samples: int
    context_fraction: float
    new_tokens: int


@dataclass(frozen=True)
class FixedExits:
    """Decoding from fixed layers (Figures 4.9, 4.10)."""

    samples: int
    context_fraction: float
    timing_samples: int


@dataclass(frozen=True)
class Reinforcement:
    """Rollouts and PPO (Table 6.6)."""

    train_prompts: int
    validation_prompts: int  # choose exit points, thresholds and a probe's state
    test_prompts: int
    prefix_windows: int  # of training files, whose every position is learnt from
    probe_steps: int  # of the supervised rival's training
    stopping_steps: int  # of optimal stopping's
    states_dtype: str  # of the recorded hidden states
    reward: str  # printed | position-scaled | expected-cost
    steps: int
    seeds: int
    environments: int  # episodes stepped side by side
    buffer: int  # transitions collected before an update, over all environments
    batch_size: int
    epochs: int
    learning_rate: float
    gamma: float  # discount
    entropy_coefficient: float
    observation_noise: float  # in training, in standard deviations of the states
    hidden_units: int
    hidden_layers: int
    alpha: float
    beta_java: float  # beta and the reward's gamma for Java
    beta_python: float
    epsilon: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation over thresholds (Chapter 6)."""

    samples: int
    context_fractions: list[float]
    untimed_fractions: list[float]  # those of them whose time and energy are not measured
    thresholds: list[float]
    temperature: float
    timing_samples: int  # prompts decoded one at a time for time and energy
    timing_repeats: int
    decisions: int  # states in the comparison of decision costs (Figure 6.13)

    @property
    def timed_fractions(self) -> list[float]:
        """Context fractions at which time and energy are measured too."""
        return [fraction for fraction in self.context_fractions if fraction not in self.untimed_fractions]


@dataclass(frozen=True)
class Profile:
    """A complete configuration of the study."""

    name: str
    description: str
    models: list[str]
    languages: list[str]
    dtype: str
    threads: int | None  # torch threads; null: torch's default
    data: Data
    context: Context
    fine_tuning: FineTuning
    epoch_study: EpochStudy
    fixed_exits: FixedExits
    reinforcement: Reinforcement
    evaluation: Evaluation
    per_model: dict[str, dict[str, int]]  # model -> counts that it has for itself (`checks.COUNTS`)

    def of(self, model: str) -> "Profile":
        """The profile with the counts that a model has for itself."""
        profile = self
        for dotted, count in self.per_model.get(model, {}).items():
            section, field = dotted.split(".")
            changed = dataclasses.replace(getattr(profile, section), **{field: count})
            profile = dataclasses.replace(profile, **{section: changed})
        return profile

    def section(self, *names: str) -> dict[str, Any]:
        """Some sections as plain dictionaries, for a stage's configuration."""
        return {name: dataclasses.asdict(getattr(self, name)) for name in names}


def profile_names() -> list[str]:
    """Profiles that exist."""
    return sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))


def load_profile(name: str, overrides: dict[str, str] | None = None) -> Profile:
    """A profile by name with some fields replaced (`{"evaluation.samples": "50"}`); InputError for anything unknown."""
    path = paths.PROFILES / f"{name}.yaml"
    if not path.exists():
        raise InputError(f"There is no profile {name!r}: allowed are {', '.join(profile_names())}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{paths.shown(path)} is not YAML: {' '.join(str(error).split())}.") from error
    _build(Profile, values, paths.shown(path))  # whole before anything in it is replaced
    for dotted, text in (overrides or {}).items():
        _override(values, dotted, text)
    profile = _build(Profile, values, "the settings")
    check_profile(profile)
    return profile


def parse_settings(settings: str) -> dict[str, str]:
    """`"evaluation.samples=50 context.new_tokens=10"` -> `{"evaluation.samples": "50", ...}`.

    A value with blanks is quoted as in a shell: `"'evaluation.thresholds=[0.5, 0.9]'"`.
    """
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise InputError(f"The settings {settings!r} have a quotation mark without its partner.") from error
    overrides = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InputError(f"The setting {word!r} is not of the form name=value.")
        overrides[name] = value
    return overrides


def variant_name(profile: str, overrides: dict[str, str]) -> str:
    """Name of the folders of a run: the profile's, with what was overridden: "laptop+threshold=0.9".

    Of many overrides, whose names would be longer than a file system takes, the end is a hash.
    """
    label = "".join(f"+{name}={value}" for name, value in sorted(overrides.items()))
    if len(label) > LONGEST_LABEL:
        label = f"{label[:LONGEST_LABEL]}+{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return profile + re.sub(r"[^\w.,=+\[\]-]", "_", label)


def setting_names(cls: type = Profile, prefix: str = "") -> list[str]:
    """Dotted names of all settings that can be overridden."""
    names = []
    for field, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            names += setting_names(hint, f"{prefix}{field}.")
        elif f"{prefix}{field}" not in ("name", "description", "per_model"):
            names.append(prefix + field)
    return names


def _override(values: dict[str, Any], dotted: str, text: str) -> None:
    if dotted not in setting_names():
        raise InputError(f"There is no setting {dotted!r}: allowed are {', '.join(setting_names())}.")
    for counts in values["per_model"].values():
        counts.pop(dotted, None)  # what is asked for holds for all models
    *sections, field = dotted.split(".")
    for section in sections:
        values = values[section]
    try:
        values[field] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"The value of {dotted} is {text!r}, which is not a YAML value.") from error
    if isinstance(values[field], str) and "," in values[field]:
        values[field] = [yaml.safe_load(part) for part in values[field].split(",")]


def _build(cls: type, values: Any, where: str, prefix: str = "") -> Any:
    """A dataclass from a mapping with exactly its fields, each of its type."""
    hints = get_type_hints(cls)
    if not isinstance(values, dict):
        what = prefix.rstrip(".") or "the whole"
        raise InputError(f"In {where}, {what} is {values!r}: allowed are the fields {', '.join(hints)}.")
    for name in values:
        if name not in hints:
            raise InputError(f"In {where}, {prefix}{name} is unknown: allowed are {', '.join(hints)}.")
    for name in hints:
        if name not in values:
            raise InputError(f"In {where}, {prefix}{name} is missing.")
    return cls(**{name: _convert(values[name], hint, where, prefix + name) for name, hint in hints.items()})


def _convert(value: Any, hint: Any, where: str, dotted: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, f"{dotted}.")
    if get_origin(hint) is types.UnionType:
        return None if value is None else _convert(value, get_args(hint)[0], where, dotted)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            value = [value]
        return [_convert(item, get_args(hint)[0], where, dotted) for item in value]
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"In {where}, {dotted} is {value!r}: allowed is a mapping.")
        return {
            key: _convert(item, get_args(hint)[1], where, f"{dotted}.{key}") for key, item in value.items()
        }
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-5, without a point, as text
        with contextlib.suppress(ValueError):
            return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"In {where}, {dotted} is {value!r}: allowed is {_ALLOWED[hint]}.")
