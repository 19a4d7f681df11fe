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


def threshold_sweep(study: Study, model: str, language: str, prompts: int = 8) -> Artifact:
    """One row a threshold and prompt: `threshold`, `prompt`, `milliseconds` as the client sees them, `mean_layers`,
    `total_layers`: `sweep.parquet`."""
    texts = sources(study, language, prompts)
    thresholds = [*study.profile.evaluation.thresholds, FULL]
    inputs = (fine_tuned(study, model, language), agent(study, model, language, 0), corpus(study, language))
    config = {"thresholds": thresholds, "prompts": prompts, "new_tokens": study.profile.context.new_tokens}
    stage = Stage(f"serving/{model}-{language}-thresholds", "evaluation", config, inputs)

    def measure(folder: Path) -> None:
        rows = []
        with (
            started(*arguments(study, model, language)) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
        ):
            complete(client, texts[0][:200], FULL)  # the first request of a connection is slower
            for number, text in enumerate(texts):
                for threshold in thresholds:
                    rows.append({"prompt": number} | complete(client, text[: len(text) // 2], threshold))
        pd.DataFrame(rows).to_parquet(folder / "sweep.parquet", index=False)

    return study.stage(stage, "09", measure)


def typing_session(study: Study, model: str, language: str, threshold: float, keys: int = 240) -> Artifact:
    """A file typed key by key, with early exit and without: `session.parquet`, one row a request.

    The editor asks when no key has come for DEBOUNCE seconds. Pauses between keys are log-normal, the same for both; they are
    not waited for. Columns: `setting`, `key`, and those of `complete`.
    """
    text = sources(study, language, 1)[0][:keys]
    inputs = (fine_tuned(study, model, language), agent(study, model, language, 0), corpus(study, language))
    config = {"threshold": threshold, "keys": keys, "new_tokens": study.profile.context.new_tokens}
    stage = Stage(f"serving/{model}-{language}-typing", "evaluation", config, inputs)

    def replay(folder: Path) -> None:
        rows = []
        with (
            started(*arguments(study, model, language)) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
        ):
            complete(client, text, FULL)
            for key in rests(len(text)):
                for setting, value in (("early exit", threshold), ("full depth", FULL)):
                    rows.append({"setting": setting, "key": key} | complete(client, text[:key], value))
        pd.DataFrame(rows).to_parquet(folder / "session.parquet", index=False)

    return study.stage(stage, "09", replay)


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
    """A typing session's sums: `setting`, `requests`, `tokens`, `mean_layers`, `time_s`, `gflops`, `energy_j`."""
    rows = pd.read_parquet(artifact.path / "session.parquet")
    table = rows.groupby("setting", sort=False).agg(
        requests=("key", "size"),
        tokens=("tokens", "sum"),
        mean_layers=("mean_layers", "mean"),
        time_s=("milliseconds", lambda column: column.sum() / 1000),
        gflops=("flops", lambda column: column.sum() / 1e9),
        energy_j=("energy_j", lambda column: column.sum(skipna=False)),
    )
    return table.reset_index()
