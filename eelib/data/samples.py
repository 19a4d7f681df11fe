"""Code files -> (context, reference) samples in model tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from eelib.checks import check_context_fraction
from eelib.data.corpus import CodeFile
from eelib.errors import InputError
from eelib.profile import Context


@dataclass(frozen=True)
class Sample:
    """A completion task.

    Attributes
    ----------
    id: the file it comes from.
    context: token ids the model is given, starting with the tokenizer's start token.
    reference: the file's tokens that follow; at most T of them.
    """

    id: str
    context: list[int]
    reference: list[int]


def encode(file: CodeFile, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a file's code, joined by spaces, without special tokens."""
    return tokenizer(" ".join(file.code), add_special_tokens=False, verbose=False).input_ids


def split_file(
    identifier: str, ids: list[int], fraction: float, config: Context, start_token: int
) -> Sample | None:
    """The sample of a file at a context fraction, or None when fewer than T tokens follow.

    The context is the first `fraction` of the file's tokens; of a longer one the last `max_tokens` are kept (the start
    token included), as an editor would, so that the fraction still says where in the file the completion happens.
    """
    end = int(fraction * len(ids))
    if end < 1 or len(ids) - end < config.new_tokens:
        return None
    context = [start_token, *ids[max(0, end - (config.max_tokens - 1)) : end]]
    return Sample(identifier, context, ids[end : end + config.new_tokens])


def evaluation_samples(
    files: Sequence[CodeFile],
    tokenizer: PreTrainedTokenizerBase,
    fraction: float,
    count: int,
    config: Context,
    seed: int = 0,
) -> tuple[list[Sample], int]:
    """`count` samples from files in a random order that is the same for every fraction, and how many were dropped.

    A file that leaves no full reference is dropped and counted. None left at all gives InputError.
    """
    check_context_fraction(fraction)
    samples, dropped = [], 0
    for index in np.random.default_rng(seed).permutation(len(files)):
        if len(samples) == count:
            break
        file = files[index]
        sample = split_file(file.id, encode(file, tokenizer), fraction, config, tokenizer.bos_token_id)
        if sample is None:
            dropped += 1
        else:
            samples.append(sample)
    if not samples:
        raise InputError(f"The context fraction {fraction} leaves none of {len(files)} files a reference.")
    return samples, dropped


class RandomPrompts:
    """Prompts as the environment draws them: files uniformly, the context fraction from U(0.2, 0.6) (Section 5.1)."""

    def __init__(
        self,
        files: Sequence[CodeFile],
        tokenizer: PreTrainedTokenizerBase,
        config: Context,
        fractions: tuple[float, float] = (0.2, 0.6),
    ):
        self.files = files
        self.tokenizer = tokenizer
        self.longest = config.max_tokens
        self.fractions = fractions
        self._encoded: dict[int, list[int]] = {}

    def draw(self, rng: np.random.Generator) -> list[int]:
        """Token ids of one prompt, starting with the tokenizer's start token."""
        index, fraction = int(rng.integers(len(self.files))), float(rng.uniform(*self.fractions))
        if index not in self._encoded:
            self._encoded[index] = encode(self.files[index], self.tokenizer)
        ids = self._encoded[index]
        end = max(1, int(fraction * len(ids)))
        return [self.tokenizer.bos_token_id, *ids[max(0, end - (self.longest - 1)) : end]]


def random_windows(
    files: Sequence[CodeFile], tokenizer: PreTrainedTokenizerBase, count: int, config: Context, seed: int
) -> list[list[int]]:
    """`count` prompts drawn as `RandomPrompts` does that fill the longest context; InputError where files are too short."""
    prompts, rng = RandomPrompts(files, tokenizer, config), np.random.default_rng(seed)
    drawn = (prompts.draw(rng) for _ in range(50 * count))
    windows = list(itertools.islice((ids for ids in drawn if len(ids) == config.max_tokens), count))
    if len(windows) < count:
        raise InputError(
            f"Of {50 * count} prompts drawn from {len(files)} files, {len(windows)} fill a context of {config.max_tokens} tokens: "
            f"{count} are needed."
        )
    return windows


def random_prompts(
    files: Sequence[CodeFile],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    config: Context,
    seed: int,
    fractions: tuple[float, float] = (0.2, 0.6),
) -> list[list[int]]:
    """`count` prompts drawn as `RandomPrompts` does."""
    prompts, rng = RandomPrompts(files, tokenizer, config, fractions), np.random.default_rng(seed)
    return [prompts.draw(rng) for _ in range(count)]
