"""Engines that are not installed say what to install."""

import builtins

import pytest

from domainformer.distributed.engines import connect
from domainformer.errors import DataError, MissingExtraError, MissingProgramError


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("spark", "pyspark")])
def test_an_engine_that_is_not_installed(name, package, monkeypatch):
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module.partition(".")[0] == package:
            raise ImportError(module)
        return real(module, *args, **kwargs)

    connection = connect(name, 1)
    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'domainformer\[{name}\]'"),
        connection,
    ):
        pass


def test_spark_without_java(monkeypatch, tmp_path):
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    monkeypatch.setattr(SparkSession, "getActiveSession", staticmethod(lambda: None))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match="Java 17") as caught, connect("spark", 1):
        pass
    assert "set JAVA_HOME" in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_engines_and_workers_that_do_not_exist():
    with pytest.raises(DataError, match="did you mean 'ray'"):
        connect("rai", 1)
    for workers in (0, -1, 2.0):
        with pytest.raises(DataError, match="workers is"):
            connect("local", workers)
