"""The Spark engine: units of work as a data frame, one partition each, mapped by ``mapInArrow``.

Uses the active session, or starts a local one for the call. The workers' Python is set explicitly
to the one that runs this: Spark's own choice, ``python3`` of the path, is rarely the environment
with domainformer in it. Input files, work folder and tokenizer must be on storage that every node
can reach under the same path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from domainformer.distributed.tasks import Run, Task, outcomes, run_batch
from domainformer.distributed.work import Receipt
from domainformer.errors import MissingExtraError, MissingProgramError

# Units per job, for each worker: progress is told, and receipts fetched, after each job.
_WAVE = 4
_PYTHON = ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


@contextlib.contextmanager
def connected(workers: int) -> Iterator[Run]:
    """The active session, or a local one that ends with the job.

    Args:
        workers: Processors to use: the most units at work at once.

    Raises:
        MissingExtraError: PySpark is not installed.
        MissingProgramError: There is no Java.
    """
    session_class = _imported()
    active = session_class.getActiveSession()
    if active is not None:
        yield partial(_run, active, workers)
        return
    _check_java()
    before = {name: os.environ.get(name) for name in _PYTHON}
    os.environ.update(dict.fromkeys(_PYTHON, sys.executable))
    session = None
    try:
        session = _started(session_class, workers)
        yield partial(_run, session, workers)
    finally:
        if session is not None:
            session.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _run(
    session: Any, workers: int, task: Task, units: Sequence[int]
) -> Iterator[tuple[int, Receipt]]:
    size = workers * _WAVE
    for start in range(0, len(units), size):
        wave = list(units[start : start + size])

        def do(batches: Iterator[pa.RecordBatch], wave: list[int] = wave) -> Iterator[Any]:
            for batch in batches:
                chosen = pa.array([wave[place] for place in batch.column("id").to_pylist()])
                yield run_batch(task, pa.table({"unit": chosen}))

        # A partition for every unit, so that each is a task of Spark's own.
        numbers = session.range(0, len(wave), 1, numPartitions=len(wave))
        yield from outcomes(task, numbers.mapInArrow(do, "unit long, receipt string").toArrow())


def _started(session_class: Any, workers: int) -> Any:
    return (
        session_class.builder.master(f"local[{workers}]")
        .appName("domainformer")
        .config("spark.pyspark.python", sys.executable)
        .config("spark.pyspark.driver.python", sys.executable)
        .config("spark.driver.host", "localhost")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def _imported() -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise MissingExtraError("pyspark", extra="spark", purpose="engine='spark'") from None
    return SparkSession


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    found = home and (Path(home) / "bin" / "java").exists()
    if not (found or shutil.which("java")):
        raise MissingProgramError(
            "Java 17 or later",
            purpose="engine='spark'",
            next_step="install a Java runtime (such as openjdk-17-jre-headless) and set JAVA_HOME "
            "to its folder, or use engine='local'",
        )
