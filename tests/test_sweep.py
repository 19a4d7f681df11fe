"""Evaluation over samples: completions that end early count for what was generated, and their text has no special tokens."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model
from replay import ReplayMonitor

from eelib.data.samples import Sample
from eelib.decoding.criteria import FixedLayer, FullDepth
from eelib.decoding.generate import generate
from eelib.evaluation.caching import changed_tokens
from eelib.evaluation.flops import generation_flops
from eelib.evaluation.sweep import Setting, predictions, summarise, summarise_timings, timings
from eelib.models.parts import take_apart
from eelib.models.tokenizer import train_tokenizer

NEW = 5
SETTINGS = [Setting("full", FullDepth()), Setting("fixed", FixedLayer(4), 4.0)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["return x ; int y = x ;"] * 20, vocabulary_size=290)


@pytest.fixture(scope="module")
def contexts(tokenizer):
    return [tokenizer(text).input_ids for text in ("return x ;", "int y =")]


@pytest.fixture(scope="module")
def parts(tokenizer, contexts):
    """A model that says the end token second after the first context: it changed places with what was said there."""
    model = tiny_model("llama-pico", 8, vocabulary=len(tokenizer))
    second = generate(take_apart(model), contexts[0], 2, FullDepth()).tokens[1]
    embeddings, end = model.get_input_embeddings().weight, tokenizer.eos_token_id
    with torch.no_grad():
        embeddings[[second, end]] = embeddings[[end, second]]
    return take_apart(model)


@pytest.fixture(scope="module")
def samples(tokenizer, contexts):
    reference = tokenizer("return x ; int y", add_special_tokens=False).input_ids[:NEW]
    return [Sample(str(i), context, reference) for i, context in enumerate(contexts)]


def test_predictions_end_with_the_end_token(parts, tokenizer, samples):
    end = tokenizer.eos_token_id
    rows = predictions(parts, tokenizer, samples, SETTINGS, NEW)
    first = rows[(rows["sample"] == "0") & (rows["criterion"] == "full")].iloc[0]
    assert len(first["tokens"]) == 2 and first["tokens"][-1] == end
    assert first["exit_layers"] == [8, 8] and first["agrees"] == [True, True]
    assert first["prediction"] == tokenizer.decode(first["tokens"][:1]).strip()
    assert set(rows["reference"]) == {"return x ; int y"}
    assert first["flops"] == generation_flops(
        parts.model.config, len(samples[0].context), [8, 8], SETTINGS[0].cache.value
    )
    for row in rows.itertuples():
        rule = FullDepth() if row.criterion == "full" else FixedLayer(4)
        single = generate(parts, samples[int(row.sample)].context, NEW, rule, end=end)
        assert (row.tokens, row.exit_layers) == (single.tokens, single.exit_layers)
        assert len(row.agrees) == len(row.tokens) and end not in row.tokens[:-1]


def test_timings_count_what_was_generated(parts, tokenizer, samples):
    monitor = ReplayMonitor([(1.0, 1.0)] * 4, "rapl")
    rows = timings({"aggregated": parts}, samples, SETTINGS, NEW, 1, monitor, tokenizer.eos_token_id)
    decoded = predictions(parts, tokenizer, samples, SETTINGS, NEW)
    keys = ["criterion", "sample"]
    counted = rows.set_index(keys)["tokens"].sort_index()
    assert counted.tolist() == decoded.set_index(keys)["tokens"].map(len).sort_index().tolist()
    assert counted["full", "0"] == 2
    full = summarise_timings(rows, ["criterion"]).set_index("criterion").loc["full"]
    assert full["throughput"] == (2 + counted["full", "1"]) / 2.0  # two completions of one second


def test_layers_agreement_and_flops_are_of_a_token():
    rows = pd.DataFrame(
        {
            "criterion": "agent",
            "prediction": ["return x ;", "return"],
            "reference": "return x ;",
            "agrees": [[True, True, False], [False]],
            "exit_layers": [[4, 4, 6], [8]],
            "token_accuracy": [1.0, 1 / 3],
            "flops": [60.0, 20.0],
        }
    )
    [row] = summarise(rows, "java", ["criterion"]).to_dict("records")
    assert (row["mean_layers"], row["agreement"], row["flops"]) == (22 / 4, 2 / 4, 80 / 4)


def test_changed_tokens_of_completions_that_end_apart():
    tokens = {"none": [[5, 6, 7], [5, 1], [1]], "copy": [[5, 6, 8], [5, 6, 1], [1]]}
    rows = pd.DataFrame(
        {"criterion": "agent", "threshold": 0.9, "cache": cache, "sample": sample, "tokens": np.array(row)}
        for cache, completions in tokens.items()
        for sample, row in enumerate(completions)
    )
    nan = math.nan
    expected = [[0, 0, 1], [0, 1, 1], [0, nan, nan]]
    np.testing.assert_array_equal(changed_tokens(rows, "agent", 0.9, "copy"), expected)
    assert not np.nansum(changed_tokens(rows, "agent", 0.9, "none"))
