"""Completions to be read: the context, the truth, and the layer that each token left at."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
from transformers import PreTrainedTokenizerBase

from eelib.data.samples import Sample

CONTEXT_TOKENS = 40  # of the context, its last


def pieces(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text of those before it, so that the pieces make up the text."""
    # A token may end inside a character, which then belongs to the token that completes it.
    texts = [tokenizer.decode(tokens[:length]).rstrip("\ufffd") for length in range(len(tokens) + 1)]
    return [after[len(before) :] for before, after in pairwise(texts)]


def token_rows(
    predictions: pd.DataFrame, samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """The completions of some samples, token by token.

    Parameters
    ----------
    predictions: rows of `predict.agent_predictions`, one a sample: one threshold, one agent.
    samples: those to be shown, which the predictions hold.

    Returns
    -------
    A row a token: `sample`; `context`, its last tokens as text, and `truth`, the same in all rows of a sample; `token`, its text;
    `exit_layer`; `agrees`, whether it is the last layer's.
    """
    if not predictions["sample"].is_unique:
        raise ValueError("Completions are shown of one agent at one threshold: a sample has several.")
    by_sample = predictions.set_index("sample")
    rows = []
    for sample in samples:
        made = by_sample.loc[sample.id]
        shared = {
            "sample": sample.id,
            "context": tokenizer.decode(sample.context[1:][-CONTEXT_TOKENS:]),
            "truth": tokenizer.decode(sample.reference),
        }
        texts = pieces([int(token) for token in made["tokens"]], tokenizer)
        for text, layer, agrees in zip(texts, made["exit_layers"], made["agrees"], strict=True):
            rows.append(shared | {"token": text, "exit_layer": int(layer), "agrees": bool(agrees)})
    return pd.DataFrame(rows)
