"""Ratios of decoding speed, each from one process with its sides interleaved, as medians.

    .venv/bin/python benchmarks/decode.py [--model opt-pico | smollm2-135m | llama-350m] [--dtype bfloat16] [--repeats 15] [--new 30]

Prints a table and writes `results/benchmarks/decode-<model>-<dtype>.json`.
"""

import argparse

import torch
from measuring import interleaved, model_named, random_policy, random_prompts, report

from eelib.decoding.cache import CacheMode, KeyValueCache
from eelib.decoding.criteria import Agent, FixedLayer, FullDepth, Scripted
from eelib.decoding.generate import generate, most_probable
from eelib.models.parts import ModelParts

PROMPT = 120  # a context of the laptop profile
REPEATED = 100


def fills(parts: ModelParts, first: int):
    """The two ways to fill the layers from `first` on for one token: one product, and layer by layer."""
    state = torch.randn(1, 1, parts.width, dtype=parts.model.dtype)
    rotation = parts.fused.rotation(torch.tensor([[PROMPT]]))
    cache = KeyValueCache(parts, 1, PROMPT + 1)
    total = parts.total_layers

    def batched() -> None:
        cache.lengths = [PROMPT] * total
        cache.fill(*parts.fused.keys_values(state, rotation, first, total), first)

    def one_by_one() -> None:
        cache.lengths = [PROMPT] * total
        for layer in range(first, total + 1):
            cache.update(*(part[0] for part in parts.fused.keys_values(state, rotation, layer, layer)), layer)

    return {"fill, batched": lambda: repeat(batched), "fill, layer by layer": lambda: repeat(one_by_one)}


@torch.inference_mode()
def repeat(side) -> None:
    """A fill or a head is microseconds: a hundred of them are timed."""
    for _ in range(REPEATED):
        side()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="opt-pico", help="a shipped model, or llama-350m")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--new", type=int, default=30, help="tokens to generate")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    new = args.new
    parts = model_named(args.model, getattr(torch, args.dtype))
    prompt = random_prompts(parts, 1, PROMPT)[0]
    ids = torch.tensor([prompt])
    # A cache that no early exit has touched is the same in every mode.
    cached, total = CacheMode.PROPAGATE, parts.total_layers
    half = max(layer for layer in parts.exit_points if layer <= total // 2)
    stops = [*parts.exit_points, total]
    trace = Scripted([[stops[(7 * token) % len(stops)] for token in range(new)]])
    agent = Agent(random_policy(parts), 1.0)
    state = torch.randn(1, parts.width, dtype=parts.model.dtype)
    theirs = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    sides = {
        "generate": lambda: parts.model.generate(ids, attention_mask=torch.ones_like(ids), **theirs),
        "generate, prompt": lambda: parts.model.generate(
            ids, attention_mask=torch.ones_like(ids), **theirs | {"max_new_tokens": 1, "min_new_tokens": 1}
        ),
        "full": lambda: generate(parts, prompt, new, FullDepth(), cached),
        "full, uncached": lambda: generate(parts, prompt, new, FullDepth()),
        "half": lambda: generate(parts, prompt, new, FixedLayer(half), cached),
        "half, uncached": lambda: generate(parts, prompt, new, FixedLayer(half)),
        "never-exit agent": lambda: generate(parts, prompt, new, agent, cached),
        "prompt": lambda: generate(parts, prompt, 1, FullDepth(), cached),
        "head": lambda: repeat(lambda: most_probable(parts.logits(state))),
    }
    sides |= {
        f"trace, {mode.value}": lambda mode=mode: generate(parts, prompt, new, trace, mode)
        for mode in CacheMode
    }
    seconds = interleaved(sides | fills(parts, half + 1), args.repeats)
    steps = {
        name: seconds[name] - seconds["prompt"]
        for name in seconds
        if name.startswith(("full", "half", "never"))
    }
    # What a token costs besides its layers, whichever it leaves at, and the fill that full depth does without.
    head, fill = (seconds[name] / REPEATED for name in ("head", "fill, batched"))
    token = steps["full"] / (new - 1)
    with_half = (token - head) * half / total + head + fill
    pico = args.model != "llama-350m"
    ideal = half / total
    depth = sum(trace.layers[0]) / new / total
    ratios = {
        "full depth, cached: speed over generate": (
            seconds["generate"] / seconds["full"],
            "aim 1.5 or more" if pico else "aim 1.0 or more",
        ),
        "full depth, cached, steps alone: speed over generate": (
            (seconds["generate"] - seconds["generate, prompt"]) / steps["full"],
            "",
        ),
        "half depth, propagate: speed-up of steps over the ideal": (
            steps["full"] / steps["half"] * ideal,
            "aim 0.95 or more",
        ),
        "half depth, propagate: the same for layers, one head and the fill": (
            token / with_half * ideal,
            "the most there is to reach",
        ),
        "half depth, uncached: speed-up over the ideal": (
            seconds["full, uncached"] / seconds["half, uncached"] * ideal,
            "",
        ),
        "fill of skipped layers: layer by layer over batched": (
            seconds["fill, layer by layer"] / seconds["fill, batched"],
            "aim 3 or more",
        ),
        "never-exit agent: time a token over no agent": (
            steps["never-exit agent"] / steps["full"],
            "aim 1.04 or less" if pico else "aim 1.01 or less",
        ),
        "full depth: uncached time over cached": (seconds["full, uncached"] / seconds["full"], ""),
    }
    ratios |= {
        f"replayed trace of {depth:.0%} depth, {mode.value}: time over cached full": (
            seconds[f"trace, {mode.value}"] / seconds["full"],
            "",
        )
        for mode in CacheMode
    }
    report(f"decode-{args.model}-{args.dtype}", ratios, {"seconds": seconds, "prompt": PROMPT, "new": new})


if __name__ == "__main__":
    main()
