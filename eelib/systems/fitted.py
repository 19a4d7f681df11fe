"""Every system of Table 3.1 fitted, its settings chosen, and what they do on unseen prompts: the study's node of notebook 08."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eelib.data.corpus import CodeFile
from eelib.decoding.policy import ExitPolicy
from eelib.models.loading import CodeModel
from eelib.profile import Context
from eelib.rl.agent import one_thread
from eelib.rl.rollouts import Rollouts
from eelib.systems import (
    berxit,
    calm,
    consistentee,
    deebert,
    depth_adaptive,
    ensemble,
    hashee,
    lite,
    mat,
    sec,
    skipdecode,
)
from eelib.systems.harness import Bench, Choice, by_policy, chosen_settings
from eelib.systems.heads import affordable
from eelib.systems.material import Material, gather

SETTINGS, STOPS = "settings.parquet", "stops.parquet"
NO_SEED = -1


@dataclass(frozen=True)
class Method:
    """One way to decide, of one system.

    Attributes
    ----------
    system: as Table 3.1 calls it.
    choices: of a seed.
    seeded: whether something is drawn at random when it is fitted.
    heads: whether it needs heads of its own.
    """

    system: str
    choices: Callable[[Material, int], list[Choice]]
    seeded: bool = False
    heads: bool = False


def _fitted_sec(given: Material, seed: int):
    return sec.controller(given.text.split.rollouts, given.text.truth, seed, given.steps)


METHODS: dict[str, Method] = {
    "multinomial, correctness": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.multinomial(given.bench, *given.correct_gains, seed, given.steps),
        seeded=True,
    ),
    "multinomial, likelihood": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.multinomial(given.bench, *given.likely_gains, seed, given.steps),
        seeded=True,
    ),
    "geometric-like, correctness": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.geometric(given.bench, *given.correct_gains, seed, given.steps),
        seeded=True,
    ),
    "geometric-like, likelihood": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.geometric(given.bench, *given.likely_gains, seed, given.steps),
        seeded=True,
    ),
    "entropy, own heads": Method(
        "DeeBERT", lambda given, seed: deebert.entropy(given.bench, given.heads), heads=True
    ),
    "entropy": Method("DeeBERT", lambda given, seed: deebert.entropy(given.bench)),
    "learn to exit, own heads": Method(
        "BERxIT",
        lambda given, seed: berxit.learnt(given.bench, given.heads, given.train.rollouts, seed, given.steps),
        seeded=True,
        heads=True,
    ),
    "softmax difference": Method("CALM", lambda given, seed: calm.difference(given.bench)),
    "softmax difference, falling bar": Method(
        "CALM", lambda given, seed: calm.difference(given.bench, falling=True)
    ),
    "state saturation": Method("CALM", lambda given, seed: calm.saturated(given.bench)),
    "linear classifier": Method(
        "CALM",
        lambda given, seed: calm.classifier(given.bench, given.train.rollouts, seed, given.steps),
        seeded=True,
    ),
    "falling schedule": Method("SkipDecode", lambda given, seed: skipdecode.scheduled(given.bench)),
    "linear maps": Method("MAT", lambda given, seed: mat.confident(given.bench, given.parts, given.maps)),
    "softmax confidence": Method("LITE", lambda given, seed: lite.confidence(given.bench)),
    "exit action": Method(
        "SEC", lambda given, seed: sec.exiting(given.bench, _fitted_sec(given, seed)), seeded=True
    ),
    "policy by hardness, own heads": Method(
        "ConsistentEE",
        lambda given, seed: consistentee.policies(
            given.bench, given.heads, given.train.rollouts, seed, given.steps
        ),
        seeded=True,
        heads=True,
    ),
    "policy by hardness": Method(
        "ConsistentEE",
        lambda given, seed: consistentee.policies(given.bench, None, given.train.rollouts, seed, given.steps),
        seeded=True,
    ),
    "hash by frequency": Method(
        "HashEE", lambda given, seed: hashee.hashed(given.bench, given.train, given.embeddings, False)
    ),
    "hash by clusters": Method(
        "HashEE", lambda given, seed: hashee.hashed(given.bench, given.train, given.embeddings, True)
    ),
    "votes": Method("Ensembles", lambda given, seed: ensemble.voted(given.bench)),
}
POLICIES = ("agent", "probe", "stopping")  # this study's own, fitted elsewhere
NOBODY = "fixed exit"  # nothing but fixed exits to choose from
OURS = "this study"


def fit_systems(
    corpus: list[CodeFile],
    tuned: CodeModel,
    rollouts: Rollouts,
    prefixes: Rollouts,
    chosen: Rollouts,
    unseen: Rollouts,
    agents: dict[int, ExitPolicy],
    probes: dict[int, ExitPolicy],
    stopping: dict[int, ExitPolicy],
    prefix_windows: int,
    probe_steps: int,
    context: Context,
    folder: Path,
) -> None:
    """Fit every system and choose its settings: `settings.parquet` with the rows of `harness.chosen_settings` and `system`, `method`,
    `seed` (-1 where nothing is drawn), and `stops.parquet` with the rows of `sec.stopped` and `seed`."""
    with one_thread():
        given = gather(
            corpus, tuned, rollouts, prefixes, chosen, unseen, prefix_windows, context, probe_steps
        )
        frames = [
            settings_of(given, name, seed)
            for name, method in METHODS.items()
            if affordable(given.parts) or not method.heads
            for seed in (agents if method.seeded else (NO_SEED,))
        ]
        ours = dict(zip(POLICIES, (agents, probes, stopping), strict=True))
        frames += [_settings_of_ours(given.bench, ours)]
        stops = [
            sec.stopped(unseen, given.references, _fitted_sec(given, seed)).assign(seed=seed)
            for seed in agents
        ]
    pd.concat(frames, ignore_index=True).to_parquet(folder / SETTINGS, index=False)
    pd.concat(stops, ignore_index=True).to_parquet(folder / STOPS, index=False)


def settings_of(given: Material, name: str, seed: int) -> pd.DataFrame:
    """The settings chosen for one method and seed."""
    method = METHODS[name]
    found = chosen_settings(given.bench, method.choices(given, seed))
    return found.assign(system=method.system, method=name, seed=seed)


def _settings_of_ours(bench: Bench, ours: dict[str, dict[int, ExitPolicy]]) -> pd.DataFrame:
    frames = [chosen_settings(bench, []).assign(method=NOBODY, seed=NO_SEED)]
    for name, policies in ours.items():
        for seed, policy in policies.items():
            found = chosen_settings(bench, by_policy(bench, policy))
            frames.append(found.assign(method=name, seed=seed))
    return pd.concat(frames, ignore_index=True).assign(system=OURS)
