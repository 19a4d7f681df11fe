"""Muon: momentum whose matrices are orthogonalised before they are taken as steps, and AdamW for all that is no matrix.

Jordan et al. 2024; the scale that lets both share a learning rate is Liu et al.'s (2025, Sec. 2.2). torch has a Muon, which
works in bfloat16 one matrix at a time: emulated and slow on a CPU. Here all matrices of one shape are one batched product.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """(N, A, B) matrices -> with the same singular vectors and singular values between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for `matrices`, AdamW for `others`; one learning rate.

    Parameters
    ----------
    matrices: 2-dimensional parameters within layers.
    others: embeddings, norms, biases.
    betas: AdamW's; `momentum` is Muon's.
    weight_decay: of the matrices and of other 2-dimensional parameters.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ):
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in matrices:
            shapes.setdefault(parameter.shape, []).append(parameter)
        groups = [{"params": group, "muon": True} for group in shapes.values()]
        groups.append({"params": list(others), "muon": False})
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step; `closure` is not supported."""
        for group in self.param_groups:
            (self._muon if group["muon"] else self._adamw)(group)

    def _muon(self, group: dict) -> None:
        directions = []
        for parameter in group["params"]:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
        rate = group["lr"] * 0.2 * max(group["params"][0].shape) ** 0.5
        for parameter, step in zip(group["params"], orthogonalised(torch.stack(directions)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)

    def _adamw(self, group: dict) -> None:
        first, second = group["betas"]
        for parameter in group["params"]:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            steps = state["step"].item()
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].lerp_(parameter.grad.square(), 1 - second)
            deviation = (state["square"] / (1 - second**steps)).sqrt_().add_(1e-8)
            if parameter.ndim > 1:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["mean"], deviation, value=-group["lr"] / (1 - first**steps))
