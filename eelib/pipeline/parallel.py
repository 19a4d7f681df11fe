"""Making several stages side by side, each in a process of its own.

Small models leave a second core idle: two trainings with a thread each take about two thirds of the time of one after the other with
two. Only what is not timed may run so.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from eelib.pipeline.study import MissingStage, Study, made_keys, quieten_libraries
from eelib.study.stages import Artifact

Made = Artifact | list[Artifact]
Make = Callable[..., Made]  # (study, *job)


def side_by_side(study: Study, make: Make, jobs: list[tuple]) -> list[Made]:
    """`make(study, *job)` for every job, in order; what is there already is found without starting a process.

    As many processes as the profile has threads, each with one thread: the result of a job is the same however many run
    beside it. On a GPU the jobs run one after the other.
    """
    processes = min(len(jobs), study.profile.threads or torch.get_num_threads())
    there = not study.force and all(is_made(study, make, *job) for job in jobs)
    if torch.cuda.is_available() or processes == 1 or there:
        with one_thread():
            return [make(study, *job) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_prepare, initargs=(made_keys,)
    ) as pool:
        made = [future.result() for future in [pool.submit(make, study, *job) for job in jobs]]
    for artifacts in made:
        made_keys.update(item.key for item in (artifacts if isinstance(artifacts, list) else [artifacts]))
    return made


def is_made(study: Study, make: Make, *job: object) -> bool:
    """Whether all that `make(study, *job)` would make is there already."""
    try:
        make(study.only_finding(), *job)
    except MissingStage:
        return False
    return True


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread for as long as it lasts: what is small is faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _prepare(made: set[str]) -> None:
    """What a new process needs: one thread, quiet libraries, and the stages that `force` has made already."""
    torch.set_num_threads(1)
    quieten_libraries()
    made_keys.update(made)
