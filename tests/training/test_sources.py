"""The whole job on several sources with shares: pretrain, embed, fine-tune."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from domainformer.config import build
from domainformer.data import combine_sources, keep_within_budgets
from domainformer.inference import embed, load_bundle
from domainformer.schema import DomainSchema, FieldSpec, Source
from domainformer.training import RunConfig, finetune, pretrain
from domainformer.training.engine import sequence_rows
from domainformer.training.preparation import Prepared

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SCHEMA = DomainSchema(
    "bank",
    [
        FieldSpec("day", "temporal", calendar_fields=("dow",)),
        FieldSpec("paid", "numerical_continuous", column="amount", n_bins=6),
        FieldSpec("shop", "text", max_tokens=6),
        FieldSpec("wired", "numerical_continuous", column="amount", n_bins=6, optional=True),
        FieldSpec("screen", "categorical_fixed"),
    ],
    sources={
        "cards": Source(["day", "paid", "shop"], max_tokens_per_event=6, share=0.3),
        "wires": Source(["day", "wired"], share=0.3),
        "app": Source(["day", "screen"]),
    },
)


def bank(entities=40, seed=0):
    """Clients of two kinds, told by the rare wires; cards now and then, and many app visits."""
    rng = np.random.default_rng(seed)

    def events(each, **columns):
        who = np.repeat(np.arange(entities), each)
        days = pl.Series(rng.integers(0, 700, len(who))).cast(pl.Int32).cast(pl.Date)
        made = {name: draw(who) for name, draw in columns.items()}
        return pl.DataFrame({"who": who, "day": days, "kind": who % 2, **made})

    shops = ["corner shop", "the old bakery", "petrol"]
    tables = {
        "cards": events(
            6, amount=lambda w: rng.gamma(2, 10, len(w)), shop=lambda w: rng.choice(shops, len(w))
        ),
        "wires": events(3, amount=lambda w: 500.0 + 5000 * (w % 2)),
        "app": events(30, screen=lambda w: rng.choice(["home", "pay", "help"], len(w))),
    }
    return combine_sources(tables, entity="who", time="day", schema=SCHEMA)


def config_for(root):
    return build(
        RunConfig,
        {
            "data": {"entity": "who", "time": "day", "label": "kind"},
            "split": {"kind": "entity"},
            "tokenizer": {"bpe_vocab_size": 270},
            "model": {"preset": "tiny", "overrides": SMALL},
            "training": {
                "context": 64, "max_steps": 4, "batch_tokens": 256, "eval_every": 2,
                "log_every": 2, "quiet": True,
            },
            "output": {"root": str(root), "name": "run"},
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def table():
    return bank()


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    return pretrain(config_for(tmp_path_factory.mktemp("runs")), table=table, schema=SCHEMA)


def test_pretraining_cuts_histories_within_the_shares(run, table, tmp_path):
    bundle = load_bundle(run.model_dir)
    tokenizer, budgets = bundle.tokenizer, bundle.tokenizer.budgets
    assert [round(share, 2) for share in budgets.shares.values()] == [0.3, 0.3, 0.0]
    store = tokenizer.encode_to_store(
        table, tmp_path / "store", roles=np.zeros(table.n_events, np.uint8)
    )
    rows, none = sequence_rows(Prepared(tokenizer, store, {}), config_for(tmp_path))
    assert none is None
    assert rows.budgets == budgets
    tokens = np.concatenate([rows[i]["input_ids"] for i in range(len(rows))])
    assert np.array_equal(np.sort(tokens[tokens != 1]), np.sort(store.events().ids))
    assert run.metrics["eval_loss"] < np.log(tokenizer.vocab_size)


def test_an_embedding_is_that_of_what_the_budgets_keep(run, table):
    bundle = load_bundle(run.model_dir)
    events = bundle.tokenizer.encode(table)
    kept = keep_within_budgets(events, bundle.tokenizer.budgets, bundle.context)
    assert kept.n_events < events.n_events
    whole, cut = embed(bundle, events), embed(bundle, kept)
    assert_allclose(np.stack(whole["embedding"]), np.stack(cut["embedding"]), atol=1e-6)
    assert whole["n_events"].to_list() == np.diff(kept.entity_offsets).tolist()
    wires = list(bundle.tokenizer.budgets.shares)[1]
    first = kept.ids[kept.event_offsets[:-1]]
    assert int((first == wires).sum()) == 3 * table.n_entities  # old as they are, all are seen


def test_fine_tuning_sees_what_the_budgets_keep(run, tmp_path):
    """The class is told by a few old wires, which many app visits would push out of the context."""
    overrides = ["training.epochs=10", "training.batch_tokens=1024", "training.quiet=true"]
    overrides.append("training.learning_rate=0.03")
    table = bank(entities=160)
    result = finetune(run.model_dir, table, "kind", output=tmp_path / "run", overrides=overrides)
    assert result.metrics["test_auroc"] > 0.9
