"""Calls made side by side give what they give one after the other."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import psutil
import pytest
import torch

from eelib.errors import InputError
from eelib.provenance import PACKAGE
from eelib.study.parallel import side_by_side


def drawn(number: int) -> tuple[float, int, int]:
    """A seeded result, torch's threads, and the process."""
    if number < 0:
        raise InputError(f"The number is {number}: allowed are numbers from 0.")
    draw = torch.randn(64, 64, generator=torch.Generator().manual_seed(number))
    return (draw @ draw).sum().item(), torch.get_num_threads(), os.getpid()


CALLS = [partial(drawn, number) for number in (3, 1, 2)]


def test_side_by_side_in_other_processes_and_in_order():
    found = side_by_side(CALLS, threads=2)
    alone = [drawn(number)[0] for number in (3, 1, 2)]
    assert [result for result, _, _ in found] == pytest.approx(alone, rel=1e-4)
    assert {threads for _, threads, _ in found} == {1}
    assert os.getpid() not in {process for _, _, process in found}


@pytest.mark.parametrize(("calls", "at_once"), [(CALLS, True), (CALLS[:1], False)])
def test_one_call_and_what_is_there_take_no_process(calls, at_once):
    threads = torch.get_num_threads()
    found = side_by_side(calls, threads=2, at_once=at_once)
    assert {(threads, process) for _, threads, process in found} == {(1, os.getpid())}
    assert torch.get_num_threads() == threads
    assert side_by_side([], threads=2) == []


def test_bad_input_in_another_process_is_still_one_sentence():
    with pytest.raises(InputError, match="number is -1: allowed are numbers from 0"):
        side_by_side([CALLS[0], partial(drawn, -1)], threads=2)


def test_processes_stay_for_the_next_calls_and_a_killed_one_is_replaced():
    assert len({process for _ in range(3) for _, _, process in side_by_side(CALLS * 2, threads=2)}) <= 2
    with pytest.raises(BrokenProcessPool):
        side_by_side([CALLS[0], die], threads=2)
    assert len(side_by_side(CALLS, threads=2)) == 3


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


KILLED = """
import os, signal
from functools import partial
from eelib.provenance import PACKAGE
from eelib.study.parallel import side_by_side

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    print(*side_by_side([os.getpid, os.getpid], threads=2), flush=True)
    os.kill(os.getpid(), signal.SIG{name})
    signal.pause()
"""


@pytest.mark.parametrize("name", ["KILL", "INT"])
def test_processes_end_quietly_with_the_one_they_work_for(tmp_path, name):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(name=name))
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, env=environment, timeout=120
    )
    workers = [int(pid) for pid in done.stdout.split()]
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and not any(psutil.pid_exists(pid) for pid in workers)
    assert "multiprocessing/process.py" not in done.stderr
