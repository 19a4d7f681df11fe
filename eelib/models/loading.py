"""Loading a checkpoint and its tokenizer: a shipped pico model, a folder, or a name on the Hugging Face hub."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from eelib.models.pico import pico_config, random_model
from eelib.study.errors import InputError

SHIPPED = Path("models")
# Random weights in a pico model's shape, with its tokenizer and fewer layers: for tests of the machinery.
RANDOM_MODELS = {"llama-random": ("llama-pico", 8), "opt-random": ("opt-pico", 8)}


def locate(name: str) -> str:
    """Where a model is: a shipped model's folder for its name, another folder, or an id `organisation/name` on the hub.

    Anything else gives InputError at once rather than after the hub's retries.
    """
    if (SHIPPED / name / "config.json").exists():
        return str(SHIPPED / name)
    if Path(name).is_dir() or name.count("/") == 1:
        return name
    shipped = sorted(folder.parent.name for folder in SHIPPED.glob("*/config.json"))
    raise InputError(
        f"There is no model {name!r}: allowed are {', '.join([*shipped, *RANDOM_MODELS])}, the folder of a checkpoint, "
        "or an id organisation/name on the hub."
    )


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turn what transformers raises for a missing or unreachable checkpoint into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The model {name!r} cannot be loaded ({str(error).splitlines()[0]}): allowed are a whole checkpoint folder, or a "
            "hub id with a network or the hub's cache."
        ) from error


def load_config(name: str) -> PretrainedConfig:
    """A model's configuration, without its weights."""
    if name in RANDOM_MODELS:
        pico, layers = RANDOM_MODELS[name]
        tokenizer = load_tokenizer(name)
        ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        return pico_config(pico, len(tokenizer), *ids, layers=layers)
    with _one_sentence(name):
        return AutoConfig.from_pretrained(locate(name))


def count_parameters(name: str) -> int:
    """Parameters of a model, tied ones once, counted on its shapes alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(name))
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def load_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model in evaluation mode; a name that leads nowhere gives InputError."""
    if name in RANDOM_MODELS:
        return random_model(load_config(name), seed=0).to(dtype)
    with _one_sentence(name):
        return AutoModelForCausalLM.from_pretrained(locate(name), dtype=dtype).eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The model's own tokenizer."""
    with _one_sentence(name):
        return AutoTokenizer.from_pretrained(locate(RANDOM_MODELS.get(name, (name,))[0]))


def fingerprint(name: str) -> str:
    """Hash of a local checkpoint's weights, configuration and tokenizer; a random model or a hub id stands for itself."""
    if name in RANDOM_MODELS:
        return f"{name}, tokenizer {fingerprint(RANDOM_MODELS[name][0])}"
    folder = Path(locate(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in [*sorted(folder.glob("*.safetensors")), folder / "config.json", folder / "tokenizer.json"]:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
