"""The measurement at the thesis's sizes, with tiny geometries on the CPU: every part, file and column, and its numbers' sense."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper_parts
import paper_scale
from paper_parts import published

from eelib.errors import InputError
from eelib.gpu.geometries import GEOMETRIES, build, decoding_bytes
from eelib.models.parts import take_apart
from eelib.report.thesis_numbers import load_exit_layers

QUICK = ["--tiny", "--dtype", "float32", "--context", "12", "--window", "0.01", "--completions", "2"]
QUICK += ["--rounds", "1", "--copy-bytes", "100000", "--device", "cpu", "--commit", "abc1234"]


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """A folder of results as the script makes it, tiny; the notebook is tested with it as well."""
    folder = tmp_path_factory.mktemp("paper_scale")
    for geometry, part in (
        ("opt-2.7b", "reference"),
        ("opt-2.7b", "fixed"),
        ("opt-2.7b", "traces-java"),
        ("llama-3.2-3b", "fixed"),
    ):
        arguments = ["--geometry", geometry, "--part", part, "--folder", str(folder)]
        assert paper_scale.main([*QUICK, *arguments]) == 0
    return folder


def rows(kept: Path, geometry: str, part: str) -> pd.DataFrame:
    return pd.read_parquet(kept / f"{geometry}-tiny-float32-12-{part}.parquet")


def test_every_part_has_its_rows_and_says_where_they_come_from(kept):
    for path in kept.glob("*.parquet"):
        frame = pd.read_parquet(path)
        assert (frame["seconds"] > 0).all() and set(frame["round"]) == {0}
        split = frame[~frame["decoder"].isin(["generate, dynamic", "generate, static"])]
        assert split["step_seconds"].gt(0).all()
        assert (split["prompt_seconds"] + split["step_seconds"] - split["seconds"]).abs().max() < 1e-9
        facts = json.loads(path.with_suffix(".json").read_text())
        assert facts["commit"] == "abc1234" and facts["GPU"] == "none" and facts["rounds"] == 1
        assert {"torch", "transformers"} == set(facts["versions"])
        assert facts["energy"].startswith("Energy is")
    reference = rows(kept, "opt-2.7b", "reference")
    assert len(reference) == 9
    assert reference.loc[reference["criterion"] == "full", "mean_layers"].eq(32).all()
    assert set(rows(kept, "llama-3.2-3b", "fixed")["mean_layers"]) == {4, 6, 8, 10, 12, 14, 18, 22, 26, 28}


def test_replayed_traces_run_the_published_layers(kept):
    frame = rows(kept, "opt-2.7b", "traces-java")
    exits = frame[frame["criterion"] == "trace"]
    assert len(exits) == 6 * 2 * 4  # thresholds, agent on and off, cache modes
    scripts = published("opt-2.7b", "java")
    for threshold, group in exits.groupby("threshold"):
        count = group["completions"].iloc[0]
        layers = [layer for script in scripts[threshold][:count] for layer in script.layers[0]]
        assert group["mean_layers"].eq(sum(layers) / len(layers)).all()
    whole = load_exit_layers().query("model == 'opt-2.7b' and language == 'java' and threshold == 0.9")
    replayed = [layer for script in scripts[0.9] for layer in script.layers[0]]
    assert sorted(replayed) == sorted(whole["layer"].tolist()[: len(replayed)])


def test_a_part_that_is_there_is_not_measured_again(kept, capsys):
    arguments = [*QUICK, "--geometry", "opt-2.7b", "--part", "fixed", "--folder", str(kept)]
    before = rows(kept, "opt-2.7b", "fixed")
    assert paper_scale.main(arguments) == 0
    assert "is there; --force measures it anew" in capsys.readouterr().out
    pd.testing.assert_frame_equal(rows(kept, "opt-2.7b", "fixed"), before)


@pytest.mark.slow
def test_the_check_compares_tokens(tmp_path, monkeypatch):
    assert paper_scale.main([*QUICK, "--part", "check", "--folder", str(tmp_path)]) == 0
    verdicts = json.loads((tmp_path / "check.json").read_text())["verdicts"]
    assert set(verdicts) == {"opt-2.7b-tiny, graphs", "llama-3.2-3b-tiny, graphs"}
    assert set(verdicts.values()) == {"27 of 27 completions are the same"}
    wrong = paper_parts.generate_captured
    monkeypatch.setattr(
        paper_parts,
        "generate_captured",
        lambda decoder, prompt, *args: wrong(decoder, [*prompt[:-1], 99], *args),
    )
    assert paper_scale.main([*QUICK, "--part", "check", "--folder", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--part", "fixd"], "The part is 'fixd': allowed are check, reference"),
        (["--part", "fixed", "--geometry", "opt-6.7b"], "The geometry is 'opt-6.7b-tiny': allowed are"),
        (["--part", "fixed", "--context", "513"], "--context is 513: allowed are at most 512"),
        (["--part", "fixed", "--rounds", "0"], "--rounds is 0: allowed is 1 or more"),
        (["--part", "generate-compiled"], "generate compiles on a GPU only"),
        (["--part", "fixed", "--limit", "0.1"], "--limit is 0.1 s, and one round"),
    ],
)
def test_bad_arguments_are_one_sentence_and_code_2(tmp_path, capsys, arguments, sentence):
    assert paper_scale.main([*QUICK, "--folder", str(tmp_path), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize(("name", "millions"), [("opt-2.7b", 2651.6), ("llama-3.2-3b", 3212.7)])
def test_geometries_have_the_parameters_of_the_published_checkpoints(name, millions):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GEOMETRIES[name])
    model.tie_weights()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_bytes_of_a_token_are_all_weights_at_full_depth():
    model = build("llama-3.2-3b-tiny", torch.float32, torch.device("cpu"))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    final_norm = model.model.norm.weight.nbytes
    keys_values = 28 * 2 * 2 * 16 * 100 * 4  # layers, keys and values, groups, width, positions, bytes
    assert decoding_bytes(model, 28, 100) == weights - final_norm + keys_values
    assert take_apart(model).exit_points[-1] == 26
    with pytest.raises(InputError, match="geometry is 'llama'"):
        build("llama", torch.float32, torch.device("cpu"))


def test_the_measurement_needs_little_that_is_installed():
    """A GPU machine may lack the lock's packages: only these are imported (zeus, where it is missing, by NVML itself)."""
    missing = "zeus stable_baselines3 gymnasium codebleu datasets unearth papermill sacrebleu tree_sitter IPython accelerate"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing.split()!r})); sys.path.insert(0, 'benchmarks'); "
        "import paper_scale; assert paper_scale.main(sys.argv[1:]) == 2"
    )
    arguments = [*QUICK, "--part", "fixed"]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    # Here there is no GPU, and without zeus nothing measures a CPU: that far everything was imported and built.
    assert "ModuleNotFoundError" in run.stderr and "zeus" in run.stderr.splitlines()[-1], run.stderr


def test_the_notebook_draws_what_was_measured_here(kept, tmp_path):
    results = kept.rename(kept.with_name("tiny_for_a_test"))
    parameters = {"results": results, "dtype": "float32", "context": 12}
    words = [str(word) for name, value in parameters.items() for word in ("-p", name, value)]
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/10_paper_scale.ipynb",
        str(tmp_path / "out.ipynb"),
    ]
    run = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    results.rename(kept)
    assert run.returncode == 0, run.stderr
    figures, tables = (ROOT / root / "gpu+results=tiny_for_a_test" for root in ("figures", "tables"))
    assert len(list(figures.glob("*.png"))) == 3 and len(list(tables.glob("*.csv"))) == 5
    assert "no GPU, the numbers mean nothing" in (tables / "table_10_04_traces.md").read_text()
    for folder in (figures, tables):
        shutil.rmtree(folder)
