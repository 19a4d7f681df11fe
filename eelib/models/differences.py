"""Fine-tuned weights as a small difference to their base: low-rank factors in int8, and what is no matrix as it is.

A full fine-tuning of SmolLM2-135M takes 540 MB; nearly all of what it changed fits into a hundredth of that, since the
singular values of a difference fall fast.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eelib.errors import InputError

LEFT, RIGHT, SCALE, ROWS, CHANGE = ".left", ".right", ".scale", ".rows", ".change"


@dataclass(frozen=True)
class Cut:
    """A difference cut to a size: `tensors` as they are saved, the ranks kept by matrix, the share of squared norm kept."""

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    energy: float


@torch.no_grad()
def cut(base: dict[str, Tensor], tuned: dict[str, Tensor], size: int) -> Cut:
    """The difference of two models' parameters (by name, tied ones once) in about `size` bytes.

    Ranks are shared out by what a component buys: its squared singular value over the bytes of its two vectors, over all
    matrices at once. A vector's change is kept in float32; of embeddings only the rows that changed.
    """
    tensors: dict[str, Tensor] = {}
    factors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name, after in tuned.items():
        change = after.float() - base[name].float()
        changed = change.abs().sum(-1) > 0 if change.ndim == 2 else None
        if change.ndim < 2:
            tensors[name + CHANGE] = change
        elif changed.float().mean() < 0.1:  # single rows of the embeddings
            if changed.any():
                tensors[name + ROWS] = changed.nonzero().squeeze(1)
                tensors[name + CHANGE] = change[changed]
        else:
            factors[name] = torch.linalg.svd(change, full_matrices=False)
    components = sorted(
        (
            (value.item() ** 2 / (len(left) + right.shape[1]), len(left) + right.shape[1], name)
            for name, (left, values, right) in factors.items()
            for value in values
        ),
        reverse=True,
    )
    left_over = size - sum(tensor.nbytes for tensor in tensors.values())
    ranks = dict.fromkeys(factors, 0)
    for _, cost, name in components:
        if cost > left_over:
            break
        left_over -= cost
        ranks[name] += 1
    kept = total = 0.0
    for name, (left, values, right) in factors.items():
        rank = ranks[name]
        root = values[:rank].sqrt()
        for suffix, factor in ((LEFT, left[:, :rank] * root), (RIGHT, root[:, None] * right[:rank])):
            tensors[name + suffix], tensors[name + suffix + SCALE] = quantised(factor)
        kept += values[:rank].square().sum().item()
        total += values.square().sum().item()
    return Cut(tensors, ranks, kept / total if total else 1.0)


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, M) float -> (N, M) int8 and the (N,) float16 scale of each row."""
    scale = (
        (rows.abs().amax(1) / 127).clamp(min=1e-7).half()
        if rows.shape[1]
        else rows.new_ones(len(rows)).half()
    )
    return (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def save(difference: Cut, path: Path, base_fingerprint: str) -> None:
    """Write a difference as safetensors that name the base they belong to."""
    tensors = {name: tensor.contiguous() for name, tensor in difference.tensors.items()}
    save_file(tensors, path, metadata={"base": base_fingerprint})


@torch.no_grad()
def add(model: torch.nn.Module, path: Path, base_fingerprint: str) -> None:
    """Add the difference in `path` to a base model's weights, in place.

    A file that cannot be read, or that belongs to another base, gives InputError.
    """
    try:
        with safe_open(path, "pt") as file:
            belongs_to = (file.metadata() or {}).get("base")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as a difference of weights ({error}).") from error
    if belongs_to != base_fingerprint:
        raise InputError(
            f"{path} is a difference to the base {str(belongs_to)[:12]}: allowed is one to {base_fingerprint[:12]}, which is "
            "the model it was to be added to."
        )
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        if key.endswith(LEFT):
            name = key.removesuffix(LEFT)
            left = tensor.float() * tensors[key + SCALE].float()[:, None]
            right = tensors[name + RIGHT].float() * tensors[name + RIGHT + SCALE].float()[:, None]
            parameters[name] += (left @ right).to(parameters[name].dtype)
        elif key.endswith(CHANGE):
            name = key.removesuffix(CHANGE)
            if name + ROWS in tensors:
                parameters[name][tensors[name + ROWS]] += tensor.to(parameters[name].dtype)
            else:
                parameters[name] += tensor.to(parameters[name].dtype)


def fingerprint(path: Path) -> str:
    """Hash of a difference's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
