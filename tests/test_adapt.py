"""Fine-tuning that ships: a tiny model goes through training, export and loading by the real command."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from eelib import paths
from eelib.data.corpus import CodeFile
from eelib.models import loading
from eelib.models.loading import load_model
from eelib.models.tokenizer import end_of_line, train_tokenizer
from eelib.profile import load_profile
from eelib.report import cards as base_models
from eelib.training import adapt
from eelib.training.adapt import held_out_scores, training_ids


def files(language: str, split: str, count: int, length: int) -> list[CodeFile]:
    rng = np.random.default_rng(sum(map(ord, language + split)))
    words = [*(f"w{i}" for i in range(12)), "<EOL>"]
    return [
        CodeFile(f"{split}{i}", "p", language, split, rng.choice(words, length).tolist())
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(f"w{i}" for i in range(12)) + " <EOL>"] * 3, vocabulary_size=300)


@pytest.fixture
def shipped(tmp_path, monkeypatch, tokenizer):
    """A base model `tiny` in the folder of shipped models, and corpora of a few files."""
    folder = tmp_path / "models" / "tiny"
    tiny_model("llama-pico", layers=8, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")

    def load_corpus(_, language: str) -> list[CodeFile]:
        return (
            files(language, "train", 6, 200)
            + files(language, "validation", 2, 150)
            + files(language, "test", 2, 150)
        )

    profile = load_profile("smollm")
    tuning = replace(profile.fine_tuning, sequence_length=64, batch_size=2, shortlist=40, checkpoint_steps=2)
    monkeypatch.setattr(adapt, "load_corpus", load_corpus)
    monkeypatch.setattr(adapt, "load_profile", lambda _: replace(profile, fine_tuning=tuning))
    return tmp_path


def command(work, *arguments: str) -> list[str]:
    return ["adapt", "--model", "tiny", "--work", str(work / "work"), "--windows", "3", *arguments]


@pytest.mark.parametrize("loss", ["aggregated", "plain"])
def test_what_is_trained_is_shipped_and_loads_by_name(shipped, monkeypatch, loss, capsys):
    arguments = command(
        shipped, "--loss", loss, "--steps", "4", "--learning-rate", "1e-3", "--distilled", "--export"
    )
    monkeypatch.setattr("sys.argv", arguments)
    adapt.main()
    folder = shipped / "models" / "tiny"
    assert f"{loss}.safetensors is written" in capsys.readouterr().out
    record = json.loads((folder / f"{loss}.json").read_text())
    assert record["tokens_seen"] == 4 * 2 * 64 and record["loss"] == loss and record["recipe"]["steps"] == 4
    curve = pd.read_csv(folder / f"{loss}_curve.csv")
    assert sorted(curve["step"].unique()) == [2, 4] and set(curve["language"]) == {"java", "python"}
    assert curve["tokens_seen"].max() == record["tokens_seen"]
    layers = pd.read_csv(folder / f"{loss}_layers.csv")
    assert set(layers["kind"]) == {"base", "tuned", "shipped"} and set(layers["layer"]) == {4, 8}
    assert (layers.loc[layers["layer"] == 8, "agreement"] == 1).all()
    # The whole difference fits here, so what is shipped is what was trained, but for rounding to int8.
    (run,) = (shipped / "work").iterdir()
    tuned, loaded, base = load_model(str(run / "model")), load_model(f"tiny+{loss}"), load_model("tiny")
    for name, parameter in tuned.named_parameters():
        change = (parameter - dict(base.named_parameters())[name]).norm()
        assert (parameter - dict(loaded.named_parameters())[name]).norm() <= 0.03 * change + 1e-6, name
    rows = (tuned.get_input_embeddings().weight - base.get_input_embeddings().weight).abs().sum(1) > 0
    assert rows.nonzero().flatten().tolist() == [end_of_line(loading.load_tokenizer("tiny"))]


def test_a_finished_run_is_not_trained_again(shipped, monkeypatch):
    monkeypatch.setattr("sys.argv", command(shipped, "--steps", "2", "--loss", "plain"))
    adapt.main()
    monkeypatch.setattr(adapt, "fine_tune", None)
    adapt.main()


def test_a_run_on_another_base_is_not_taken(shipped, monkeypatch):
    monkeypatch.setattr("sys.argv", command(shipped, "--steps", "2", "--loss", "plain"))
    adapt.main()
    monkeypatch.setattr(adapt, "fingerprint", lambda name: "of other weights")
    adapt.main()
    bases = [json.loads((run / "record.json").read_text())["base"] for run in (shipped / "work").iterdir()]
    assert len(bases) == 2 and "of other weights" in bases


def test_a_run_goes_on_from_a_finished_one(shipped, monkeypatch):
    monkeypatch.setattr("sys.argv", command(shipped, "--steps", "4", "--learning-rate", "1e-3"))
    adapt.main()
    (first,) = (shipped / "work").iterdir()
    arguments = ["--start", str(first), "--steps", "2", "--distilled", "--loss-weights", "linear"]
    monkeypatch.setattr("sys.argv", command(shipped, "--learning-rate", "0", *arguments))
    adapt.main()
    (second,) = set((shipped / "work").iterdir()) - {first}
    records = [json.loads((run / "record.json").read_text()) for run in (first, second)]
    assert records[0]["earlier"] == [] and records[1]["earlier"][0]["recipe"] == records[0]["recipe"]
    assert [record["tokens_seen"] for record in records] == [512, 768] and records[1]["tokens_of_run"] == 256
    assert records[1]["recipe"]["seed"] == records[0]["recipe"]["seed"] + 1
    assert pd.read_csv(second / "curve.csv")["tokens_seen"].unique().tolist() == [256, 512, 768]
    # At a learning rate of 0 it ends with what it began with.
    went_on = dict(load_model(str(second / "model")).named_parameters())
    for name, parameter in load_model(str(first / "model")).named_parameters():
        assert torch.equal(parameter, went_on[name]), name


def test_bad_input_is_one_sentence(shipped, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", command(shipped, "--steps", "2"))
    monkeypatch.setattr("sys.argv", ["adapt", "--model", "none", "--work", str(shipped)])
    with pytest.raises(SystemExit) as stopped:
        adapt.main()
    assert stopped.value.code == 2
    assert "There is no model 'none'" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", command(shipped, "--start", str(shipped)))
    with pytest.raises(SystemExit) as stopped:
        adapt.main()
    assert stopped.value.code == 2
    assert "is no finished run" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stopped:
        adapt.main()
    assert stopped.value.code == 2
    assert "started in 2 processes: allowed is one" in capsys.readouterr().err


def test_languages_weigh_the_same(tokenizer):
    corpora = {"java": files("java", "train", 9, 100), "python": files("python", "train", 3, 100)}
    alone = training_ids(["python"], corpora, tokenizer, 0)
    both = training_ids(["java", "python"], corpora, tokenizer, 0)
    assert 2 * len(alone) <= len(both) <= 2 * len(alone) + 110
    assert np.array_equal(both, training_ids(["java", "python"], corpora, tokenizer, 0))


def test_scores_agree_with_a_count_by_hand():
    model = tiny_model("llama-pico", layers=8)
    window = torch.randint(3, 90, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    scores = held_out_scores(model, {"java": [window]}).set_index("layer")
    with torch.no_grad():
        out = model(torch.tensor([window[:-1]]), output_hidden_states=True)
        last = out.logits[0, 49:].argmax(-1)
        fourth = model.lm_head(model.model.norm(out.hidden_states[4]))[0, 49:].argmax(-1)
    truth = torch.tensor(window[50:])
    assert scores.loc[8, "accuracy"] == pytest.approx((last == truth).float().mean().item())
    assert scores.loc[4, "accuracy"] == pytest.approx((fourth == truth).float().mean().item())
    assert scores.loc[4, "agreement"] == pytest.approx((fourth == last).float().mean().item())
    assert scores.loc[8, "tokens"] == 20


def test_a_card_is_written_from_the_records(tmp_path):
    folder = tmp_path / "smollm2-135m"
    folder.mkdir()
    source = json.loads((paths.MODELS / "smollm2-135m" / "source.json").read_text())
    (folder / "source.json").write_text(json.dumps(source))
    recipe = load_profile("smollm").fine_tuning
    record = {
        "earlier": [{"recipe": {**recipe.__dict__}, "tokens_of_run": 100_000}],
        "recipe": {**recipe.__dict__, "distilled": True, "steps": 23},
        "tokens_of_run": 23_456,
        "tokens_seen": 123_456,
        "bytes": 14_000_000,
        "energy_kept": 0.876,
    }
    (folder / "aggregated.json").write_text(json.dumps(record))
    rows = [
        {"kind": kind, "language": language, "layer": layer, "accuracy": 0.25, "agreement": 0.5}
        for kind in ("base", "tuned", "shipped")
        for language in ("java", "python")
        for layer in (4, 30)
    ]
    pd.DataFrame(rows).to_csv(folder / "aggregated_layers.csv", index=False)
    base_models.write_card(folder)
    text = (folder / "README.md").read_text()
    assert "123,456" in text and "14.0 MB" in text and "87.6%" in text and "0.250 / 0.500" in text
    assert source["sha256"] in text and "{" not in text
    assert (
        "| aggregated | 1 | exit points and last layer, linear weights, exits learn the true tokens | 100,000 |"
        in text
    )
    assert "--steps 23 --learning-rate 0.0002 --loss-weights linear --shallow-steps 0 --distilled" in text
