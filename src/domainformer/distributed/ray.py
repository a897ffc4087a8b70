"""The Ray engine: units of work as a Ray dataset, one block each, mapped by ``map_batches``.

Uses the cluster that `ray.init` has connected to, or starts a local one for the call. Input files,
work folder and tokenizer must be on storage that every node can reach under the same path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from domainformer.distributed.tasks import Run, Task, outcomes, run_batch
from domainformer.distributed.work import Receipt
from domainformer.errors import MissingExtraError


@contextlib.contextmanager
def connected(workers: int) -> Iterator[Run]:
    """The cluster of the caller, or one of this job's own; Ray's progress bars stay silent.

    Args:
        workers: Processors to use: the most units at work at once.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = _imported()
    own = not ray.is_initialized()
    if own:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            logging_level="error",
        )
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield partial(_run, ray, workers)
    finally:
        context.enable_progress_bars = before
        if own:
            ray.shutdown()


def _run(ray: Any, workers: int, task: Task, units: Sequence[int]) -> Iterator[tuple[int, Receipt]]:
    blocks = [pa.table({"unit": pa.array([unit], pa.int64())}) for unit in units]
    done = ray.data.from_arrow(blocks).map_batches(
        partial(_run_table, task),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.TaskPoolStrategy(size=workers),
    )
    for table in done.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from outcomes(task, table)


def _run_table(task: Task, units: pa.Table) -> pa.Table:
    return pa.Table.from_batches([run_batch(task, units)])


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", extra="ray", purpose="engine='ray'") from None
    return ray
