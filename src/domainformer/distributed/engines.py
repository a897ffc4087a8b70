"""Which engines there are, and how a stage of work is run on one."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from domainformer.distributed.progress import Meter, ProgressCallback
from domainformer.distributed.tasks import Run, Task
from domainformer.distributed.work import Receipt
from domainformer.errors import DataError, nearest

ENGINES = ("local", "ray", "spark")


def connect(name: str, workers: int) -> AbstractContextManager[Run]:
    """An engine for the length of a job; its library is imported on entry.

    Args:
        name: One of `ENGINES`.
        workers: Processes.

    Raises:
        DataError: There is no such engine, or ``workers`` is below 1.
    """
    if name not in ENGINES:
        raise DataError(f"there is no engine {name!r}", next_step=nearest(name, ENGINES))
    if not isinstance(workers, int) or workers < 1:
        raise DataError(f"workers is {workers!r}", why="it should be 1 or more")
    module = importlib.import_module(f"domainformer.distributed.{name}")
    connection: AbstractContextManager[Run] = module.connected(workers)
    return connection


def run_stage(
    task: Task, count: int, *, run: Run, progress: ProgressCallback | None
) -> dict[int, Receipt]:
    """Do the units of a stage that no earlier attempt has finished.

    Args:
        task: What to do.
        count: Number of units.
        run: The engine.
        progress: Is told about every unit.

    Returns:
        The receipts of all units, in order.

    Raises:
        DomainformerError: A unit failed; what is finished stays finished.
    """
    receipts = task.work.finished(task.stage, task.intact)
    left = [unit for unit in range(count) if unit not in receipts]
    meter = Meter(task.stage, count, count - len(left), progress)
    meter.count_events(sum(receipt["events"] for receipt in receipts.values()))
    if left:
        for unit, receipt in run(task, left):
            receipts[unit] = receipt
            meter.add(receipt["events"])
    return dict(sorted(receipts.items()))
