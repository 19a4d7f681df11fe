"""Models that a package of the Python index ships as GGUF: fetched by hash, dequantised once, never imported or run.

A folder `models/<name>/` with a `source.json` names the package and the file in it. The dequantised checkpoint lies in the
cache as an ordinary one: weights in float32, tokenizer, configuration.
"""

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from eelib import paths
from eelib.errors import InputError
from eelib.models.tokenizer import add_end_of_line, resize_embeddings

SOURCE = "source.json"
START = "<|endoftext|>"  # what stands between documents in pretraining: start and end of a file


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a pinned package, as `source.json` says; `sha256` and `bytes` are the package's."""

    project: str
    version: str
    file: str
    sha256: str
    bytes: int
    licence: str
    member: str
    registry: str = "pypi"


def checkpoint(folder: Path, packages: Path | None = None, checkpoints: Path | None = None) -> Path:
    """Folder of the dequantised checkpoint of the model that `folder` describes, made at the first call.

    A package of another hash, a package without the file, or a quantisation that cannot be read gives InputError.
    """
    from eelib.data.packages import fetch  # a machine that only measures has no client of a registry

    packages, checkpoints = packages or paths.CACHE / "packages", checkpoints or paths.CACHE / "models"
    text = (folder / SOURCE).read_text(encoding="utf-8")
    source = PackagedModel(**json.loads(text))
    target = checkpoints / f"{folder.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not target.exists():
        archive = fetch(source, packages)
        checkpoints.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=checkpoints, prefix=".partial-"))
        try:
            _dequantise(archive, source.member, partial)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if not target.exists():  # else another process was faster
                raise
    return target


def _dequantise(archive: Path, member: str, target: Path) -> None:
    gguf = target / "model.gguf"
    try:
        with zipfile.ZipFile(archive) as package, package.open(member) as source, open(gguf, "wb") as copy:
            shutil.copyfileobj(source, copy)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive.name} has no file {member!r}: allowed is the pinned package.") from error
    print(f"Dequantising {Path(member).name} (once, under a minute) ...", flush=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # two progress bars, of which one counts to 272 twice
            loaded = AutoModelForCausalLM.from_pretrained(target, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=gguf.name)
    except Exception as error:  # a damaged file fails in whatever the reader does first
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{Path(member).name} cannot be dequantised ({reason}): allowed is a GGUF file that transformers reads."
        ) from error
    gguf.unlink()
    _prepare(tokenizer)
    # A loaded GGUF model refuses to be saved, for its configuration says that it is quantised; a fresh one does not.
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    config.bos_token_id, config.eos_token_id, config.pad_token_id = (tokenizer.bos_token_id,) * 3
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    add_end_of_line(tokenizer)
    resize_embeddings(model, tokenizer)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _prepare(tokenizer: PreTrainedTokenizerBase) -> None:
    """What the conversion leaves out: single digits, and that code starts and ends as a document of pretraining."""
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = START
