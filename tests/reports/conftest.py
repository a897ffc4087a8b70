"""A hand-made run folder: everything that a report reads, without a model and without training."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.data.splits import split_by_time
from domainformer.evaluation import Interval, NextEvent, ProbeResult, SlotResult, TextResult
from domainformer.run import Run, start_run
from domainformer.schema import DomainSchema, FieldSpec, InferredSchema, infer_schema
from domainformer.tokenizers import DomainTokenizer

EVIL = "<script>alert('x')</script>"

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("count", "numerical_discrete"),
        FieldSpec("amount_sign", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=6),
        FieldSpec("when", "temporal", calendar_fields=("month", "dow"), elapsed_bins=5),
        FieldSpec("words", "text", max_tokens=6),
    ],
)


def events(n_entities: int = 30, per_entity: int = 10) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = n_entities * per_entity
    start = dt.datetime(2024, 1, 1)
    kinds = ["tea & cake", EVIL, "plain", None]
    return pl.DataFrame(
        {
            "client": np.repeat(np.arange(n_entities), per_entity),
            "when": [start + dt.timedelta(hours=int(h)) for h in rng.integers(0, 4000, n)],
            "kind": [kinds[i] for i in rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])],
            "count": rng.integers(1, 5, n),
            "amount": rng.normal(0, 50, n).round(2),
            "words": [f"{EVIL} shop {i % 7}" for i in range(n)],
            "label": np.repeat(np.arange(n_entities) % 2, per_entity),
        }
    )


@pytest.fixture(scope="session")
def table() -> EventTable:
    return EventTable.of(events(), entity="client", time="when")


@pytest.fixture(scope="session")
def inferred(table) -> InferredSchema:
    return infer_schema(table, label="label")


@pytest.fixture(scope="session")
def build_run(tmp_path_factory, table):
    """``build_run("store", "metrics", …)``: a new run folder with these parts."""

    def build(*parts: str, name: str = "cards") -> Path:
        config = {
            "data": {"path": None, "entity": "client", "time": "when", "label": "label"},
            "split": {"kind": "time", "seed": 0},
            "model": {"preset": "tiny"},
            "training": {"context": 64, "seed": 1},
        }
        run = start_run(tmp_path_factory.mktemp("runs"), name, kind="pretrain", config=config)
        if "store" in parts:
            _write_store(run, table)
        if "metrics" in parts:
            _write_metrics(run)
        if "evaluation" in parts:
            _write_evaluation(run, probe="probe" in parts)
        if "embeddings" in parts:
            _write_embeddings(run)
        return run.directory

    return build


@pytest.fixture
def full_run(build_run) -> Path:
    return build_run("store", "metrics", "evaluation", "probe", "embeddings")


def _write_store(run: Run, table: EventTable) -> None:
    split = split_by_time(table)
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=300).fit(split.events(table, "train"))
    tokenizer.save_pretrained(run.directory / "tokenizer")
    tokenizer.encode_to_store(
        table,
        run.directory / "store",
        roles=split.roles,
        shard_events=120,
        meta={"notes": [f"3 rows without {EVIL} were left out"]},
    )
    run.update(split=split.record, tokenizer_fingerprint=tokenizer.fingerprint)


def _write_metrics(run: Run) -> None:
    rows = []
    for step in range(10, 101, 10):
        loss = {"loss": 5 - step / 30, "lr": 0.001, "tokens_per_second": 900.0 + step}
        rows.append({"step": step, "tokens": 640 * step, **loss})
        if step % 20 == 0:
            rows.append({"step": step, "tokens": 640 * step, "eval_loss": 5.1 - step / 40})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run.directory / "metrics.jsonl").write_text(lines)
    plan = {"steps": 100, "rows": 4, "accumulation": 2, "learning_rate": 1e-3, "bf16": True}
    run.update(resolved={"plan": plan, "parameters": 950_016, "device": "cpu", "threads": 2})
    run.finish({"eval_loss": 2.6, "best_step": 100, "steps": 100, "tokens": 64_000, "seconds": 61})


def _slot(view: str, field: str, gain: float) -> SlotResult:
    names = ("model", "most_popular", "repeat_last", "entity_frequency")
    accuracy = dict(zip(names, (0.5 + gain, 0.4, 0.5, 0.45), strict=True))
    log_loss = dict(zip(names, (1.0 - gain, 1.2, 1.0, 1.1), strict=True))
    difference = {
        "accuracy": Interval(gain, gain - 0.05, gain + 0.05),
        "log_loss": Interval(-gain, -gain - 0.05, -gain + 0.05),
    }
    return SlotResult(
        view=view,
        field=field,
        part="",
        kind="categorical_fixed",
        ids=6,
        accuracy=accuracy,
        log_loss=log_loss,
        best={"accuracy": "repeat_last", "log_loss": "repeat_last"},
        differences=dict.fromkeys(names[1:], difference),
        outside=None,
    )


def _write_evaluation(run: Run, *, probe: bool) -> None:
    gains = {"kind": 0.2, "count": 0.0, EVIL: -0.2}
    contest = NextEvent(
        role="test",
        events=30,
        candidates=40,
        entities=9,
        first_events=False,
        samples=2,
        seed=0,
        context=64,
        event_log_loss=7.25,
        slots=[
            _slot(view, field, gain)
            for view in ("history_only", "within_event")
            for field, gain in gains.items()
        ],
        text=[TextResult("words", 120, {"model": 2.0, "most_popular": 3.0})],
    )
    result = {
        "subject": {},
        "next_event": contest.to_json(),
        "probe": _probe().to_json() if probe else None,
        "seconds": {},
        "created": "2024-05-01T00:00:00+00:00",
        "notes": ["30 of 40 test events were drawn"],
    }
    (run.directory / "evaluation.json").write_text(json.dumps(result))


def _probe() -> ProbeResult:
    return ProbeResult(
        task="binary",
        label=EVIL,
        entities=30,
        classes=[0, 1],
        class_counts=[15, 15],
        features={"embeddings": 8, "aggregates": 20, "both": 28},
        figures={
            name: {"auroc": Interval(v, v - 0.1, v + 0.1), "log_loss": Interval(0.6, 0.5, 0.7)}
            for name, v in (("embeddings", 0.7), ("aggregates", 0.6), ("both", 0.75))
        },
        differences={
            "both - aggregates": {
                "auroc": Interval(0.15, 0.05, 0.25),
                "log_loss": Interval(-0.1, -0.2, 0.1),
            }
        },
        predictions=pl.DataFrame(),
        settings={"folds": 5, "seed": 0},
    )


def _write_embeddings(run: Run) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    frame = pl.DataFrame(
        {
            "client": np.arange(30),
            "n_events": np.full(30, 10),
            "embedding": pl.Series(vectors, dtype=pl.Array(pl.Float32, 8)),
        }
    )
    frame.write_parquet(run.directory / "embeddings.parquet")
