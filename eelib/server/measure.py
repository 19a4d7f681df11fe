"""Measurements through the running endpoint, as stages of notebook 09."""

import itertools
import math
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from eelib.pipeline.agents import agent
from eelib.pipeline.corpora import corpus, files_of
from eelib.pipeline.models import fine_tuned
from eelib.pipeline.study import Study
from eelib.server.process import started
from eelib.server.text import source_of
from eelib.study.errors import InputError
from eelib.study.stages import Artifact, Stage

KEYS_PER_SECOND = 5  # a fluent typist
SPREAD = 0.6  # of the logarithm of the pause between two keys
DEBOUNCE = 0.3  # seconds of rest after which an editor asks
SHORTEST = 600  # characters of a file that is typed
FULL = 1.0  # a threshold that nothing exceeds


def arguments(study: Study, model: str, language: str) -> list[str]:
    """The command line of a server of this study's fine-tuned model and first agent."""
    tuned, trained = fine_tuned(study, model, language), agent(study, model, language, 0)
    return [
        *(
            "--model-path",
            str(tuned.path / "model"),
            "--agent-path",
            str(trained.path),
            "--language",
            language,
        ),
        *("--new-tokens", str(study.profile.context.new_tokens), "--max-new-tokens", "64"),
    ]


def sources(study: Study, language: str, count: int) -> list[str]:
    """Source text of the first test files that are long enough to type; none at all gives InputError."""
    files = files_of(corpus(study, language), "test")
    texts = (source_of(file.code, language) for file in sorted(files, key=lambda file: file.id))
    chosen = list(itertools.islice((text for text in texts if len(text) >= SHORTEST), count))
    if not chosen:
        raise InputError(
            f"No test file of {language} has {SHORTEST} characters: allowed are corpora with one."
        )
    return chosen


def measured(study: Study, model: str, language: str, prompts: int = 5, keys: int = 80) -> Artifact:
    """One server, measured as its clients see it: `sweep.parquet` and `session.parquet`.

    sweep: one row a prompt (the first half of a test file) and threshold: `prompt` and the columns of `complete`.
    session: one row a request of a typing session and threshold: `key` and the same. A test file is typed key by key from its
    middle on; the editor asks when no key has come for DEBOUNCE seconds. Pauses are not waited for.
    """
    texts = sources(study, language, prompts)
    thresholds = [*study.profile.evaluation.thresholds, FULL]
    stage = Stage(
        f"serving/{model}-{language}",
        layer="evaluation",
        config={"thresholds": thresholds, "prompts": prompts, "keys": keys}
        | {"new_tokens": study.profile.context.new_tokens},
        inputs=(
            fine_tuned(study, model, language),
            agent(study, model, language, 0),
            corpus(study, language),
        ),
    )

    def measure(folder: Path) -> None:
        halves = [text[: len(text) // 2] for text in texts]
        rest = texts[0][len(halves[0]) :]
        with (
            started(*arguments(study, model, language)) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
        ):
            complete(client, halves[0], FULL)  # the first request of a connection is slower
            sweep = [
                {"prompt": number} | complete(client, half, threshold)
                for number, half in enumerate(halves)
                for threshold in thresholds
            ]
            session = [
                {"key": key} | complete(client, halves[0] + rest[:key], threshold)
                for key in rests(min(keys, len(rest)))
                for threshold in typed_thresholds(study)
            ]
        pd.DataFrame(sweep).to_parquet(folder / "sweep.parquet", index=False)
        pd.DataFrame(session).to_parquet(folder / "session.parquet", index=False)

    return study.stage(stage, "09", measure)


def typed_thresholds(study: Study) -> list[float]:
    """The thresholds of the typing session: the lowest, the middle one, and full depth."""
    thresholds = study.profile.evaluation.thresholds
    return list(dict.fromkeys([min(thresholds), thresholds[len(thresholds) // 2], FULL]))


def rests(keys: int, seed: int = 0) -> list[int]:
    """After which keys, counted from 1, a typist rests for longer than the editor's debounce."""
    pauses = np.random.default_rng(seed).lognormal(math.log(1 / KEYS_PER_SECOND), SPREAD, keys)
    return [int(key) for key in np.flatnonzero(pauses > DEBOUNCE) + 1]


def complete(client: httpx.Client, prompt: str, threshold: float) -> dict[str, float]:
    """One completion: `threshold`, `milliseconds`, `tokens`, `mean_layers`, `total_layers`, `flops`, `energy_j` (NaN where unmeasured)."""
    answer = client.post("/generate", json={"inputs": prompt, "exit_threshold": threshold})
    answer.raise_for_status()
    said = answer.json()["early_exit"]
    return {
        "threshold": threshold,
        "milliseconds": 1000 * answer.elapsed.total_seconds(),
        "tokens": len(said["layers_used"]),
        "mean_layers": said["mean_layers"],
        "total_layers": said["total_layers"],
        "flops": said["flops"],
        "energy_j": math.nan if said["energy_j"] is None else said["energy_j"],
    }


def session_table(artifact: Artifact) -> pd.DataFrame:
    """A typing session's sums by `threshold`: `requests`, `tokens`, `mean_layers`, `time_s`, `gflops`, `energy_j`."""
    rows = pd.read_parquet(artifact.path / "session.parquet")
    table = rows.groupby("threshold", sort=False).agg(
        requests=("key", "size"),
        tokens=("tokens", "sum"),
        mean_layers=("mean_layers", "mean"),
        time_s=("milliseconds", lambda column: column.sum() / 1000),
        gflops=("flops", lambda column: column.sum() / 1e9),
        energy_j=("energy_j", lambda column: column.sum(skipna=False)),
    )
    return table.reset_index()
