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

from domainformer.distributed.tasks import Task, outcomes, run_batch
from domainformer.distributed.work import Receipt
from domainformer.errors import MissingExtraError


def run(task: Task, units: Sequence[int], workers: int) -> Iterator[tuple[int, Receipt]]:
    """Do units of work; receipts come as units finish.

    Args:
        task: What to do.
        units: Numbers of the units.
        workers: Processors to use: the most units at work at once.

    Raises:
        DomainformerError: A unit failed.
        MissingExtraError: Ray is not installed.
    """
    ray = _imported()
    with _connected(ray, workers):
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


@contextlib.contextmanager
def _connected(ray: Any, workers: int) -> Iterator[None]:
    """The cluster of the caller, or one of this call's own; Ray's progress bars stay silent."""
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
        yield
    finally:
        context.enable_progress_bars = before
        if own:
            ray.shutdown()
