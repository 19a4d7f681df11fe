"""The corpus that the pico base models are pretrained on: files, tokenizer, and shuffled blocks of token ids."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import eelib.data
from eelib.data.codexglue import line_completion_file
from eelib.data.corpus import CodeFile, read_package, token_runs, without_near_duplicates
from eelib.data.lexing import LANGUAGES
from eelib.data.packages import read_table
from eelib.errors import InputError
from eelib.models.pico import POSITIONS
from eelib.models.tokenizer import train_tokenizer
from eelib.provenance import code_hash
from eelib.training.packing import encode_files, pack

PRETRAINING_TABLE = Path(eelib.data.__file__).with_name("pretraining_packages.csv")
TOKENIZER_SAMPLE = 20_000_000  # characters of each language: a vocabulary of 4096 needs no more


@dataclass(frozen=True)
class PretrainingCorpus:
    """What a base model reads.

    Attributes
    ----------
    key: of the sources, the excluded files and the code that tokenises them; two corpora with one key are the same.
    blocks: int32 token ids, shape (N, 256), shuffled, Java and Python half each.
    report: files, tokens and projects by language, and what was excluded.
    """

    key: str
    tokenizer: PreTrainedTokenizerFast
    blocks: np.ndarray
    report: dict


def forbidden_runs(excluded: list[Path]) -> set[int]:
    """Hashes of all 50-token runs of `excluded` line-completion files."""
    runs: set[int] = set()
    for path in excluded:
        for _, code in line_completion_file(path):
            runs.update(token_runs(code).tolist())
    return runs


def pretraining_files(forbidden: set[int], cache_dir: Path) -> Iterator[CodeFile]:
    """Files of all packages of the table, without near-duplicates and without any forbidden run."""
    packages = read_table(PRETRAINING_TABLE)
    for language in LANGUAGES:
        candidates = (
            file
            for package in packages
            if package.language == language
            for file in read_package(package, cache_dir)
        )
        yield from without_near_duplicates(candidates, forbidden)


def pretraining_corpus(
    work: Path, cache_dir: Path, excluded: list[Path], tokenizer: Path | None = None
) -> PretrainingCorpus:
    """The corpus in `work`, made there unless it is there already.

    Parameters
    ----------
    cache_dir: where downloaded packages are kept.
    excluded: CodeXGLUE line-completion files whose 50-token runs no training file may share.
    tokenizer: folder of the one to encode with; None trains one.
    """
    key = _key([*excluded, *([] if tokenizer is None else [tokenizer / "tokenizer.json"])])
    folder = work / f"corpus-{key[:8]}"
    if not (folder / "blocks.npy").exists():
        _make(folder, cache_dir, excluded, tokenizer)
    return PretrainingCorpus(
        key,
        AutoTokenizer.from_pretrained(folder / "tokenizer"),
        np.load(folder / "blocks.npy", mmap_mode="r"),
        json.loads((folder / "corpus.json").read_text()),
    )


def _key(files: list[Path]) -> str:
    if missing := [path for path in files if not path.is_file()]:
        raise InputError(f"There is no file {missing[0]} to exclude.")
    digest = hashlib.sha256(code_hash(__name__).encode())
    for path in [PRETRAINING_TABLE, *sorted(files)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _make(folder: Path, cache_dir: Path, excluded: list[Path], encode_with: Path | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = list(pretraining_files(forbidden_runs(excluded), cache_dir))
    np.random.default_rng(0).shuffle(files)
    tokenizer = _trained(files) if encode_with is None else AutoTokenizer.from_pretrained(encode_with)
    tokenizer.save_pretrained(folder / "tokenizer")
    report: dict = {"excluded": sorted(path.name for path in excluded)}
    parts = []
    for language in LANGUAGES:
        chosen = [file for file in files if file.language == language]
        ids = encode_files((" ".join(file.code) for file in chosen), tokenizer)
        report[language] = {
            "files": len(chosen),
            "code_tokens": sum(len(file.code) for file in chosen),
            "bpe_tokens": len(ids),
            "projects": sorted({file.project for file in chosen}),
        }
        parts.append(pack(ids, POSITIONS))
    # Both languages weigh the same: the smaller corpus is repeated, block by block, up to the larger one's size.
    most = max(len(blocks) for blocks in parts)
    blocks = np.concatenate([np.resize(part, (most, POSITIONS)) for part in parts])
    np.random.default_rng(1).shuffle(blocks)
    (folder / "corpus.json").write_text(json.dumps(report, indent=1) + "\n")
    partial = folder / "partial.npy"
    np.save(partial, blocks)
    partial.rename(folder / "blocks.npy")


def _trained(files: list[CodeFile]) -> PreTrainedTokenizerFast:
    sample, characters = [], dict.fromkeys(LANGUAGES, 0)
    for file in files:
        if characters[file.language] < TOKENIZER_SAMPLE:
            sample.append(" ".join(file.code))
            characters[file.language] += len(sample[-1])
    return train_tokenizer(sample)
