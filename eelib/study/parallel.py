"""Running several calls side by side, each in a process of its own.

Small models leave a second core idle: two trainings with a thread each take about two thirds of the time of one after the other with
two. Only what is not timed may run so.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import torch

from eelib.rl.agent import one_thread
from eelib.study.quiet import quieten_libraries


def side_by_side(calls: list[Callable[[], Any]], threads: int | None, at_once: bool = False) -> list[Any]:
    """The results of some calls that can be pickled, in order.

    As many processes as `threads` (torch's default if None), each with one thread: a result is the same however many run
    beside it. On a GPU the calls run one after the other, and so they do `at_once`, without a process: when nothing is to be
    made.
    """
    processes = threads or torch.get_num_threads()
    if torch.cuda.is_available() or min(processes, len(calls)) <= 1 or at_once:
        with one_thread():
            return [call() for call in calls]
    pool = _pool(processes)
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    except BrokenProcessPool:  # one was killed: the next calls get others
        _pool.cache_clear()
        raise


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    """Processes that stay for the next calls: to start one takes as long as importing torch and transformers."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare)


def _prepare() -> None:
    """What a new process needs: one thread, quiet libraries, and to end with the process it works for, or when interrupted."""
    torch.set_num_threads(1)
    quieten_libraries()
    signal.signal(
        signal.SIGINT, lambda *_: os._exit(130)
    )  # a kernel that ends is interrupted, and its processes with it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
