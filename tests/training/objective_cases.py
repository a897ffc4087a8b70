"""A small table with every kind of field that objectives look at, as tokens."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from domainformer.data import EventTable
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.keys import NULL_TIME
from domainformer.models import Collator, DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.config import TrainingConfig
from domainformer.training.objective_base import ObjectiveCollator, ObjectiveRows
from domainformer.training.objectives import ObjectiveModel, make_objectives

DAY = 86_400_000_000
SCHEMA = DomainSchema(
    "cases",
    [
        FieldSpec("kind", "categorical_fixed", vocab_size=9),
        FieldSpec("day", "temporal", calendar_fields=["dow", "dom"]),
        FieldSpec("amount", "numerical_continuous", n_bins=6),
        FieldSpec("shop", "categorical_entity", vocab_size=12),
        FieldSpec("note", "text", max_tokens=6),
    ],
)


def make_frame(entities=8, events=14, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(4, events + 1, size=entities)
    n = int(counts.sum())
    kinds = rng.choice(["food", "fuel", "rent"], n)
    days = np.concatenate([np.sort(rng.integers(0, 60, size=c)) for c in counts])
    return pl.DataFrame(
        {
            "who": np.repeat(np.arange(entities), counts),
            "day": pl.Series(days).cast(pl.Date),
            "kind": kinds,
            "amount": rng.integers(0, 40, size=n).astype(float),
            "shop": rng.choice([f"s{i}" for i in range(6)], n),
            "note": [("to be paid", "cash", None)[i] for i in rng.integers(0, 3, size=n)],
        }
    )


class Case:
    """Tokens of a table, and what a pretraining makes of them."""

    def __init__(self, frame=None, *, roles=None, schema=SCHEMA, time="day", **training):
        self.table = EventTable.of(
            make_frame() if frame is None else frame, entity="who", time=time
        )
        self.tokenizer = DomainTokenizer(schema, bpe_vocab_size=280).fit(self.table)
        known = None if roles is None else roles(self.table)
        self.events = self.tokenizer.encode(self.table, roles=known)
        self.training = TrainingConfig(**{"context": 96, **training})
        self.shared = {"context": self.training.context, "packed": self.training.packed}

    def dataset(self, **options):
        return DomainSequenceDataset(self.events, **{**self.shared, **options})

    def model(self, **overrides):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"vocab_size": self.tokenizer.vocab_size, "max_position_embeddings": 96}
        return DomainTransformerForCausalLM(
            DomainTransformerConfig.preset("tiny", **(sizes | overrides))
        )

    def parts(self, model=None, **options):
        """Learner, rows and collator, as the engine puts them together."""
        model = model or self.model()
        dataset = self.dataset(**options)
        torch.manual_seed(1)
        made = make_objectives(self.training, self.tokenizer, model.config, dataset)
        learner = ObjectiveModel(model, made, self.training)
        collate = Collator(self.tokenizer.pad_id, packed=self.training.packed)
        return learner, ObjectiveRows(dataset, made), ObjectiveCollator(collate, made)

    def batch(self, **options):
        learner, rows, collate = self.parts(**options)
        items = [rows[i] for i in range(len(rows))]
        return learner.train(), items, collate(items)


def gradients_of_inputs(learner, run):
    """Gradient of a loss by the vectors that go into the blocks."""
    held = []

    def hold(module, inputs, output):
        output.retain_grad()
        held.append(output)

    handle = learner.model.model.dropout.register_forward_hook(hold)
    run().backward()
    handle.remove()
    return held[-1].grad.abs().sum(-1).flatten()


def by_time(table):
    """The first forty days are for training, the next ten for validation."""
    days = table.time_values // DAY
    return np.where(days < 40, 0, np.where(days < 50, 1, 2)).astype(np.uint8)


def by_third(table):
    """Any event may have any role."""
    return (np.arange(table.n_events) % 7 == 3).astype(np.uint8)


def slow_horizons(case, dataset, config):
    """Event by event: the events within its horizon, or None where it is not asked."""
    events, roles = case.events, dataset.score_roles or dataset.train_roles
    own = [True] * len(events.times)
    if events.roles is not None and roles is not None:
        own = [int(role) in roles for role in events.roles]
    last = max(t for t, mine in zip(events.times, own, strict=True) if mine)
    found = []
    for who in range(events.n_entities):
        first, stop = events.entity_offsets[who : who + 2].tolist()
        for e in range(first, stop):
            if config.ahead is not None:
                ahead = range(e + 1, e + config.ahead + 1)
                known = e + config.ahead < stop
            else:
                until = events.times[e] + int(str(config.within).rstrip("d")) * DAY
                ahead = [j for j in range(e + 1, stop) if events.times[j] <= until]
                seen = last
                if config.observed_until == "entity":
                    mine = [events.times[j] for j in range(first, stop) if own[j]]
                    seen = max(mine, default=NULL_TIME)
                known = events.times[e] != NULL_TIME and until <= seen
            known = known and own[e] and all(own[j] for j in ahead)
            found.append(list(ahead) if known else None)
    return found
