"""A small world whose answers are known: ``kind`` repeats, ``noise`` does not."""

import numpy as np
import polars as pl
import pytest

from domainformer.config import build
from domainformer.data import EventTable
from domainformer.evaluation.ablations import AblationConfig
from domainformer.schema import DomainSchema, FieldSpec

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("noise", "categorical_fixed"),
        FieldSpec("amount", "numerical_continuous", n_bins=4),
        FieldSpec("day", "temporal", calendar_fields=("dow",), elapsed_bins=4),
    ],
)


def events(entities=40, each=12, seed=0):
    rng = np.random.default_rng(seed)
    n = entities * each
    habit = np.repeat(rng.integers(4, size=entities), each)
    return pl.DataFrame(
        {
            "card": np.repeat(np.arange(entities), each),
            "day": pl.Series(rng.integers(0, 300, n) * 86_400_000_000).cast(pl.Datetime("us")),
            "kind": np.array(list("abcd"))[habit],
            "noise": rng.choice(["x", "y"], size=n),
            "amount": np.exp(rng.uniform(0, 4, size=n)),
            "label": habit % 2,
        }
    )


@pytest.fixture(scope="session")
def schema():
    return SCHEMA


@pytest.fixture(scope="session")
def frame():
    return events()


@pytest.fixture(scope="session")
def table(frame):
    return EventTable.of(frame, entity="card", time="day")


@pytest.fixture
def configure(tmp_path):
    """``configure(axes={…}, ablation={…}, training={…})``: a tiny ablation below ``tmp_path``."""

    def make(**sections):
        values = {
            "data": {"entity": "card", "time": "day"},
            "split": {"kind": "entity"},
            "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 16}},
            "tokenizer": {"bpe_vocab_size": 256},
            "training": {"context": 64, "max_steps": 6, "batch_tokens": 512, "eval_rows": 4},
            "output": {"root": str(tmp_path)},
            "ablation": {"max_events": 30, "samples": 2},
        }
        for name, section in sections.items():
            merge = isinstance(section, dict) and name != "axes"
            values[name] = {**values.get(name, {}), **section} if merge else section
        return build(AblationConfig, values)

    return make
