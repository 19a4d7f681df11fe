"""Ratios of decoding speed, each from one process with its sides interleaved, as medians.

    .venv/bin/python benchmarks/decode.py [--model llama-pico] [--repeats 15]

Prints a table and writes `results/benchmarks/decode-<model>.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent, FixedLayer, FullDepth
from eelib.decoding.generate import generate
from eelib.decoding.policy import ExitPolicy
from eelib.models.loading import load_model
from eelib.models.parts import take_apart

PROMPT, NEW = 200, 30


def interleaved(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; all run once a round, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="llama-pico")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    parts = take_apart(load_model(args.model))
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(4, parts.model.config.vocab_size, (PROMPT,), generator=generator).tolist()
    ids = torch.tensor([prompt])
    half = max(layer for layer in parts.exit_points if layer <= parts.total_layers // 2)
    policy = ExitPolicy(
        [torch.randn(64, parts.width), torch.randn(64, 64), torch.randn(2, 64)],
        [torch.zeros(64), torch.zeros(64), torch.zeros(2)],
        args.model,
    )
    cached = CacheMode.PROPAGATE
    seconds = interleaved(
        {
            "generate": lambda: parts.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
            ),
            "full": lambda: generate(parts, prompt, NEW, FullDepth(), cached),
            "full, uncached": lambda: generate(parts, prompt, NEW, FullDepth()),
            "half": lambda: generate(parts, prompt, NEW, FixedLayer(half), cached),
            "half, uncached": lambda: generate(parts, prompt, NEW, FixedLayer(half)),
            "never-exit agent": lambda: generate(parts, prompt, NEW, Agent(policy, 1.0), cached),
            "prompt alone": lambda: generate(parts, prompt, 1, FullDepth(), cached),
        },
        args.repeats,
    )
    ideal = half / parts.total_layers
    steps = {name: seconds[name] - seconds["prompt alone"] for name in ("full", "half", "never-exit agent")}
    ratios = {
        "full depth, cached: speed over generate": seconds["generate"] / seconds["full"],
        "half depth, cached: speed-up of steps over the ideal": steps["full"] / steps["half"] * ideal,
        "half depth, uncached: speed-up over the ideal": seconds["full, uncached"]
        / seconds["half, uncached"]
        * ideal,
        "never-exit agent: time a token over no agent": steps["never-exit agent"] / steps["full"],
        "full depth: cached speed over uncached": seconds["full, uncached"] / seconds["full"],
    }
    for name, ratio in ratios.items():
        print(f"{name:<56} {ratio:6.2f}")
    target = Path("results/benchmarks") / f"decode-{args.model}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"ratios": ratios, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
