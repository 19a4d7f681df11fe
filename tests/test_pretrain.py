"""Pretraining: what the corpus keeps out, runs that go on where they were killed, and the choice of a learning rate."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import source
from transformers import PreTrainedModel

from eelib.errors import InputError
from eelib.models.pico import POSITIONS
from eelib.models.tokenizer import train_tokenizer
from eelib.training import pretrain, pretraining_corpus
from eelib.training.attention import causal_blocks
from eelib.training.pretrain import HELD_OUT, Recipe
from eelib.training.pretraining_corpus import PretrainingCorpus, forbidden_runs, pretraining_files

RECIPE = Recipe("llama-pico", steps=6, batch_size=1, seed=0, layers=2, compiled=False)
HEADER = "project,version,file,sha256,bytes,licence,language,split"


def write_table(path: Path, packages: list) -> Path:
    rows = [",".join(str(getattr(row, column)) for column in HEADER.split(",")) for row in packages]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture
def table(package, tmp_path, monkeypatch):
    """A table of two packages, whose second repeats a file of the first."""
    packages = [
        package("own", "train", a=source("o", 20)),
        package("more", "train", b=source("m", 20), c=source("c", 25), again=source("o", 20)),
    ]
    monkeypatch.setattr(
        pretraining_corpus, "PRETRAINING_TABLE", write_table(tmp_path / "pretraining.csv", packages)
    )
    return tmp_path


def line_completion(path: Path, *codes: str) -> Path:
    with gzip.open(path, "wt") as file:
        for code in codes:
            file.write(json.dumps({"id": 0, "input": f"<s> {code}", "gt": ""}) + "\n")
    return path


def test_no_excluded_file_is_trained_on(table):
    def names(excluded: list[Path]) -> list[str]:
        files = pretraining_files(forbidden_runs(excluded), table)
        return [f"{file.project}/{Path(file.id).stem}" for file in files]

    assert names([]) == ["own/a", "more/b", "more/c"]  # `again` is `a`
    code = next(file.code for file in pretraining_files(set(), table) if file.id.endswith("c.py"))
    fifty = " ".join(code[:50])
    assert names([line_completion(table / "python_test.jsonl.gz", fifty)]) == ["own/a", "more/b"]
    assert names([line_completion(table / "python_test.jsonl.gz", fifty.rpartition(" ")[0])]) == names([])


@pytest.fixture
def tiny_corpus() -> PretrainingCorpus:
    tokenizer = train_tokenizer(["a b c"], vocabulary_size=270)  # 256 bytes, the marks, and merges
    blocks = np.random.default_rng(0).integers(3, len(tokenizer), (HELD_OUT + 20, POSITIONS)).astype(np.int32)
    return PretrainingCorpus("0123456789", tokenizer, blocks, {"excluded": []})


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return model.state_dict()


def equal(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    return all(torch.equal(weights(second)[name], tensor) for name, tensor in weights(first).items())


def test_a_run_goes_on_to_the_same_weights(tiny_corpus, tmp_path):
    def train(folder: str, stop: int | None = None) -> pretrain.Run:
        return pretrain.train(RECIPE, tiny_corpus, tmp_path / folder, 1e-3, stop)

    whole, half = train("whole"), train("halves", stop=2)
    resumed = train("halves")
    assert equal(whole.model, resumed.model) and not equal(half.model, resumed.model)
    assert resumed.records[-1] == whole.records[-1] and resumed.records[-1]["step"] == 6
    assert 0 < half.hours < resumed.hours
    assert train("halves").hours == resumed.hours  # nothing was trained


def test_the_best_learning_rate_goes_on_from_its_trial(tiny_corpus, tmp_path):
    model, record = pretrain.pretrain(RECIPE, tiny_corpus, tmp_path, [1e-2, 1e-3, 1e-30], trial_steps=2)
    losses = {rate: records[-1]["eval_loss"] for rate, records in record["trials"].items()}
    assert list(losses) == ["0.01", "0.001", "1e-30"]
    assert all(records[-1]["step"] == 2 for records in record["trials"].values())
    assert losses[f"{record['learning_rate']:g}"] == min(losses.values()) < losses["1e-30"]
    assert record["tokens_seen"] == 6 * POSITIONS
    alone, other = pretrain.pretrain(RECIPE, tiny_corpus, tmp_path / "alone", [record["learning_rate"]], 2)
    assert equal(model, alone)
    assert [r for r in record["log"] if r["step"] == 6] == other["log"]


def test_trials_end_with_the_run(tiny_corpus, tmp_path):
    with pytest.raises(InputError, match=r"--trial-steps is 7: allowed are at most the 6"):
        pretrain.pretrain(RECIPE, tiny_corpus, tmp_path, [1e-3, 1e-4], trial_steps=7)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 5, 128, 300])
def test_attention_in_blocks_is_causal_attention(groups, length):
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(2, 4, length, 8, generator=generator)
    key, value = (torch.randn(2, groups, length, 8, generator=generator) for _ in range(2))
    found, _ = causal_blocks(torch.nn.Module(), query, key, value, None)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize(
    "unknown", [{"attention_mask": torch.ones(1)}, {"attention_mask": None, "dropout": 0.1}]
)
def test_attention_in_blocks_refuses_what_it_would_leave_out(unknown):
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="no attention mask and no dropout"):
        causal_blocks(torch.nn.Module(), states, states, states, **unknown)


def test_a_missing_file_to_exclude_is_said():
    command = [
        sys.executable,
        "-m",
        "eelib.training.pretrain",
        "--model",
        "opt-pico",
        "--exclude",
        "nowhere.jsonl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: There is no file nowhere.jsonl to exclude."
