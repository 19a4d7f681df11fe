"""Measurements through the running endpoint: a node of notebook 09 beside the graph, for the core does not know the endpoint."""

import itertools
import math
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from eelib.data.corpus import CodeFile, split_of
from eelib.errors import InputError
from eelib.evaluation.predict import middle
from eelib.server.process import started
from eelib.server.text import source_of
from eelib.study.node import Input, Node
from eelib.study.study import Study

KEYS_PER_SECOND = 5  # a fluent typist
SPREAD = 0.6  # of the logarithm of the pause between two keys
DEBOUNCE = 0.3  # seconds of rest after which an editor asks
SHORTEST = 600  # characters of a file that is typed
FULL = 1.0  # a threshold that nothing exceeds


def arguments(study: Study, model: str, language: str) -> list[str]:
    """The command line of a server of this study's fine-tuned model and first agent."""
    tuned = study.need("model", model=model, language=language, kind="aggregated")
    trained = study.need("agent", model=model, language=language, seed=0)
    return command(tuned.path, trained.path, language, study.profile.context.new_tokens)


def command(tuned: Path, agent: Path, language: str, new_tokens: int) -> list[str]:
    """The command line of a server of a model and an agent, by their folders; every request runs its whole prompt."""
    return [
        *("--model-path", str(tuned), "--agent-path", str(agent), "--language", language),
        *("--new-tokens", str(new_tokens), "--max-new-tokens", "64", "--warm-bytes", "0"),
    ]


def sources(corpus: list[CodeFile], language: str, count: int) -> list[str]:
    """Source text of the first test files that are long enough to type; none at all gives InputError."""
    files = split_of(corpus, "test")
    texts = (source_of(file.code, language) for file in sorted(files, key=lambda file: file.id))
    chosen = list(itertools.islice((text for text in texts if len(text) >= SHORTEST), count))
    if not chosen:
        raise InputError(
            f"No test file of {language} has {SHORTEST} characters: allowed are corpora with one."
        )
    return chosen


def serving(
    tuned: Path,
    agent: Path,
    corpus: list[CodeFile],
    language: str,
    thresholds: list[float],
    new_tokens: int,
    prompts: int = 3,
    keys: int = 40,
) -> pd.DataFrame:
    """One server, measured as its clients see it.

    Returns
    -------
    Rows of `complete` and `measured`: "sweep", a request for every `prompt` (the first half of a test file) and threshold; and
    "session", a request for every threshold of `typed_thresholds` and `key` after which the editor asks in a typing session. A
    test file is typed key by key from its middle on; the editor asks when no key has come for DEBOUNCE seconds. Pauses are not
    waited for.
    """
    texts = sources(corpus, language, prompts)
    halves = [text[: len(text) // 2] for text in texts]
    rest = texts[0][len(halves[0]) :]
    with (
        started(*command(tuned, agent, language, new_tokens)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        complete(client, halves[0], FULL)  # the first request of a connection is slower
        sweep = [
            {"measured": "sweep", "prompt": number} | complete(client, half, threshold)
            for number, half in enumerate(halves)
            for threshold in [*thresholds, FULL]
        ]
        session = [
            {"measured": "session", "key": key} | complete(client, halves[0] + rest[:key], threshold)
            for key in rests(min(keys, len(rest)))
            for threshold in typed_thresholds(thresholds)
        ]
    return pd.DataFrame([*sweep, *session])


SERVING = Node(
    "serving",
    "09",
    serving,
    ("model", "language"),
    {
        "tuned": Input("model", at={"kind": "aggregated"}, unread=True),
        "agent": Input("agent", at={"seed": 0}, unread=True),
        "corpus": Input("corpus"),
    },
    ("evaluation.thresholds", "context.new_tokens"),
    timed=True,
    dataset="serving",
)


def typed_thresholds(thresholds: list[float]) -> list[float]:
    """The thresholds of the typing session: the lowest, the middle one, and full depth."""
    return list(dict.fromkeys([min(thresholds), middle(thresholds), FULL]))


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


def session_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A typing session's sums by `threshold`: `requests`, `tokens`, `mean_layers`, `time_s`, `gflops`, `energy_j`."""
    session = rows[rows["measured"] == "session"]
    table = session.groupby("threshold", sort=False).agg(
        requests=("key", "size"),
        tokens=("tokens", "sum"),
        mean_layers=("mean_layers", "mean"),
        time_s=("milliseconds", lambda column: column.sum() / 1000),
        gflops=("flops", lambda column: column.sum() / 1e9),
        energy_j=("energy_j", lambda column: column.sum(skipna=False)),
    )
    return table.reset_index()
