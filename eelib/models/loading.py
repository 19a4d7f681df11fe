"""Loading a checkpoint and its tokenizer: a shipped pico model, a folder, or a name on the Hugging Face hub."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
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

from eelib import paths
from eelib.errors import InputError
from eelib.models import differences
from eelib.models.packaged import SOURCE, checkpoint
from eelib.models.parts import ModelParts, take_apart
from eelib.models.pico import pico_config, random_model
from eelib.models.tokenizer import add_end_of_line, resize_embeddings

# Random weights in the shape of a pico model, with fewer layers and opt-pico's tokenizer: for tests of the machinery.
RANDOM_MODELS = {"llama-random": ("llama-pico", 8), "opt-random": ("opt-pico", 8)}


def split_name(name: str) -> tuple[str, Path | None]:
    """`smollm2-135m+aggregated` -> the base's name, and the file of the shipped difference to add; None for a plain name.

    A difference that is not shipped gives InputError.
    """
    base, plus, kind = name.partition("+")
    if not plus or not (paths.MODELS / base).is_dir():
        return name, None
    path = paths.MODELS / base / f"{kind}.safetensors"
    if not path.exists():
        shipped = sorted(
            file.stem for file in (paths.MODELS / base).glob("*.safetensors") if file.stem != "model"
        )
        raise InputError(
            f"The model {base!r} has no difference {kind!r}: allowed are {', '.join(shipped) or 'none, for none is shipped'}."
        )
    return base, path


def ships(base: str, kind: str) -> bool:
    """Whether a base model ships the difference of a fine-tuning ("aggregated", "plain")."""
    return (paths.MODELS / base / f"{kind}.safetensors").exists()


def locate(name: str) -> str:
    """Where a model is: a shipped model's folder for its name, another folder, or an id `organisation/name` on the hub.

    Anything else gives InputError at once rather than after the hub's retries.
    """
    name, _ = split_name(name)
    if (paths.MODELS / name / "config.json").exists():
        return str(paths.MODELS / name)
    if (paths.MODELS / name / SOURCE).exists():
        return str(checkpoint(paths.MODELS / name))
    if Path(name).is_dir() or name.count("/") == 1:
        return name
    shipped = sorted(
        {file.parent.name for kind in ("config.json", SOURCE) for file in paths.MODELS.glob(f"*/{kind}")}
    )
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
    """A model in evaluation mode; `base+kind` adds a shipped difference. A name that leads nowhere gives InputError."""
    if name in RANDOM_MODELS:
        return random_model(load_config(name), seed=0).to(dtype)
    with _one_sentence(name):
        exact = torch.float32 if "+" in name else dtype  # a difference is added before weights are rounded
        model = AutoModelForCausalLM.from_pretrained(locate(name), dtype=exact)
        folder = Path(locate(name))
        # A snapshot of training has no tokenizer of its own, and its model the row already.
        tokenizer = None
        if not folder.is_dir() or (folder / "tokenizer.json").exists():
            tokenizer = AutoTokenizer.from_pretrained(locate(name))
    if tokenizer is not None and add_end_of_line(tokenizer):
        resize_embeddings(model, tokenizer)
    base, difference = split_name(name)
    if difference is not None:
        differences.add(model, difference, fingerprint(base))
    for parameter in model.parameters():  # not the buffers: rotary frequencies stay float32
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, in which `<EOL>` is one token."""
    with _one_sentence(name):
        tokenizer = AutoTokenizer.from_pretrained(locate("opt-pico" if name in RANDOM_MODELS else name))
    add_end_of_line(tokenizer)
    return tokenizer


def fingerprint(name: str) -> str:
    """Hash of a local checkpoint's weights, configuration and tokenizer; a random model or a hub id stands for itself."""
    if name in RANDOM_MODELS:
        return f"{name}, tokenizer {fingerprint('opt-pico')}"
    base, difference = split_name(name)
    if difference is not None:
        return f"{fingerprint(base)} + {differences.fingerprint(difference)}"
    if (paths.MODELS / name / SOURCE).exists():  # pinned by hash: the weights need not be read
        return hashlib.sha256((paths.MODELS / name / SOURCE).read_bytes()).hexdigest()
    folder = Path(locate(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in [
        *sorted(folder.glob("model*.safetensors")),
        folder / "config.json",
        folder / "tokenizer.json",
    ]:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class CodeModel:
    """A model ready to decode: taken apart, and its tokenizer."""

    parts: ModelParts
    tokenizer: PreTrainedTokenizerBase


def device() -> torch.device:
    """Where models decode: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def load_code_model(name: str, dtype: torch.dtype) -> CodeModel:
    """A model by name, taken apart on the device it decodes on. The last one loaded is kept."""
    return CodeModel(take_apart(load_model(name, dtype).to(device())), load_tokenizer(name))
