"""The endpoint under load: 1, 8 and 32 clients at once with mixed thresholds, on loopback.

    .venv/bin/python benchmarks/serve.py [--model opt-pico --language python] [--requests 96] [--seconds 120]

Starts the server as a process, first asks every request alone, then all of them by each number of clients, at most `--requests`
requests and `--seconds` seconds each. Prints throughput and latencies, writes `results/benchmarks/serve-<model>-<language>.json`, and
fails when an answer differs from the one the same request got alone.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from eelib import paths
from eelib.server.process import Server, started

CLIENTS = (1, 8, 32)
THRESHOLDS = (0.0, 0.6, 0.8, 0.9, 0.94, 1.0)
PROMPTS = {
    "python": ["import os\n\ndef read(self, path):\n", "class A(object):\n    def f(self", "for i in range("],
    "java": ["public class A {\n    private int size;\n", "for (int i = 0;", "import java.util."],
}


def requests_of(language: str, count: int) -> list[dict]:
    """Requests that differ in prompt, threshold and length."""
    mixed = itertools.cycle(itertools.product(PROMPTS[language], THRESHOLDS, (5, 15)))
    return [
        {"prompt": prompt, "exit_threshold": threshold, "max_tokens": tokens}
        for prompt, threshold, tokens in itertools.islice(mixed, count)
    ]


def ask(client: httpx.Client, request: dict) -> tuple[tuple, float]:
    """What a request is answered, and its seconds."""
    started_at = time.perf_counter()
    answer = client.post("/v1/completions", json=request)
    seconds = time.perf_counter() - started_at
    answer.raise_for_status()
    body = answer.json()
    return (body["choices"][0]["text"], body["early_exit"]["layers_used"]), seconds


def load(server: Server, requests: list[dict], alone: list[tuple], clients: int, limit: float) -> dict:
    """All requests by so many clients, until the time is over."""
    ends = time.perf_counter() + limit

    def one(client: httpx.Client, index: int):
        if time.perf_counter() > ends:
            return None
        return ask(client, requests[index]), alone[index]

    with httpx.Client(
        base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=clients)
    ) as client:
        started_at = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            asked = [result for result in pool.map(lambda i: one(client, i), range(len(requests))) if result]
        wall = time.perf_counter() - started_at
    seconds = sorted(result[1] for result, _ in asked)
    tokens = sum(len(result[0][1]) for result, _ in asked)
    return {
        "clients": clients,
        "requests": len(asked),
        "requests_per_s": len(asked) / wall,
        "tokens_per_s": tokens / wall,
        "p50_s": statistics.median(seconds),
        "p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
        "different": sum(result[0] != expected for result, expected in asked),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="opt-pico")
    parser.add_argument("--language", default="python", choices=["python", "java"])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    requests = requests_of(args.language, args.requests)
    chosen = ["--profile", args.profile, "--model", args.model, "--language", args.language]
    rows = []
    with started(*chosen, "--deadline", "120") as server:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            alone = [ask(client, request)[0] for request in requests]
        print(
            f"{'clients':>8}{'requests':>10}{'req/s':>8}{'tokens/s':>10}{'p50':>9}{'p99':>9}{'different':>11}"
        )
        for clients in CLIENTS:
            row = load(server, requests, alone, clients, args.seconds)
            rows.append(row)
            print(
                f"{clients:>8}{row['requests']:>10}{row['requests_per_s']:>8.1f}{row['tokens_per_s']:>10.1f}"
                f"{1000 * row['p50_s']:>6.0f} ms{1000 * row['p99_s']:>6.0f} ms{row['different']:>11}",
                flush=True,
            )
    path = paths.results() / "benchmarks" / f"serve-{args.model}-{args.language}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print(path)
    if different := sum(row["different"] for row in rows):
        sys.exit(f"error: {different} answers differ from what the same request got alone.")


if __name__ == "__main__":
    main()
