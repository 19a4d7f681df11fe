"""Every system of Table 3.1 fitted, its settings chosen, and what they do on unseen prompts: the study's node of notebook 08."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eelib.data.corpus import CodeFile
from eelib.decoding.policy import ExitPolicy
from eelib.evaluation.cost import policy_flops
from eelib.models.loading import CodeModel
from eelib.profile import Context
from eelib.rl.agent import one_thread
from eelib.rl.perceptron import Recipe
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
MOST_SEEDS = 2  # of the profile's: a dozen networks are fitted for each


@dataclass(frozen=True)
class Method:
    """One way to decide, of one system.

    Attributes
    ----------
    system: as Table 3.1 calls it.
    choices: of a seed.
    decision: price of one decision.
    seeded: whether something is drawn at random when it is fitted.
    heads: whether it needs heads of its own.
    instead: of the method of the same system that needs them, where they are not affordable.
    """

    system: str
    choices: Callable[[Material, int], list[Choice]]
    decision: Callable[[Bench], float]
    seeded: bool = False
    heads: bool = False
    instead: bool = False

    def runs(self, affordable: bool) -> bool:
        """Whether it is run for a model whose own heads are affordable, or not."""
        return not (self.instead if affordable else self.heads)


def _vocabulary(bench: Bench) -> float:
    return bench.vocabulary


def _mapped(bench: Bench) -> float:
    return bench.vocabulary + bench.price(mat.map_flops(bench))


def _cosine(bench: Bench) -> float:
    return bench.price(calm.saturation_flops(bench))


def _linear(bench: Bench, outputs: int = 2) -> float:
    return bench.price(2 * bench.config.hidden_size * outputs)


def _exits(bench: Bench) -> float:
    return _linear(bench, len(bench.prices))


def _perceptron(bench: Bench, outputs: int = 2) -> float:
    recipe = Recipe(steps=0)
    sizes = [bench.config.hidden_size, *[recipe.hidden_units] * recipe.hidden_layers, outputs]
    return bench.price(2 * sum(before * after for before, after in itertools.pairwise(sizes)))


def _actions(bench: Bench) -> float:
    return _perceptron(bench, 3)


def _nothing(bench: Bench) -> float:
    return 0.0


METHODS: dict[str, Method] = {
    "multinomial, correctness": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.multinomial(given.bench, *given.correct_gains, seed, given.steps),
        seeded=True,
        decision=_exits,
    ),
    "multinomial, likelihood": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.multinomial(given.bench, *given.likely_gains, seed, given.steps),
        seeded=True,
        decision=_exits,
    ),
    "geometric-like, correctness": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.geometric(given.bench, *given.correct_gains, seed, given.steps),
        seeded=True,
        decision=_linear,
    ),
    "geometric-like, likelihood": Method(
        "Depth Adaptive Transformers",
        lambda given, seed: depth_adaptive.geometric(given.bench, *given.likely_gains, seed, given.steps),
        seeded=True,
        decision=_linear,
    ),
    "entropy, own heads": Method(
        "DeeBERT",
        lambda given, seed: deebert.entropy(given.bench, given.said_by_heads[1:]),
        heads=True,
        decision=_vocabulary,
    ),
    "entropy": Method("DeeBERT", lambda given, seed: deebert.entropy(given.bench), decision=_vocabulary),
    "learn to exit, own heads": Method(
        "BERxIT",
        lambda given, seed: berxit.learnt(
            given.bench, given.train.rollouts, given.rights_of_heads, seed, given.steps
        ),
        seeded=True,
        heads=True,
        decision=_linear,
    ),
    "softmax difference": Method(
        "CALM", lambda given, seed: calm.difference(given.bench), decision=_vocabulary
    ),
    "softmax difference, falling bar": Method(
        "CALM", lambda given, seed: calm.difference(given.bench, falling=True), decision=_vocabulary
    ),
    "state saturation": Method("CALM", lambda given, seed: calm.saturated(given.bench), decision=_cosine),
    "linear classifier": Method(
        "CALM",
        lambda given, seed: calm.classifier(given.bench, given.train.rollouts, seed, given.steps),
        seeded=True,
        decision=_linear,
    ),
    "falling schedule": Method(
        "SkipDecode", lambda given, seed: skipdecode.scheduled(given.bench), decision=_nothing
    ),
    "linear maps": Method(
        "MAT", lambda given, seed: mat.confident(given.bench, given.parts, given.maps), decision=_mapped
    ),
    "softmax confidence": Method(
        "LITE", lambda given, seed: lite.confidence(given.bench), decision=_vocabulary
    ),
    "exit action": Method(
        "SEC",
        lambda given, seed: sec.exiting(given.bench, given.controllers[seed]),
        seeded=True,
        decision=_actions,
    ),
    "policy by hardness, own heads": Method(
        "ConsistentEE",
        lambda given, seed: consistentee.policy(
            given.bench, given.train.rollouts, given.rights_of_heads, seed, given.steps
        ),
        seeded=True,
        heads=True,
        decision=_perceptron,
    ),
    "policy by hardness": Method(
        "ConsistentEE",
        lambda given, seed: consistentee.policy(
            given.bench, given.train.rollouts, given.rights, seed, given.steps
        ),
        seeded=True,
        instead=True,
        decision=_perceptron,
    ),
    "hash by frequency": Method(
        "HashEE",
        lambda given, seed: hashee.hashed(given.bench, given.train, given.embeddings, False),
        decision=_nothing,
    ),
    "hash by clusters": Method(
        "HashEE",
        lambda given, seed: hashee.hashed(given.bench, given.train, given.embeddings, True),
        decision=_nothing,
    ),
    "votes": Method("Ensembles", lambda given, seed: ensemble.voted(given.bench), decision=_vocabulary),
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
    `seed` (-1 where nothing is drawn) and `decision` (price of one), and `stops.parquet` with the rows of `sec.stopped` and `seed`."""
    seeds = list(agents)[:MOST_SEEDS]
    with one_thread():
        given = gather(
            corpus, tuned, rollouts, prefixes, chosen, unseen, prefix_windows, context, probe_steps, seeds
        )
        frames = [
            settings_of(given, name, seed)
            for name, method in METHODS.items()
            if method.runs(affordable(given.parts))
            for seed in (seeds if method.seeded else [NO_SEED])
        ]
        ours = dict(zip(POLICIES, (agents, probes, stopping), strict=True))
        frames += [_settings_of_ours(given.bench, ours)]
        stops = [
            sec.stopped(unseen, given.references, controller).assign(seed=seed)
            for seed, controller in given.controllers.items()
        ]
    pd.concat(frames, ignore_index=True).to_parquet(folder / SETTINGS, index=False)
    pd.concat(stops, ignore_index=True).to_parquet(folder / STOPS, index=False)


def settings_of(given: Material, name: str, seed: int) -> pd.DataFrame:
    """The settings chosen for one method and seed."""
    method = METHODS[name]
    found = chosen_settings(given.bench, method.choices(given, seed))
    decision = method.decision(given.bench)
    return found.assign(system=method.system, method=name, seed=seed, decision=decision)


def _settings_of_ours(bench: Bench, ours: dict[str, dict[int, ExitPolicy]]) -> pd.DataFrame:
    frames = [chosen_settings(bench, []).assign(method=NOBODY, seed=NO_SEED, decision=0.0)]
    for name, policies in ours.items():
        for seed, policy in policies.items():
            found = chosen_settings(bench, by_policy(bench, policy))
            decision = bench.price(policy_flops(policy))
            frames.append(found.assign(method=name, seed=seed, decision=decision))
    return pd.concat(frames, ignore_index=True).assign(system=OURS)
