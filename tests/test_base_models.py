"""Scores of a base model by layer, and its card."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import VOCABULARY

from eelib import paths
from eelib.models.layer_scores import layer_scores, windows
from eelib.report.base_models import card, curves_figure, growth_mark, layers_figure
from eelib.report.cards import LAYERS_FILE, last_layer_scores


@pytest.mark.parametrize(
    ("count", "expected"), [(5, []), (6, [(0, 6)]), (10, [(0, 10)]), (11, [(0, 10), (5, 11)])]
)
def test_windows_by_hand(count, expected):
    ids = list(range(count))
    assert list(windows([ids], length=10, minimum_context=5)) == [ids[a:b] for a, b in expected]


def test_every_id_with_a_context_is_scored_once():
    files = [list(range(1000, 1000 + n)) for n in (49, 50, 51, 256, 257, 700)]
    for ids in files:
        scored = [i for window in windows([ids], 256, 50) for i in window[50:]]
        assert scored == ids[50:]


def test_scores_are_those_of_each_window_alone(parts):
    """Batches with padding against the model's own logits, one window at a time, last layer; and exit 4 by hand."""
    generator = torch.Generator().manual_seed(3)
    chosen = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in (12, 7, 9, 5)]
    scores = layer_scores(parts, chosen, minimum_context=4, batch_size=3)
    assert scores["layer"].tolist() == list(range(1, 13))
    for layer in (4, 12):
        hits, nats = [], []
        for window in chosen:
            ids = torch.tensor([window])
            with torch.inference_mode():
                if layer == 12:
                    logits = parts.model(ids).logits[0]
                else:
                    logits = parts.logits(parts.hidden_states(ids)[layer - 1])[0]
            for place in range(4, len(window)):
                hits.append(logits[place - 1].argmax().item() == window[place])
                nats.append(F.cross_entropy(logits[place - 1], torch.tensor(window[place])).item())
        row = scores[scores["layer"] == layer].iloc[0]
        assert row["tokens"] == len(hits) == 17
        assert row["accuracy"] == pytest.approx(np.mean(hits))
        assert row["perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-4)


@pytest.mark.parametrize("name", ["opt-pico"])
def test_the_shipped_cards_say_what_was_measured(name):
    folder = paths.MODELS / name
    record = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    scores = pd.read_csv(folder / LAYERS_FILE)
    text = (folder / "README.md").read_text()
    assert f"{record['tokens_seen'] / 1e6:.1f}M" in text
    assert set(scores["corpus"]) == {"shipped", "CodeXGLUE"} and set(scores["language"]) == {
        "java",
        "python",
    }
    last = scores[scores["layer"] == config["num_hidden_layers"]]
    assert len(last) == 4
    for row in last.itertuples():
        assert f"{row.accuracy:.3f} / {row.perplexity:.1f}" in text
    # The aim of these models: next-token accuracy of 0.55 in each language on files of other origin, low at early layers.
    codexglue = scores[scores["corpus"] == "CodeXGLUE"].pivot(
        index="layer", columns="language", values="accuracy"
    )
    assert codexglue.iloc[-1].min() >= 0.55 and codexglue.loc[4].max() < 0.3
    found = last_layer_scores([name, "elsewhere/model"])
    assert found["accuracy"].tolist() == last["accuracy"].tolist()


def test_a_growth_mark_is_the_largest_fall_before_the_last_quarter():
    scores = pd.DataFrame(
        {
            "corpus": ["a"] * 8 + ["b"] * 8,
            "language": "java",
            "layer": [*range(1, 9)] * 2,
            "accuracy": [0.1, 0.2, 0.18, 0.3, 0.4, 0.5, 0.2, 0.6, *[0.1, 0.3, 0.25, 0.3, 0.4, 0.5, 0.5, 0.6]],
        }
    )
    assert growth_mark(scores) == pytest.approx(
        0.05
    )  # 0.3 at layer 2 of b; the fall after layer 6 of 8 does not count


def test_a_card_without_trials_can_be_written():
    record = {
        "model": "llama-pico",
        "parameters": 2_000_000,
        "steps": 20,
        "batch_size": 4,
        "tokens_seen": 20_480,
        "learning_rate": 3e-3,
        "warmup_steps": 6,
        "decay_steps": 8,
        "precision": "float32",
        "optimizer": "Muon",
        "seed": 0,
        "hours": 0.25,
        "device": "CPU, 1 thread(s)",
        "corpus": {
            "excluded": ["java_test.jsonl.gz"],
            "java": {"files": 3, "code_tokens": 1e6, "bpe_tokens": 2e6, "projects": ["a", "b"]},
        },
        "trials": {},
        "log": [
            {"step": 10, "loss": 5.0, "grad_norm": 1.0},
            {"step": 20, "loss": 4.0, "grad_norm": 0.9},
            {"step": 20, "eval_loss": 4.1},
        ],
    }
    config = {"num_hidden_layers": 2, "hidden_size": 8, "max_position_embeddings": 16, "vocab_size": 99}
    scores = pd.DataFrame(
        {
            "corpus": "packages",
            "language": "java",
            "layer": [1, 2],
            "accuracy": [0.1, 0.5],
            "perplexity": [90.0, 9.04],
            "tokens": 1234,
        }
    )
    text = card(record, config, scores, exit_points=[1])
    assert (
        "| 1 | 0.100 / 90.0 |" in text
        and "| 2 | 0.500 / 9.0 |" in text
        and "| tokens scored | 1,234 |" in text
    )
    assert "4.100 at step 20" in text and "java_test.jsonl.gz of CodeXGLUE" in text
    assert "float32" in text and "all layers from the first step on" in text and "{" not in text
    grown = card(record | {"stages": [{"layers": 1, "steps": 12}]}, config, scores, exit_points=[1])
    assert "grown: 12 steps at 1 layers" in grown
    for figure in (curves_figure(record), layers_figure(scores)):
        assert figure.axes
