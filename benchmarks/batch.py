"""An evaluation sweep, thresholds x prompts: batched over one prompt at a time without a cache, and whether they agree.

    .venv/bin/python benchmarks/batch.py [--model opt-pico] [--prompts 64]

Prints the ratio and writes `results/benchmarks/batch-<model>.json`.
"""

import argparse
import sys
import time

import torch
from measuring import model_named, random_policy, random_prompts, report

from eelib.decoding.batch import BatchDecoder
from eelib.decoding.criteria import Agent
from eelib.decoding.generate import generate

THRESHOLDS = (0.6, 0.8, 0.9, 0.91, 0.92)
PROMPT, NEW = 120, 15


def main() -> None:
    """Measure once on each side: the slow one takes minutes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="opt-pico")
    parser.add_argument("--prompts", type=int, default=64)
    args = parser.parse_args()
    parts = model_named(args.model, torch.float32)
    # Of different lengths, as contexts are.
    prompts = [
        prompt[: PROMPT - 40 + i % 41] for i, prompt in enumerate(random_prompts(parts, args.prompts, PROMPT))
    ]
    criteria = [Agent(random_policy(parts), threshold) for threshold in THRESHOLDS]
    generate(parts, prompts[0], NEW, criteria[0])  # warm-up
    started = time.perf_counter()
    decoder = BatchDecoder(parts, prompts, NEW)
    batched = [decoder.decode(criterion) for criterion in criteria]
    middle = time.perf_counter()
    single = [[generate(parts, prompt, NEW, criterion) for prompt in prompts] for criterion in criteria]
    seconds = {"batched": middle - started, "one by one": time.perf_counter() - middle}
    tokens = len(criteria) * len(prompts) * NEW
    differing = sum(
        a != b
        for ours, theirs in zip(batched, single, strict=True)
        for first, second in zip(ours, theirs, strict=True)
        for a, b in zip(first.tokens, second.tokens, strict=True)
    )
    ratios = {
        "sweep: one by one, uncached, over batched": (
            seconds["one by one"] / seconds["batched"],
            "aim 20 or more",
        ),
        "tokens that differ": (differing / tokens, "aim 0"),
    }
    report(f"batch-{args.model}", ratios, {"seconds": seconds, "tokens": tokens})
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
