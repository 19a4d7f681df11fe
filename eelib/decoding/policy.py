"""The exit policy: the few tensors that remain of an agent once it is trained."""

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from eelib.errors import InputError

# Least and highest price of a full token, in right tokens, at which a priced policy is trained.
PRICES = (0.02, 4.0)


@dataclass(frozen=True)
class ExitPolicy:
    """A multilayer perceptron with tanh between its layers and two outputs: continue, exit (Listing 4).

    A *priced* policy has values as outputs, at the price of a full token in right tokens. Its threshold T names the price
    1/T - 1: like a probability's, it always exits at 0 and never at 1.

    Attributes
    ----------
    weights, biases: float32 of shapes (out, in) and (out,), layer by layer; the last has two rows.
    model: fingerprint of the model whose states it was trained on.
    price: of a priced policy, (out,) float32 weights of the price's logarithm in the first layer.
    direction: whether it reads states divided by their root mean square.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    model: str
    price: Tensor | None = None
    direction: bool = False

    @property
    def width(self) -> int:
        return self.weights[0].shape[1]

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    def to(self, device: torch.device) -> "ExitPolicy":
        """The same policy with its tensors on a device."""
        weights, biases = ([tensor.to(device) for tensor in layers] for layers in (self.weights, self.biases))
        price = None if self.price is None else self.price.to(device)
        return replace(self, weights=weights, biases=biases, price=price)

    def at(self, threshold: float, temperature: float = 1.0) -> tuple["ExitPolicy", float]:
        """The policy that decides at a threshold, and the `margin` above which it exits."""
        if self.price is None or threshold <= 0 or threshold >= 1:
            return self, threshold_margin(threshold, temperature)
        log_price = math.log(min(max(1 / threshold - 1, PRICES[0]), PRICES[1]))
        first, *others = self.biases
        return replace(self, biases=[first + log_price * self.price, *others], price=None), 0.0

    def margin(self, hidden_states: Tensor) -> Tensor:
        """Difference of the exit and continue outputs for (B, D) states: shape (B,), float32."""
        features = self._read(hidden_states)
        if torch.compiler.is_compiling():  # plain products: the compiler joins them with what stands around
            *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
            for hidden_weight, hidden_bias in hidden:
                features = torch.tanh(torch.mm(features, hidden_weight.T) + hidden_bias)
            return (features * (weight[1] - weight[0])).sum(-1) + (bias[1] - bias[0])
        return torch.addmv(self._last[1], self._features(features), self._last[0])

    @cached_property
    def _hidden(self) -> list[tuple[Tensor, Tensor]]:
        return [(weight.T, bias) for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True)]

    @cached_property
    def _last(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the difference of the two outputs."""
        weight, bias = self.weights[-1], self.biases[-1]
        return weight[1] - weight[0], (bias[1] - bias[0])[None]

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Continue and exit logits for (B, D) states, as in Listing 4: shape (B, 2), float32. Decoding takes `margin`."""
        return torch.addmm(self.biases[-1], self._features(self._read(hidden_states)), self.weights[-1].T)

    def _read(self, hidden_states: Tensor) -> Tensor:
        states = hidden_states.float()
        return normed(states) if self.direction else states

    def _features(self, features: Tensor) -> Tensor:
        """What the last layer reads."""
        for weight, bias in self._hidden:
            features = torch.addmm(bias, features, weight).tanh_()
        return features

    def probability(self, hidden_states: Tensor, temperature: float = 1.0) -> Tensor:
        """`softmax(logits / temperature)[exit]` for (B, D) states: shape (B,)."""
        return torch.sigmoid(self.margin(hidden_states) / temperature)

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json` into `folder`."""
        tensors = {f"weight_{i}": weight.contiguous() for i, weight in enumerate(self.weights)}
        tensors |= {f"bias_{i}": bias.contiguous() for i, bias in enumerate(self.biases)}
        if self.price is not None:
            tensors["price"] = self.price.contiguous()
        save_file(tensors, folder / "policy.safetensors")
        record = {"layers": len(self.weights), "model": self.model, "direction": self.direction}
        (folder / "policy.json").write_text(json.dumps(record) + "\n")


def load_policy(folder: Path, model: str | None = None) -> ExitPolicy:
    """The policy saved in `folder`; where `model` is given, one trained on the states of another gives InputError."""
    record = json.loads((folder / "policy.json").read_text())
    if model is not None and record["model"] != model:
        raise InputError(
            f"The agent in {folder} was trained on model {record['model'][:12]}, not on {model[:12]}: its states differ."
        )
    tensors = load_file(folder / "policy.safetensors")
    layers = range(record["layers"])
    return ExitPolicy(
        [tensors[f"weight_{i}"] for i in layers],
        [tensors[f"bias_{i}"] for i in layers],
        record["model"],
        tensors.get("price"),
        record["direction"],
    )


def normed(states: Tensor) -> Tensor:
    """(..., D) float32 states divided by their root mean square: what is left is their direction."""
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-6)


def threshold_margin(threshold: float, temperature: float) -> float:
    """The margin that a probability above `threshold` takes: `temperature * log(T / (1 - T))`.

    `sigmoid(margin / temperature) > T` becomes one comparison with a constant; T = 0 always exits and T = 1 never.
    """
    if threshold <= 0:
        return -math.inf
    return math.inf if threshold >= 1 else temperature * math.log(threshold / (1 - threshold))
