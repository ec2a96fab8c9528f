"""Work spread over processes, its results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from gaitdiff.errors import UserError
from gaitdiff.utils.text import counted

T = TypeVar("T")
R = TypeVar("R")

#: What makes numerical libraries use one thread in the worker processes.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: How many worker processes a machine takes: so many for each processor, and so many in any case.
_A_PROCESSOR, _ALWAYS = 4, 16

#: Where launchers say how many processes a run has.
LAUNCHED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int | None) -> None:
    """Refuse a number of worker processes that the machine is not for; None asks for none.

    Raises:
        UserError: it is less than 1, or so large that the processes would fill the memory without being of use.
    """
    most = max(_A_PROCESSOR * processors(), _ALWAYS)
    if workers is not None and not 1 <= workers <= most:
        bound = "at least 1" if workers < 1 else f"at most {most} with {counted(processors(), 'processor')}"
        raise UserError(f"the number of workers is {workers}, but must be {bound}")


def launched_processes() -> int:
    """Number of processes that a launcher (torchrun, accelerate, mpirun) has started for one run; 1 without one.

    Raises:
        UserError: the environment variable that says so is no positive whole number.
    """
    for variable in LAUNCHED:
        if value := os.environ.get(variable):
            if not (value.isascii() and value.isdigit() and int(value) > 0):
                raise UserError(
                    f"the environment variable {variable} is {value!r}, not a number of processes: unset it"
                )
            return int(value)
    return 1


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Apply ``work`` to every item in ``workers`` spawned processes, or in this one if that is 1.

    Args:
        work: a function that pickles. What it carries (``functools.partial``) is sent to each process once.
        items: what pickles; only a few are taken ahead of the result that is asked for.
        workers: processes, each with one thread. They end with this one, even if it is killed.

    Returns:
        the results, in the order of the items.

    Raises:
        UserError: a process ended too early. What ``work`` raises is raised here.
    """
    if workers == 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(work,)) as pool,
    ):
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(_apply, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process ended too early: use fewer workers if memory ran out, and protect a script's entry "
                'point by if __name__ == "__main__"'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


#: What a worker process applies to the items it gets; set once, as the process starts.
_work: Callable[[Any], object]


def _prepare(work: Callable[[Any], object]) -> None:
    """One thread, no answer to Ctrl-C but the parent's, and no life without it."""
    import cv2  # slow to import, and nothing else here needs it

    global _work
    _work = work
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _apply(item: Any) -> Any:
    return _work(item)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in this block find one thread asked for in their environment."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
