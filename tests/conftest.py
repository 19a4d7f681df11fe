"""Tiny real models of both architectures, with random weights large enough that predictions differ between layers; tiny
source packages."""

import hashlib
import io
import tarfile
from collections.abc import Callable

import pytest
import torch

from eelib.data.packages import SourcePackage
from eelib.models.parts import ModelParts, take_apart
from eelib.models.pico import pico_config, random_model

VOCABULARY = 96


def tiny_model(pico: str, layers: int = 12, seed: int = 0, vocabulary: int = VOCABULARY):
    """A model of some layers; weights ten times the usual size, so that a random model has opinions."""
    model = random_model(pico_config(pico, vocabulary, bos=0, eos=1, pad=2, layers=layers), seed)
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


def source(prefix: str, lines: int) -> str:
    """Python of `4 * lines - 1` tokens that occur in no other file: every line is `name = <NUM_LIT> <EOL>`."""
    return "".join(f"{prefix}{i} = {7000 + i}\n" for i in range(lines))


@pytest.fixture
def package(tmp_path) -> Callable[..., SourcePackage]:
    """Makes a package whose archive lies in the cache folder `tmp_path`."""

    def make(project: str, split: str, language: str = "python", **files: str) -> SourcePackage:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(f"{project}-1.0/{name}.{'py' if language == 'python' else language}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        archive = stream.getvalue()
        name = f"{project}-1.0.tar.gz"
        (tmp_path / name).write_bytes(archive)
        sha256 = hashlib.sha256(archive).hexdigest()
        return SourcePackage(project, "1.0", name, sha256, len(archive), "MIT", language, split)

    return make
