"""Fine-tuning: it learns, its log is whole, and a killed run goes on to the very weights of an uninterrupted one."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import PartialState
from conftest import VOCABULARY, tiny_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from eelib.errors import InputError
from eelib.models.exits import loss_weights
from eelib.models.parts import take_apart
from eelib.models.tokenizer import train_tokenizer
from eelib.profile import FineTuning
from eelib.training import finetune
from eelib.training.callbacks import snapshot_steps
from eelib.training.finetune import fine_tune
from eelib.training.loss import aggregated_loss, layer_losses
from eelib.training.trainer import ExitTrainer

LENGTH, LAYERS = 16, 8
CONFIG = FineTuning(
    steps=6,
    batch_size=2,
    gradient_accumulation_steps=1,
    sequence_length=LENGTH,
    learning_rate=1e-3,
    adam_beta2=0.99,
    weight_decay=0.01,
    max_gradient_norm=1.0,
    lr_scheduler_type="linear",
    warmup_steps=1,
    bf16=False,
    shipped=False,
    loss_weights="thesis",
    decay=0.9,
    exit_positions=1.0,
    exits_per_step=None,
    distilled=False,
    shallow_steps=0.0,
    shortlist=None,
    lora_rank=None,
    train_embeddings=True,
    checkpoint_steps=1_000,
    seed=0,
)
# As the profiles run it, and where a resumed run could go wrong: sampled positions, bf16, dropout (in the model), and
# checkpoints in the middle and at the end of an epoch of six steps.
INTERRUPTED = dataclasses.replace(CONFIG, steps=8, exit_positions=0.25, bf16=True, checkpoint_steps=3)


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a b c"], vocabulary_size=270)


def random_ids(blocks: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, VOCABULARY, blocks * LENGTH).astype(np.int32)


def model(pico: str = "llama-pico", dropout: float = 0.0):
    model = tiny_model(pico, LAYERS)
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = dropout
    return model


def run(folder: Path, config: FineTuning, tokenizer, ids=None, snapshots=1, **kind) -> pd.DataFrame:
    folder.mkdir(exist_ok=True, parents=True)
    ids = random_ids(6) if ids is None else ids
    fine_tune(model(**kind), tokenizer, ids, loss_weights(LAYERS), config, folder, "a test", snapshots)
    return pd.read_parquet(folder / "log.parquet")


def die_at(monkeypatch, step: int) -> None:
    """Let the next run die when it computes the loss of a step, as a kill in its middle would end it."""

    def compute_loss(self, *args, real=ExitTrainer.compute_loss, **kwargs):
        if self.state.global_step == step:
            raise Killed
        return real(self, *args, **kwargs)

    monkeypatch.setattr(ExitTrainer, "compute_loss", compute_loss)


def killed(*_, **__):
    raise Killed


def assert_equal_runs(folder: Path, reference: Path) -> None:
    """Weights and log are the same bit by bit."""
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, reference))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    logs = [pd.read_parquet(path / "log.parquet") for path in (folder, reference)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


@pytest.mark.parametrize("pico", ["llama-pico", "opt-pico"])
def test_a_repeated_sequence_is_learnt_at_all_layers(tmp_path, tokenizer, pico):
    config = dataclasses.replace(CONFIG, steps=25, batch_size=1, learning_rate=3e-3)
    log = run(tmp_path, config, tokenizer, ids=np.tile(random_ids(1), 4), pico=pico)
    for column in ("loss", "loss_layer_4", "loss_layer_8"):
        assert log[column].iloc[-1] < 0.5 * log[column].iloc[0], column


def test_the_log_has_one_whole_row_a_step(tmp_path, tokenizer):
    log = run(tmp_path, CONFIG, tokenizer)
    layers = ["loss_layer_4", "loss_layer_8"]
    assert log.columns.tolist() == ["step", "epoch", "learning_rate", "grad_norm", "loss", *layers]
    assert log.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(log.to_numpy(dtype=float)).all() and (log.grad_norm > 0).all()
    weights = loss_weights(LAYERS)
    weighted = sum(weight * log[f"loss_layer_{layer}"] for layer, weight in weights.items())
    np.testing.assert_allclose(log.loss, weighted / sum(weights.values()), rtol=1e-5)
    # One warm-up step, then linearly to zero.
    np.testing.assert_allclose(log.learning_rate, 1e-3 * np.array([0, 5, 4, 3, 2, 1]) / 5, rtol=1e-6)


def test_the_first_loss_is_that_of_the_model_it_began_with(tmp_path, tokenizer):
    ids = random_ids(2)  # a single batch, whatever the order
    log = run(tmp_path, dataclasses.replace(CONFIG, steps=1), tokenizer, ids)
    parts, batch = take_apart(model()), torch.from_numpy(ids.astype(np.int64)).view(2, LENGTH)
    with torch.no_grad():
        losses = layer_losses(parts, parts.hidden_states(batch), batch, [4, 8])
    assert log.loss_layer_4[0] == pytest.approx(losses[4].item(), rel=1e-5)
    assert log.loss_layer_8[0] == pytest.approx(losses[8].item(), rel=1e-5)
    assert log.loss[0] == pytest.approx(aggregated_loss(losses, loss_weights(LAYERS)).item(), rel=1e-5)


def test_the_written_model_is_the_trained_one(tmp_path, tokenizer):
    ids = np.tile(random_ids(1), 2)
    log = run(tmp_path, dataclasses.replace(CONFIG, steps=15), tokenizer, ids)
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    assert (tmp_path / "model" / "tokenizer.json").exists()
    batch = torch.from_numpy(ids.astype(np.int64)).view(2, LENGTH)
    with torch.no_grad():
        loss = trained(batch, labels=batch).loss.item()
    assert loss <= log.loss_layer_8.iloc[-1] < log.loss_layer_8.iloc[0] - 1


@pytest.mark.parametrize("pico", ["llama-pico", "opt-pico"])
def test_accumulated_gradients_are_those_of_one_larger_batch(tmp_path, tokenizer, pico):
    large = dataclasses.replace(CONFIG, batch_size=4)
    small = dataclasses.replace(CONFIG, batch_size=2, gradient_accumulation_steps=2)
    ids = random_ids(9)  # the odd one of every epoch is left out
    logs = [
        run(tmp_path / str(config.batch_size), config, tokenizer, ids, pico=pico) for config in (large, small)
    ]
    assert logs[0].epoch.tolist() == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3])
    assert logs[0].columns.tolist() == logs[1].columns.tolist()
    for column in ("loss", "grad_norm", "learning_rate", "loss_layer_4", "loss_layer_8"):
        np.testing.assert_allclose(logs[0][column], logs[1][column], rtol=2e-3, err_msg=column)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("4", "2")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=2e-4)


def test_an_epochs_last_step_is_the_mean_of_the_fewer_micro_batches_it_has(tmp_path, tokenizer):
    config = dataclasses.replace(CONFIG, gradient_accumulation_steps=2)
    log = run(tmp_path, config, tokenizer, random_ids(6))  # epochs of three micro-batches
    assert log.epoch.tolist() == pytest.approx([2 / 3, 1, 5 / 3, 2, 8 / 3, 3])
    weights = loss_weights(LAYERS)
    weighted = sum(weight * log[f"loss_layer_{layer}"] for layer, weight in weights.items())
    np.testing.assert_allclose(log.loss, weighted / sum(weights.values()), rtol=1e-5)


def interruptible(folder: Path, tokenizer, config: FineTuning = INTERRUPTED) -> None:
    run(folder, config, tokenizer, random_ids(12), pico="opt-pico", dropout=0.2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("uninterrupted")
    interruptible(folder, tokenizer)
    return folder


@pytest.mark.parametrize("step", [1, 4, 7])  # before the first checkpoint; after it; after the second
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, tokenizer, uninterrupted, step):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        die_at(patch, step)
        interruptible(tmp_path, tokenizer)
    assert not (tmp_path / "model").exists()
    computed = []
    with pytest.MonkeyPatch.context() as patch:
        real = ExitTrainer.compute_loss
        patch.setattr(
            ExitTrainer,
            "compute_loss",
            lambda self, *a, **k: computed.append(self.state.global_step) or real(self, *a, **k),
        )
        interruptible(tmp_path, tokenizer)
    assert computed == list(range(step // 3 * 3, 8))  # nothing before the checkpoint runs again
    assert_equal_runs(tmp_path, uninterrupted)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    tmp_path, tokenizer, uninterrupted
):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 4)
        interruptible(tmp_path, tokenizer)
    whole = tmp_path / "checkpoints" / "checkpoint-3"
    half = tmp_path / "checkpoints" / "checkpoint-6"
    half.mkdir()
    shutil.copy(whole / "model.safetensors", half)  # the weights are written first
    interruptible(tmp_path, tokenizer)
    assert_equal_runs(tmp_path, uninterrupted)


@pytest.mark.parametrize("checkpoint_steps", [3, 4])  # 8 steps: never due at the end, and due there
def test_a_run_killed_after_its_last_step_writes_the_same(
    tmp_path, tokenizer, uninterrupted, checkpoint_steps
):
    config = dataclasses.replace(INTERRUPTED, checkpoint_steps=checkpoint_steps)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pd.DataFrame, "to_parquet", killed)
        interruptible(tmp_path, tokenizer, config)
    interruptible(tmp_path, tokenizer, config)
    assert_equal_runs(tmp_path, uninterrupted)


def test_dropout_and_the_seed_matter_to_these_runs(tmp_path, tokenizer, uninterrupted):
    # Otherwise the comparisons above would hold whatever became of the random number generators.
    interruptible(tmp_path / "seed", tokenizer, dataclasses.replace(INTERRUPTED, seed=1))
    run(tmp_path / "dropout", INTERRUPTED, tokenizer, random_ids(12), pico="opt-pico")
    losses = [
        pd.read_parquet(path / "log.parquet").loss.tolist()
        for path in (uninterrupted, tmp_path / "seed", tmp_path / "dropout")
    ]
    assert losses[0] != losses[1] and losses[0] != losses[2]


@pytest.mark.slow
def test_a_process_that_is_really_killed_goes_on(tmp_path, tokenizer, uninterrupted):
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]);"
        "import test_finetune as t;"
        "t.interruptible(pathlib.Path(sys.argv[2]), t.train_tokenizer(['a b c'], vocabulary_size=270))"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(Path(__file__).parent), str(tmp_path)]
    )
    deadline = time.monotonic() + 300
    try:
        while not (tmp_path / "checkpoints" / "checkpoint-6").exists():  # it may be half written
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "model").exists()
    interruptible(tmp_path, tokenizer)
    assert_equal_runs(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("bf16", "fast", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_mixed_precision_is_on_where_the_layers_run(tmp_path, tokenizer, monkeypatch, bf16, fast, dtype):
    monkeypatch.setattr(finetune, "fast_bf16", lambda: fast)
    trained, seen = model(), set()
    trained.model.layers[3].mlp.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    config = dataclasses.replace(CONFIG, steps=2, bf16=bf16)
    fine_tune(trained, tokenizer, random_ids(6), loss_weights(LAYERS), config, tmp_path, "a test")
    assert seen == {dtype}
    assert {tensor.dtype for tensor in load_file(tmp_path / "model/model.safetensors").values()} == {
        torch.float32
    }


def test_snapshots_are_the_model_on_its_way(tmp_path, tokenizer, monkeypatch):
    assert snapshot_steps(36, 4) == [9, 18, 27, 36] and snapshot_steps(2, 5) == [1, 2]
    run(tmp_path / "plain", CONFIG, tokenizer)
    run(tmp_path / "kept", CONFIG, tokenizer, snapshots=3)
    assert_equal_runs(tmp_path / "kept", tmp_path / "plain")
    assert sorted(path.name for path in (tmp_path / "kept").glob("snapshot-*")) == [
        "snapshot-2",
        "snapshot-4",
    ]
    early, late = (load_file(tmp_path / "kept" / f"snapshot-{s}" / "model.safetensors") for s in (2, 4))
    assert any(not torch.equal(early[name], late[name]) for name in late)
    # A snapshot holds the weights that a run killed there would have gone on from.
    die_at(monkeypatch, 4)
    with pytest.raises(Killed):
        run(tmp_path / "killed", dataclasses.replace(CONFIG, checkpoint_steps=4), tokenizer, snapshots=3)
    checkpoint = load_file(tmp_path / "killed" / "checkpoints" / "checkpoint-4" / "model.safetensors")
    for name, tensor in late.items():
        assert torch.equal(tensor, checkpoint[name]), name


@pytest.mark.parametrize("pico", ["llama-pico", "opt-pico"])
def test_low_rank_updates_change_matrices_by_that_rank_and_nothing_else(
    tmp_path, tokenizer, monkeypatch, pico
):
    config = dataclasses.replace(
        CONFIG, lora_rank=2, steps=4, checkpoint_steps=2, train_embeddings=False, learning_rate=1e-2
    )
    die_at(monkeypatch, 3)
    with pytest.raises(Killed):
        run(tmp_path, config, tokenizer, pico=pico)
    monkeypatch.undo()
    run(tmp_path, config, tokenizer, pico=pico)
    before, after = model(pico=pico).state_dict(), load_file(tmp_path / "model/model.safetensors")
    assert set(after) <= set(before)
    layers = {name for name in after if ".layers." in name and after[name].dim() == 2}
    # This tokenizer has no <EOL>, so that not even a row of the embeddings is trained.
    assert {name for name in after if not torch.equal(after[name], before[name])} == layers
    for name in layers:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2, name


@pytest.mark.parametrize(
    ("processes", "config", "blocks", "sentence"),
    [
        (3, {"batch_size": 4}, 8, "allowed in 3 processes are multiples of 3, for they share a batch"),
        (1, {"batch_size": 4}, 3, "make 3 sequences of 16 tokens: at least the 4 of a batch are needed"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_training(
    tmp_path, tokenizer, monkeypatch, processes, config, blocks, sentence
):
    PartialState(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", processes)
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, dataclasses.replace(CONFIG, **config), tokenizer, random_ids(blocks))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (["--profile", "cy"], "There is no profile 'cy'"),
        (["--model", "llama-pica"], "There is no model 'llama-pica'"),
        (["--set", "fine_tuning.steps=0"], "fine_tuning.steps is 0: allowed are values from 1."),
        ([], "holds a whole fine-tuning: allowed are a new folder, and that of a killed run."),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(tmp_path, capsys, changed, sentence):
    (tmp_path / "log.parquet").write_text("of another run" if not changed else "")
    folder = tmp_path if not changed else tmp_path / "new"
    given = ["--profile", "ci", "--model", "llama-random", "--language", "java", "--folder", str(folder)]
    with pytest.raises(SystemExit) as error:
        finetune.main([*given, *changed])
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
    assert (tmp_path / "log.parquet").exists() and not (tmp_path / "new").exists()
