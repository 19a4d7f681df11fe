"""What the benchmarks share: interleaved medians, and a report as a table and as JSON."""

import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from eelib import paths, provenance
from eelib.decoding.policy import ExitPolicy
from eelib.models.loading import load_model
from eelib.models.parts import ModelParts, take_apart

FOLDER = paths.results() / "benchmarks"
# Llama-3.2-3B's depth at a third of its width: about 350 million parameters, random.
LLAMA_350M = LlamaConfig(
    hidden_size=1024,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    intermediate_size=2816,
    vocab_size=4096,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)


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


def model_named(name: str, dtype: torch.dtype) -> ModelParts:
    """A shipped model, or `llama-350m` with random weights."""
    if name != "llama-350m":
        return take_apart(load_model(name, dtype))
    torch.manual_seed(0)
    return take_apart(LlamaForCausalLM(LLAMA_350M).to(dtype).eval())


def random_prompts(parts: ModelParts, count: int, length: int) -> list[list[int]]:
    """Prompts of random tokens: what they say does not change how long they take."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = parts.model.config.vocab_size
    return torch.randint(4, vocabulary, (count, length), generator=generator).tolist()


def random_policy(parts: ModelParts) -> ExitPolicy:
    """A policy of the agent's shape, two hidden layers of 64 units."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, parts.width), (64, 64), (2, 64)]
    weights = [torch.randn(shape, generator=generator) / shape[1] ** 0.5 for shape in shapes]
    return ExitPolicy(weights, [torch.zeros(shape[0]) for shape in shapes], "random")


def report(name: str, ratios: dict[str, tuple[float, str]], details: dict) -> None:
    """Print ratios beside their aims, and write them with the machine and the commit to `results/benchmarks`."""
    for ratio, (value, aim) in ratios.items():
        print(f"{ratio:<62} {value:7.2f}   {aim}")
    record = {
        "ratios": {ratio: {"value": value, "aim": aim} for ratio, (value, aim) in ratios.items()},
        "details": details,
        "threads": torch.get_num_threads(),
        "machine": provenance.hardware(),
        "commit": provenance.commit(),
        "versions": {name: provenance.machine()["packages"][name] for name in ("torch", "transformers")},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
