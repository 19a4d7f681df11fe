"""Muon: orthogonal steps, AdamW for the rest, and a resumed run."""

import copy

import pytest
import torch
from torch import nn

from eelib.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalised(matrices)
    middle = left.mT @ result @ right.mT
    found = middle.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(middle, torch.diag_embed(found), atol=1e-6, rtol=0)
    well_conditioned = values > 0.05 * values[:, :1]
    assert found[well_conditioned].min() > 0.5 and found.max() < 1.3


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))


def optimizers(network: nn.Sequential) -> tuple[Muon, torch.optim.AdamW]:
    others = [network[0].bias, network[1].bias, network[1].weight]
    ours = Muon([network[0].weight], others, lr=0.01, weight_decay=0.1)
    decayed = [
        {"params": [network[1].weight], "weight_decay": 0.1},
        {"params": others[:2], "weight_decay": 0.0},
    ]
    return ours, torch.optim.AdamW(decayed, lr=0.01, betas=(0.9, 0.95))


def step(network: nn.Sequential, optimizer: torch.optim.Optimizer, data: torch.Tensor) -> None:
    network.zero_grad()
    (network(data) - 1).square().mean().backward()
    optimizer.step()


def test_what_is_no_matrix_of_a_layer_gets_adamw():
    data = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    network = model()
    network[0].weight.requires_grad_(False)
    reference = copy.deepcopy(network)
    _, adamw = optimizers(reference)
    others = [network[0].bias, network[1].bias, network[1].weight]
    ours = Muon([], others, lr=0.01, weight_decay=0.1)
    for _ in range(4):
        step(network, ours, data)
        step(reference, adamw, data)
    for one, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_matrix_moves_by_the_learning_rate_and_a_state_resumes():
    data = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    network = model()
    before = network[0].weight.detach().clone()
    ours, _ = optimizers(network)
    step(network, ours, data)
    moved = network[0].weight.detach() - before * (1 - 0.01 * 0.1)
    # Root mean square of an orthogonal 8 x 6 matrix, scaled by 0.2 * sqrt(8): 0.2 of the learning rate.
    assert moved.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)
    resumed = copy.deepcopy(network)
    again, _ = optimizers(resumed)
    again.load_state_dict(copy.deepcopy(ours.state_dict()))
    step(network, ours, data)
    step(resumed, again, data)
    for one, other in zip(network.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
