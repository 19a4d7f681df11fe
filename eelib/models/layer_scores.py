"""Next-token accuracy and perplexity of every layer of a model on whole files, teacher-forced."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from eelib.errors import InputError
from eelib.models.loading import load_model, load_tokenizer
from eelib.models.parts import ModelParts, take_apart

MINIMUM_CONTEXT = 50  # tokens before the first one that is scored
WINDOWS = 400  # of each corpus, evenly spaced


def windows(files: Iterable[list[int]], length: int, minimum_context: int) -> Iterator[list[int]]:
    """Overlapping windows of up to `length` ids, such that each id with a context is scored in exactly one of them.

    In every window the first `minimum_context` ids are context and the others are scored; a file's first
    `minimum_context` ids are never scored, and a file without further ones gives no window.
    """
    for ids in files:
        for start in range(0, len(ids) - minimum_context, length - minimum_context):
            yield ids[start : start + length]


@torch.inference_mode()
def layer_scores(
    parts: ModelParts,
    chosen: list[list[int]],
    minimum_context: int,
    batch_size: int = 8,
    layers: list[int] | None = None,
) -> pd.DataFrame:
    """Next-token accuracy and perplexity of layers, decoded by the model's own norm and head.

    Parameters
    ----------
    chosen: windows of token ids (`windows`).
    layers: counted 1..L, the last of them L; all by default.

    Returns
    -------
    `layer`, `accuracy`, `agreement` (share of tokens that are the last layer's), `perplexity` (exp of the mean negative
    log-likelihood in nats), `tokens` (scored).
    """
    layers = layers or list(range(1, parts.total_layers + 1))
    correct, agreeing = torch.zeros(len(layers)), torch.zeros(len(layers))
    nats = torch.zeros(len(layers), dtype=torch.float64)
    count = 0
    for first in tqdm(range(0, len(chosen), batch_size), unit="batch", leave=False):
        batch = chosen[first : first + batch_size]
        longest = max(map(len, batch))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch], device=parts.device)
        lengths = torch.tensor([len(row) for row in batch], device=parts.device)
        places = torch.arange(1, longest, device=parts.device)
        # Padding stands behind a row's tokens, where a causal model cannot see it.
        scored = (places >= minimum_context) & (places < lengths[:, None])
        targets = ids[:, 1:][scored]
        states = parts.hidden_states(ids[:, :-1])
        final = None
        for index in reversed(range(len(layers))):
            logits = parts.logits(states[layers[index] - 1][scored]).float()
            predicted = logits.argmax(-1)
            final = predicted if final is None else final
            correct[index] += (predicted == targets).sum().cpu()
            agreeing[index] += (predicted == final).sum().cpu()
            nats[index] += F.cross_entropy(logits, targets, reduction="sum").double().cpu()
        count += len(targets)
    return pd.DataFrame(
        {
            "layer": layers,
            "accuracy": (correct / count).numpy(),
            "agreement": (agreeing / count).numpy(),
            "perplexity": (nats / count).exp().numpy(),
            "tokens": count,
        }
    )


def base_model_scores(name: str, test_files: dict[tuple[str, str], list[list[str]]]) -> pd.DataFrame:
    """`layer_scores` of a model on several corpora.

    Parameters
    ----------
    test_files: code of the test files by (corpus, language).

    Returns
    -------
    Columns `corpus`, `language`, `layer`, `accuracy`, `perplexity`, `tokens`.
    """
    parts, tokenizer = take_apart(load_model(name)), load_tokenizer(name)
    frames = []
    for (corpus, language), files in test_files.items():
        encoded = (tokenizer(" ".join(code), verbose=False).input_ids for code in files)
        found = list(windows(encoded, parts.max_positions, MINIMUM_CONTEXT))
        if not found:
            raise InputError(f"No {language} file of {corpus} has more than {MINIMUM_CONTEXT} tokens.")
        chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(WINDOWS, len(found))).astype(int)]
        scores = layer_scores(parts, chosen, MINIMUM_CONTEXT)
        scores.insert(0, "corpus", corpus)
        scores.insert(1, "language", language)
        frames.append(scores)
    return pd.concat(frames, ignore_index=True)
