"""Differences of weights: what a cut keeps, what it costs, and what it refuses."""

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import save_file

from eelib.errors import InputError
from eelib.models import differences


def changed(rank: int, scale: float = 0.02):
    """A model, and the same with a change of that rank in every matrix of its layers, of its norms, and of one token."""
    base, tuned = tiny_model("llama-pico", layers=4), tiny_model("llama-pico", layers=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if parameter.ndim == 1:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
            elif ".layers." in name:
                left = torch.randn(len(parameter), rank, generator=generator)
                right = torch.randn(rank, parameter.shape[1], generator=generator)
                parameter += scale * left @ right
        tuned.get_input_embeddings().weight[7] += 0.5
    return base, tuned


def parameters(model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


@torch.no_grad()
def distance(model, other) -> float:
    """Relative distance of two models' parameters."""
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    apart = sum((a - b).square().sum() for a, b in pairs)
    return float((apart / sum(a.square().sum() for a, _ in pairs)).sqrt())


def test_a_difference_of_low_rank_comes_back(tmp_path):
    base, tuned = changed(rank=2)
    before = distance(tuned, base)
    cut = differences.cut(parameters(base), parameters(tuned), size=10**6)
    assert cut.energy > 0.9999
    differences.save(cut, tmp_path / "a.safetensors", "base")
    differences.add(base, tmp_path / "a.safetensors", "base")
    assert distance(tuned, base) < 0.02 * before  # the rounding to int8
    torch.testing.assert_close(base.get_input_embeddings().weight, tuned.get_input_embeddings().weight)


def test_a_cut_keeps_to_its_size_and_takes_the_largest_first(tmp_path):
    base, tuned = changed(rank=8)
    name = "model.layers.2.self_attn.q_proj.weight"
    with torch.no_grad():
        dict(tuned.named_parameters())[name] += 5 * torch.ones(128, 128) / 128
    cut = differences.cut(parameters(base), parameters(tuned), size=60_000)
    alone = differences.cut({name: parameters(base)[name]}, {name: parameters(tuned)[name]}, size=256)
    assert cut.ranks[name] >= alone.ranks[name] == 1  # its one large component
    assert sum(cut.ranks.values()) < 8 * len(cut.ranks)  # not all could be kept
    path = tmp_path / "a.safetensors"
    differences.save(cut, path, "base")
    assert 50_000 < sum(tensor.nbytes for tensor in cut.tensors.values()) < 75_000  # and the scales of rows
    less = differences.cut(parameters(base), parameters(tuned), size=30_000)
    assert less.energy < cut.energy < 1


def test_energy_is_the_share_of_squared_norm_that_is_kept():
    base = {"w": torch.zeros(4, 4)}
    tuned = {"w": torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))}
    cut = differences.cut(base, tuned, size=16)  # two components of 4 + 4 bytes
    assert cut.ranks == {"w": 2}
    assert cut.energy == pytest.approx((9 + 4) / (9 + 4 + 1 + 0.25))


def test_another_base_and_a_broken_file_are_one_sentence(tmp_path):
    base, tuned = changed(rank=1)
    path = tmp_path / "a.safetensors"
    differences.save(differences.cut(parameters(base), parameters(tuned), 10**6), path, "one base")
    with pytest.raises(InputError, match="is a difference to the base one base: allowed is one to another"):
        differences.add(base, path, "another")
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="difference to the base None"):
        differences.add(base, path, "another")
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="cannot be read as a difference"):
        differences.add(base, path, "another")
