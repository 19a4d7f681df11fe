"""Fine-tuning in two processes, plainly and sharded: the losses and weights of one process, and they survive a kill."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from eelib.training import finetune

ROOT = Path(__file__).parent.parent
# Everything that is drawn in a step, two micro-batches a step, and steps that end at a middle layer.
SETTINGS = {
    "steps": 6,
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "checkpoint_steps": 2,
    "exit_positions": 0.25,
    "exits_per_step": 2,
    "shallow_steps": 0.5,
    "shortlist": 200,
    "bf16": "false",
}
RECIPE = ["--profile", "ci", "--model", "llama-random", "--language", "java"]
RECIPE += [word for name, value in SETTINGS.items() for word in ("--set", f"fine_tuning.{name}={value}")]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    finetune.main([*RECIPE, "--folder", str(folder)])
    return folder


def start(configuration: str, program: list[str], folder: Path) -> subprocess.Popen:
    """Two processes by accelerate."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    launch += ["--main_process_port", "0", "--config_file", str(ROOT / "profiles/accelerate" / configuration)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / "said.txt", "w") as said:
        return subprocess.Popen(
            [*launch, *program, *RECIPE, "--folder", str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def kill(process: subprocess.Popen) -> None:
    """All at once, the one that waits for the two as well."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for member in family:
        member.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configuration", "program", "units"),
    [
        ("cpu.yaml", ["-m", "eelib.training.finetune"], None),
        # Every layer is a unit of its own, and its weights are gathered for it alone.
        ("fsdp.yaml", [str(ROOT / "tests/sharded.py")], {f"model.layers.{i}" for i in range(8)}),
    ],
    ids=["plain", "sharded"],
)
def test_two_processes_train_what_one_does_and_go_on_when_killed(
    tmp_path, one_process, configuration, program, units
):
    process = start(configuration, program, tmp_path)
    checkpoint, deadline = tmp_path / "checkpoints/checkpoint-2/trainer_state.json", time.monotonic() + 600
    try:
        while not checkpoint.exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said.txt").read_text()
            time.sleep(0.01)
    finally:
        kill(process)
    assert not (tmp_path / "model").exists()

    process = start(configuration, program, tmp_path)
    try:
        code = process.wait(timeout=600)
    finally:
        if process.poll() is None:
            kill(process)
    said = (tmp_path / "said.txt").read_text()
    assert code == 0, said
    if units is not None:
        lines = [set(line.split()[1:]) for line in said.splitlines() if line.startswith("units:")]
        assert 0 < len(lines) <= 2 * 4  # the first two steps are not made again
        assert all(units < line for line in lines)

    logs = [pd.read_parquet(folder / "log.parquet") for folder in (tmp_path, one_process)]
    assert logs[1].loss.nunique() == 6
    pd.testing.assert_frame_equal(*logs, rtol=1e-5, atol=0)
    ours, theirs = (load_file(folder / "model/model.safetensors") for folder in (tmp_path, one_process))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "log.parquet", "said.txt"}
    assert np.isnan(logs[0].loss_layer_8).any()  # of a step that ended in the middle
