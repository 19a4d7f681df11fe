"""What a step of the aggregated loss costs over a plain one: time, and memory that is held for the loss.

    .venv/bin/python benchmarks/aggregated_loss.py [--model opt-pico] [--repeats 7]

Step time is measured on a shipped model, sides interleaved. Peak memory of the loss is computed by shapes, for that model
and for 3 billion parameters with Llama 3.2's vocabulary. Writes `results/benchmarks/aggregated-loss-<model>.json`.
"""

import argparse

import torch
from measuring import interleaved, report
from transformers import LlamaConfig, PretrainedConfig

from eelib.models.exits import exit_points, loss_weights
from eelib.models.loading import load_model
from eelib.models.parts import ModelParts, take_apart
from eelib.training.loss import HeadLoss, aggregated_loss, exit_loss, layer_losses

SEQUENCES, LENGTH, POSITIONS = 8, 256, 0.25
LLAMA_3B = LlamaConfig(hidden_size=3072, num_hidden_layers=28, vocab_size=128_256)


def steps(parts: ModelParts, ids: torch.Tensor) -> dict:
    """One training step, forward and backward in bf16 autocast, by loss."""
    last, weights = parts.total_layers, loss_weights(parts.total_layers)

    def naive(states: list[torch.Tensor]) -> torch.Tensor:
        return aggregated_loss(layer_losses(parts, states, ids, list(weights)), weights)

    losses = {
        "plain": lambda states: exit_loss(parts, states, ids, {last: 1.0})[0],
        "aggregated, layer by layer": naive,
        "aggregated": lambda states: exit_loss(parts, states, ids, weights)[0],
        "aggregated, a quarter of the positions": lambda states: exit_loss(
            parts, states, ids, weights, POSITIONS
        )[0],
        "aggregated, two exits a step": lambda states: exit_loss(parts, states, ids, weights, 1.0, 2)[0],
        "aggregated, both": lambda states: exit_loss(parts, states, ids, weights, POSITIONS, 2)[0],
    }

    def step(loss) -> None:
        parts.model.zero_grad()
        with torch.autocast(ids.device.type, torch.bfloat16):
            value = loss(parts.hidden_states(ids))
        value.backward()

    return {name: lambda loss=loss: step(loss) for name, loss in losses.items()}


def loss_memory(config: PretrainedConfig, positions: int) -> dict[str, float]:
    """GiB held for the loss at its peak, beyond the layers' own activations, by shapes.

    Layer by layer, every head keeps its logits in bf16 and float32 and their gradient. Chunked, there is one chunk of
    float32 logits and its bf16 copy, the stacked exit states with their norm and gradient, and the head's gradient.
    """
    heads = len(exit_points(config.num_hidden_layers)) + 1
    vocabulary, width = config.vocab_size, config.hidden_size

    def chunked(rows: float) -> float:
        return (6 * HeadLoss.CHUNK + 12 * rows * width + 4 * vocabulary * width) / 2**30

    return {
        "plain": (2 + 4 + 4) * positions * vocabulary / 2**30,
        "plain, chunked": chunked(positions),
        "aggregated, layer by layer": (heads * (2 + 4) + 4) * positions * vocabulary / 2**30,
        "aggregated": chunked(heads * positions),
        "aggregated, both": chunked((2 * POSITIONS + 1) * positions),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="opt-pico")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = take_apart(load_model(args.model).train())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, parts.model.config.vocab_size, (SEQUENCES, LENGTH), generator=generator)
    seconds = interleaved(steps(parts, ids), args.repeats)
    memory = {
        args.model: loss_memory(parts.model.config, SEQUENCES * LENGTH),
        "3B, vocabulary of 128,256": loss_memory(LLAMA_3B, SEQUENCES * LENGTH),
    }
    ratios = {
        f"step time over plain: {name}": (value / seconds["plain"], "aim 1.35 or less")
        for name, value in seconds.items()
        if name != "plain"
    }
    ratios |= {
        f"GiB for the loss, {model}: {name}": (value, "")
        for model, values in memory.items()
        for name, value in values.items()
    }
    report(f"aggregated-loss-{args.model}", ratios, {"seconds": seconds, "memory_gib": memory})


if __name__ == "__main__":
    main()
