"""What keeping keys and values between requests brings: warm against cold time of a request behind a prefix of about 1,000 characters.

    .venv/bin/python benchmarks/warm.py [--language python] [--keys 8] [--threads 1]

A shipped file is typed key by key behind its first 1,000 characters; after each key the decoder runs the prompt with what the
keys before have left, and without. The sides take turns, medians over keys; fails when their tokens or layers differ.
"""

import argparse
import statistics
import sys
import time

import torch
from measuring import report

from eelib.data.corpus import shipped_corpus
from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent
from eelib.server.artifacts import Loaded, of_shipped
from eelib.server.measure import sources
from eelib.server.reading import read_source
from eelib.server.text import encode
from eelib.server.warm import Kept, WarmDecoder

PREFIX = 1000  # characters
CONTEXT = 1024


def timed(loaded: Loaded, prompt: list[int], new_tokens: int, threshold: float, kept: Kept) -> dict:
    """A request's decoding: its `steps`, `seconds`, and the `first` of these, to the first token."""
    began = time.perf_counter()
    decoder = WarmDecoder(loaded.parts, prompt, new_tokens, CacheMode.PROPAGATE, kept)
    while not decoder.prefill():
        pass
    agent = Agent(loaded.policy, threshold)
    steps = [decoder.step(agent)]
    first = time.perf_counter() - began
    steps += [decoder.step(agent) for _ in range(new_tokens - 1)]
    seconds = time.perf_counter() - began
    return {"steps": steps, "seconds": seconds, "first": first, "warm": decoder.warm, "prompt": len(prompt)}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--language", default="python", choices=["python", "java"])
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=15)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = of_shipped(args.model, args.language).load()
    files = sources(shipped_corpus(args.language), args.language, 1000)
    text = next(text for text in files if len(text) >= PREFIX + args.keys)
    kept, sides = Kept(2**28), {"warm": [], "cold": []}
    for key in range(args.keys + 1):
        code = read_source(text[: PREFIX + key], args.language).code
        prompt, _ = encode(code, loaded.tokenizer, CONTEXT - args.new_tokens)
        for side, held in (("warm", kept), ("cold", Kept(0))):
            sides[side].append(timed(loaded, prompt, args.new_tokens, args.threshold, held))
    different = sum(a["steps"] != b["steps"] for a, b in zip(*sides.values(), strict=True))

    def ratio(what: str) -> float:
        warm, cold = (statistics.median(row[what] for row in rows[1:]) for rows in sides.values())
        return cold / warm

    report(
        f"warm-{args.model}-{args.language}",
        {
            "cold / warm, time of a request": (ratio("seconds"), "at least 5"),
            "cold / warm, time to the first token": (ratio("first"), ""),
        },
        {
            "prefix_characters": PREFIX,
            "prompt_tokens": [row["prompt"] for row in sides["warm"][1:]],
            "warm_tokens": [row["warm"] for row in sides["warm"][1:]],
            "new_tokens": args.new_tokens,
            "threshold": args.threshold,
            "different": different,
        },
    )
    if different:
        sys.exit(f"error: {different} warm answers differ from the cold ones.")


if __name__ == "__main__":
    main()
