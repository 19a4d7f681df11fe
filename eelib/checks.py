"""What a profile and what a user gives may hold: each refusal is one sentence, with the value and what is allowed."""

import dataclasses
import math
from typing import TYPE_CHECKING

from eelib.errors import InputError

if TYPE_CHECKING:
    from eelib.profile import Profile

_SECTIONS = ["data", "context", "fine_tuning", "epoch_study", "fixed_exits", "reinforcement", "evaluation"]
_SCHEDULERS = ["constant", "constant_with_warmup", "linear", "cosine"]
# What a profile may set for one model alone: a small model affords more prompts.
COUNTS = (
    "fixed_exits.samples",
    "fixed_exits.timing_samples",
    "evaluation.samples",
    "evaluation.timing_samples",
    "evaluation.timing_repeats",
)


def check_threshold(threshold: float) -> None:
    """InputError unless 0 <= threshold <= 1."""
    if not 0 <= threshold <= 1:
        raise InputError(f"The threshold is {threshold}: allowed are probabilities from 0 to 1.")


def check_context_fraction(fraction: float) -> None:
    """InputError unless 0 < fraction < 1."""
    if not 0 < fraction < 1:
        raise InputError(
            f"The context fraction is {fraction}: allowed are fractions between 0 and 1, both excluded."
        )


def check_choice(what: str, value: str, allowed: list[str]) -> None:
    """InputError unless value is one of allowed."""
    if value not in allowed:
        raise InputError(f"The {what} is {value!r}: allowed are {', '.join(allowed)}.")


def check_profile(profile: "Profile") -> None:
    check_choice("data source", profile.data.source, ["shipped", "hub", "line-completion"])
    check_choice("dtype", profile.dtype, ["float32", "bfloat16", "float16"])
    for language in profile.languages:
        check_choice("language", language, ["java", "python"])
    check_choice("loss weights", profile.fine_tuning.loss_weights, ["thesis", "uniform", "linear"])
    if not 0 <= profile.fine_tuning.shallow_steps < 1:
        raise InputError(
            f"fine_tuning.shallow_steps is {profile.fine_tuning.shallow_steps}: allowed are shares from 0 to below 1."
        )
    check_choice("learning-rate schedule", profile.fine_tuning.lr_scheduler_type, _SCHEDULERS)
    for name, values in {
        "models": profile.models,
        "languages": profile.languages,
        "evaluation.thresholds": profile.evaluation.thresholds,
        "evaluation.context_fractions": profile.evaluation.context_fractions,
    }.items():
        if not values:
            raise InputError(f"{name} is empty: at least one is needed.")
    if not profile.evaluation.timed_fractions:
        raise InputError(
            f"evaluation.untimed_fractions is {profile.evaluation.untimed_fractions}, which leaves no context fraction to time: "
            "at least one is needed."
        )
    for threshold in profile.evaluation.thresholds:
        check_threshold(threshold)
    check_choice("language", profile.epoch_study.language, ["java", "python"])
    fractions = [section.context_fraction for section in (profile.epoch_study, profile.fixed_exits)]
    for fraction in [*profile.evaluation.context_fractions, *fractions]:
        check_context_fraction(fraction)
    rl = profile.reinforcement
    check_choice("reward", rl.reward, ["printed", "position-scaled", "expected-cost"])
    check_choice("dtype of the states", rl.states_dtype, ["float32", "float16"])
    for name in (
        "alpha",
        "beta_java",
        "beta_python",
        "epsilon",
        "gamma",
        "entropy_coefficient",
        "observation_noise",
    ):
        if not 0 <= getattr(rl, name) <= 1:
            raise InputError(f"reinforcement.{name} is {getattr(rl, name)}: allowed are values from 0 to 1.")
    for language in ("java", "python"):
        beta = getattr(rl, f"beta_{language}")
        if rl.alpha > beta:
            raise InputError(
                f"reinforcement.alpha is {rl.alpha}, more than beta_{language} = {beta}: "
                "leaving late may not cost more than leaving early."
            )
    if rl.buffer % rl.environments:
        raise InputError(
            f"reinforcement.buffer is {rl.buffer}: allowed are multiples of the {rl.environments} environments."
        )
    for model, counts in profile.per_model.items():
        for name in counts:
            check_choice(f"setting of {model} in per_model", name, list(COUNTS))
        _check_numbers(profile.of(model))
    _check_numbers(profile)


def _check_numbers(profile: "Profile") -> None:
    tuning = profile.fine_tuning
    for name, number, most in (
        ("fine_tuning.decay", tuning.decay, 1),
        ("fine_tuning.exit_positions", tuning.exit_positions, 1),
        ("fine_tuning.adam_beta2", tuning.adam_beta2, 0.9999),
        ("fine_tuning.learning_rate", tuning.learning_rate, 1),
        ("fine_tuning.max_gradient_norm", tuning.max_gradient_norm, math.inf),
        ("reinforcement.learning_rate", profile.reinforcement.learning_rate, 1),
        ("evaluation.temperature", profile.evaluation.temperature, math.inf),
    ):
        if not (0 < number <= most and math.isfinite(number)):
            raise InputError(f"{name} is {number}: allowed are values above 0, at most {most}.")
    sections = {f"{name}.": getattr(profile, name) for name in _SECTIONS}
    for prefix, section in {"": profile, **sections}.items():
        for field in dataclasses.fields(section):
            least = 0 if field.name in ("seed", "warmup_steps") else 1
            number = getattr(section, field.name)
            if field.type in (int, int | None) and number is not None and number < least:
                raise InputError(f"{prefix}{field.name} is {number}: allowed are values from {least}.")
