"""Tiny real models of both architectures, with random weights large enough that predictions differ between layers."""

import pytest
import torch

from eelib.models.parts import ModelParts, take_apart
from eelib.models.pico import pico_config, random_model

VOCABULARY = 96


def tiny_model(pico: str, layers: int = 12, seed: int = 0):
    """A model of some layers; weights ten times the usual size, so that a random model has opinions."""
    model = random_model(pico_config(pico, VOCABULARY, bos=0, eos=1, pad=2, layers=layers), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model


@pytest.fixture(scope="session", params=["llama-pico", "opt-pico"])
def parts(request) -> ModelParts:
    """A tiny model taken apart: 12 layers, exit points 4, 6, 10."""
    return take_apart(tiny_model(request.param))


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Prompts of different lengths, one of a single token."""
    generator = torch.Generator().manual_seed(1)
    return [
        [0, *torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()] for n in (9, 0, 23, 4, 15, 1)
    ]
