"""The local engine: this process, or a pool of processes on this machine.

Workers are started afresh ("spawn"), because threads of polars and Arrow do not survive a fork; a
script that asks for more than one worker therefore needs ``if __name__ == "__main__":`` around its
calls, as with any pool. Each worker uses one thread.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import pyarrow as pa

from domainformer.distributed.tasks import Run, Task, outcomes, run_batch
from domainformer.distributed.work import Receipt
from domainformer.errors import ArtifactError

_THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
# Units waiting at the pool beside those at work, so that no worker is ever idle.
_WAITING = 2


@contextlib.contextmanager
def connected(workers: int) -> Iterator[Run]:
    """A pool of processes for the stages of a job; with one worker, this process.

    Args:
        workers: Processes.

    Raises:
        ArtifactError: A worker process died.
    """
    if workers == 1:
        yield _run_here
        return
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start) as pool,
    ):
        try:
            yield partial(_run_in, pool, workers)
        except BrokenProcessPool as error:
            raise _died() from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run_here(task: Task, units: Sequence[int]) -> Iterator[tuple[int, Receipt]]:
    for unit in units:
        yield from outcomes(task, run_batch(task, _batch(unit)))


def _run_in(
    pool: ProcessPoolExecutor, workers: int, task: Task, units: Sequence[int]
) -> Iterator[tuple[int, Receipt]]:
    """Receipts as units finish; few units wait at the pool, so that a stop is soon a stop."""
    left = iter(units)
    pending: set[Future[pa.RecordBatch]] = set()
    while True:
        room = workers * _WAITING - len(pending)
        pending |= {
            pool.submit(run_batch, task, _batch(unit)) for unit in itertools.islice(left, room)
        }
        if not pending:
            return
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield from outcomes(task, future.result())


def _batch(unit: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([unit], pa.int64())], names=["unit"])


def _start() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def _end_with_parent() -> None:
    """A pool waits for ever where its owner was killed, and holds its memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children read these variables when they start; here they are put back afterwards."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _died() -> ArtifactError:
    return ArtifactError(
        "a worker process died",
        why="it was killed, as systems do when memory runs out, or it could not be started",
        next_step="give fewer workers or less memory= each, put the call under "
        '`if __name__ == "__main__":` if it stands in a script, and run it again: '
        "finished shards are kept",
    )
