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
from pathlib import Path
from typing import Any

import pyarrow as pa

from domainformer.distributed.tasks import Task, outcomes, run_batch
from domainformer.distributed.work import Receipt
from domainformer.errors import MissingExtraError, MissingProgramError

# Units per job, for each worker: progress is told, and receipts fetched, after each job.
_WAVE = 4
_PYTHON = ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


def run(task: Task, units: Sequence[int], workers: int) -> Iterator[tuple[int, Receipt]]:
    """Do units of work; receipts come wave by wave.

    Args:
        task: What to do.
        units: Numbers of the units.
        workers: Processors to use: the most units at work at once.

    Raises:
        DomainformerError: A unit failed.
        MissingExtraError: PySpark is not installed.
        MissingProgramError: There is no Java.
    """
    builder_of = _imported()

    def do(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield run_batch(task, batch)

    with _session(builder_of, workers) as session:
        size = max(1, workers) * _WAVE
        for start in range(0, len(units), size):
            wave = [(int(unit),) for unit in units[start : start + size]]
            # Rows of an RDD keep one partition each; those of a list would share some.
            rows = session.sparkContext.parallelize(wave, len(wave))
            frame = session.createDataFrame(rows, "unit long")
            done = frame.mapInArrow(do, "unit long, receipt string").toArrow()
            yield from outcomes(task, done)


def _imported() -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise MissingExtraError("pyspark", extra="spark", purpose="engine='spark'") from None
    return SparkSession


@contextlib.contextmanager
def _session(builder_of: Any, workers: int) -> Iterator[Any]:
    """The active session, or a local one that ends with the call."""
    active = builder_of.getActiveSession()
    if active is not None:
        yield active
        return
    _check_java()
    before = {name: os.environ.get(name) for name in _PYTHON}
    os.environ.update(dict.fromkeys(_PYTHON, sys.executable))
    session = None
    try:
        session = (
            builder_of.builder.master(f"local[{workers}]")
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
        yield session
    finally:
        if session is not None:
            session.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
