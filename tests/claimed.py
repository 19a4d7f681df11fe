"""A made-up run in which every claim of the thesis that can be made up holds: for tests that change one thing in it."""

import numpy as np
import pandas as pd

from eelib.evaluation.claims.results import Results
from eelib.models.exits import exit_points

PROJECTS = 20
TOKENS = 15
LAST = {"smollm2-135m": 30, "opt-pico": 32}
FAMILIES = {"smollm2-135m": "llama", "opt-pico": "opt"}
SETTINGS = [(model, language) for model in LAST for language in ("java", "python")]
THRESHOLDS = [0.6, 0.8, 0.9, 0.94]
# Tokens of fifteen that leave at layer 4, at Java's thresholds; Python has one more.
EARLY = {0.6: 10, 0.8: 8, 0.9: 6, 0.94: 5}


def noise(project: int) -> float:
    """Small, and the same for everything of a project."""
    return 0.01 * np.sin(7.0 * project)


def jitter(project: int, *what: object) -> int:
    """1 in one project, -1 in another, others for everything else: nothing agrees in all projects."""
    return {0: 1, 1: -1}.get((3 * project + sum(map(ord, repr(what)))) % PROJECTS, 0)


def texts(project: int, right: int) -> dict[str, str]:
    """A reference, and a prediction that has its first words right: ROUGE-L is `right` / 15."""
    words = [f"w{project}a{place}" for place in range(TOKENS)]
    wrong = [f"x{place}" for place in range(TOKENS)]
    return {"reference": " ".join(words), "prediction": " ".join(words[:right] + wrong[right:])}


def layers() -> pd.DataFrame:
    rows = []
    for model, language in SETTINGS:
        last, better = LAST[model], 0.1 * (language == "python")
        trained = [*exit_points(last), last]
        for layer in range(1, last + 1):
            line = np.interp(layer, [4, 6, last], [0.5, 0.6, 0.72]) + better
            dip = 0.0 if layer in trained else {"llama": -0.2, "opt": -0.1}[FAMILIES[model]]
            levels = {
                "aggregated": line + dip,
                "base": 0.02 if layer <= 12 else (0.74 + better) * layer / last,
            }
            for kind, level in levels.items():
                for project in range(PROJECTS):
                    # The untrained layers' dips differ between projects, the differences of kinds as well.
                    own = noise(project) + 0.1 * noise(project + layer + 3 * len(kind))
                    agreement = min(1.0, 0.8 + 0.015 * (layer - 2) + noise(project))
                    row = {
                        "model": model,
                        "language": language,
                        "kind": kind,
                        "layer": layer,
                        "accuracy": level + own,
                    }
                    rows.append(
                        row | {"sample": f"f{project}", "project": f"p{project}", "agreement": agreement}
                    )
    return pd.DataFrame(rows).assign(node="layer_accuracy", tokens=TOKENS)


def predictions() -> pd.DataFrame:
    rows = []

    def add(node: str, place: tuple, project: int, right: int, exits: list[int], **more: object) -> None:
        model, language = place
        row = {
            "node": node,
            "model": model,
            "language": language,
            "project": f"p{project}",
            "sample": f"f{project}",
        }
        row |= {
            "kind": None,
            "context_fraction": 0.2,
            "threshold": np.nan,
            "seed": -1,
            "cache": "none",
            "step": np.nan,
        }
        what = [node, model, language, *more.values()]
        right += jitter(project, what)
        if node in ("agent_predictions", "cached_predictions"):
            left = exits.count(4) + jitter(project, what, "exits")
            exits = [4] * left + [LAST[model]] * (TOKENS - left)
        flops = 1e9 * sum(exits) * (1 + (more.get("context_fraction") == 0.6))
        row |= {"exit_layers": exits, "agrees": [True] * len(exits), "flops": flops, "prompt_tokens": 100}
        rows.append(row | texts(project, right) | more)

    for place in SETTINGS:
        model, language = place
        last = LAST[model]
        for project in range(PROJECTS):
            some = project % 5 == 0  # projects in which things are a little better
            for context in (0.2, 0.6):
                for kind, right in {"base": 12, "plain": 13, "aggregated": 11}.items():
                    full = {"kind": kind, "criterion": "full", "context_fraction": context}
                    add("full_predictions", place, project, right + some, [last] * TOKENS, **full)
                for threshold in THRESHOLDS:
                    left = EARLY[threshold] + (language == "python") + (some and threshold == 0.6)
                    exits = [4] * left + [last] * (TOKENS - left)
                    right = {0.6: 9, 0.8: 10, 0.9: 11, 0.94: 11}[threshold] - 2 * (context == 0.6) + some
                    agrees = [not some] + [True] * (TOKENS - 1)
                    agent = {"criterion": "agent", "threshold": threshold, "kind": "aggregated"}
                    agent |= {"agrees": agrees, "context_fraction": context}
                    for seed in (0, 1):
                        add("agent_predictions", place, project, right, exits, seed=seed, **agent)
                    if context == 0.2:
                        cached = {
                            "criterion": "agent",
                            "threshold": threshold,
                            "cache": "propagate",
                            "seed": 0,
                        }
                        add("cached_predictions", place, project, right, exits, **cached)
            for layer, right in {6: 5, last: 11}.items():
                fixed = {"criterion": "fixed", "threshold": float(layer)}
                add("fixed_exit_predictions", place, project, right + some, [layer] * TOKENS, **fixed)
            if place == ("opt-pico", "java"):
                for step, gain in {0: 0, 14: 0, 28: 2}.items():
                    for layer in (4, 6, 28, 32):
                        right = 6 + gain + some if layer < 16 else 10 - gain + some
                        epoch = {"criterion": "fixed", "threshold": float(layer), "step": step}
                        add("epoch_predictions", place, project, right, [layer] * TOKENS, **epoch)
    return pd.DataFrame(rows)


def timings() -> pd.DataFrame:
    rows = []

    def add(node: str, place: tuple, sample: int, criterion: str, seconds: float, **more: object) -> None:
        row = {
            "node": node,
            "model": place[0],
            "language": place[1],
            "sample": f"f{sample}",
            "criterion": criterion,
        }
        row |= {
            "kind": "aggregated",
            "threshold": np.nan,
            "cache": "none",
            "context_fraction": 0.2,
            "repeat": 0,
            "tokens": TOKENS,
        }
        rows.append(row | {"seconds": seconds, "joules": 50 * seconds} | more)

    for place in SETTINGS:
        last = LAST[place[0]]
        for sample in range(5):
            scale = 1 + noise(sample)
            for layer in [*exit_points(last), last]:
                seconds = (1 + layer + 0.1 * noise(sample + layer)) * scale
                add("fixed_exit_timings", place, sample, "fixed", seconds, threshold=float(layer))
            for threshold in THRESHOLDS:
                agent = {"threshold": threshold, "cache": "propagate"}
                add("timings", place, sample, "agent", 0.64 + noise(sample), **agent)
                add("timings", place, sample, "scripted", 0.6, **agent)
            for cache in ("none", "propagate"):
                add("timings", place, sample, "full", 1.0, cache=cache)
                add("timings", place, sample, "full", 1.5, cache=cache, kind="base")
            add("timings", place, sample, "never", 1.1 + noise(sample), cache="propagate")
    return pd.DataFrame(rows)


def recorded() -> pd.DataFrame:
    rng, tables = np.random.default_rng(0), []
    for (model, language), share in zip(SETTINGS, (0.59, 0.69, 0.5, 0.6), strict=True):
        layer = np.where(rng.random((100, TOKENS)) < share, 4, 6).ravel()
        prompts = np.repeat(np.arange(100), TOKENS)
        tables.append(pd.DataFrame({"model": model, "language": language, "prompt": prompts, "layer": layer}))
    return pd.concat(tables, ignore_index=True)


def episodes() -> pd.DataFrame:
    tables = []
    for model, language in SETTINGS:
        level, spread = {"llama": (0.8, 0.05), "opt": (0.5, 0.15)}[FAMILIES[model]]
        for seed in range(6):
            rng = np.random.default_rng(seed)
            reward = np.r_[np.linspace(-0.5, level, 300), np.full(2700, level)] + spread * rng.normal(
                size=3000
            )
            row = {
                "model": model,
                "language": language,
                "seed": seed,
                "episode": np.arange(3000),
                "reward": reward,
            }
            tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


def files() -> pd.DataFrame:
    rows = []
    for project in range(40):
        for place in range(25):
            tokens = 6000 + place if (project, place) in {(0, 0)} else 300 + 40 * place
            java = {"language": "java", "tokens": tokens, "share": 0.2 + noise(project)}
            python = {"language": "python", "tokens": 500, "share": 0.05 + noise(project + 1)}
            rows += [row | {"project": f"p{project}"} for row in (java, python)]
    return pd.DataFrame(rows)


def small() -> dict[str, pd.DataFrame]:
    """The datasets that hold no samples."""
    cost, depth, alone = [], [], []
    for number, (model, language) in enumerate(SETTINGS):
        place = {"model": model, "language": language}
        ends = {"low": 0.2, "high": 0.4, "over_agent": -0.2, "over_agent_low": -0.3, "over_agent_high": -0.1}
        ends |= {"over_confidence": 0.2, "over_confidence_low": 0.1, "over_confidence_high": 0.3}
        cost += [place | {"method": name, "share": 0.3} | ends for name in ("agent", "probe")]
        for method, share in {"agent": 0.5, "confidence": 0.2}.items():
            row = {"method": method, "share": share, "low": share - 0.1, "high": share + 0.1}
            depth.append(place | row | {"over": "all depths", "against": "coin between fixed exits"})
        times = {"agent with softmax": 40.0, "linear classifier": 30.0, "norm + head + softmax": 400.0}
        alone += [
            place | {"method": name, "microseconds": us * (1 + 0.02 * number)} for name, us in times.items()
        ]
        alone[-1]["microseconds"] *= 1.01 ** (number % 3)
        alone[-2]["microseconds"] *= 1 + 0.01 * number
    serving = [
        {"model": "smollm2-135m", "language": "java", "measured": "sweep", "prompt": float(prompt)}
        | {"threshold": threshold, "mean_layers": 10 * threshold + noise(prompt + threshold)}
        for prompt in range(6)
        for threshold in (0.6, 0.9, 1.0)
    ]
    decisions = pd.DataFrame(alone).assign(node="decision_cost")
    frames = {"equal_cost": cost, "agents": depth, "serving": serving}
    return {name: pd.DataFrame(rows) for name, rows in frames.items()} | {"decisions": decisions}


def world() -> Results:
    """The run."""
    frames = {"layers": layers(), "predictions": predictions(), "timings": timings(), "optimal": recorded()}
    frames |= {"episodes": episodes(), "files": files()} | small()
    prices = {model: {n: n / last for n in [*exit_points(last), last]} for model, last in LAST.items()}
    return Results(
        frames, SETTINGS, FAMILIES, prices, dict.fromkeys(LAST, 10**7), dict.fromkeys(LAST, 0.001), hub=False
    )
