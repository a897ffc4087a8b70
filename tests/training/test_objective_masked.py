"""Masked fields: what is hidden, the loss against a slow one, documents apart, learning, a run."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.config import build
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.errors import ConfigError
from domainformer.training import MaskedFieldConfig, RunConfig
from domainformer.training.objective_masked import FieldMasker, MaskedFieldObjective

ALONE = {"objectives": {"masked_field": 1.0}}


def slow_mask(case, masker, ids, ends, hidden, unit):
    """Ids, labels and numbers, token by token, where some (event, kind) are hidden."""
    slots, names = case.tokenizer.layout.slot_of_id, [s.field for s in case.tokenizer.slots]
    order = {event: n for n, event in enumerate(sorted({e for e, _ in hidden}), start=1)}
    history, behind, seen, field = [(1, -100, 0)], [], set(), None
    for place, token in enumerate(ids.tolist()[1:], start=1):
        event = sum(end <= place for end in ends.tolist())
        field = names[slots[token]] if slots[token] >= 0 else field
        key = (event, field if unit == "field" else "event")
        number = order.get(event, 0)
        if key not in hidden:
            history.append((token, -100, number))
            continue
        if key not in seen:
            seen.add(key)
            marker = (-1 - masker.kinds.index(key[1]), -100, number)
            history.append(marker)
            behind.append(marker)
        behind.append((token, token, number))
    return [list(column) for column in zip(*history, *behind, strict=True)]


def units_of(case, ids, ends, unit):
    """Every (event, kind) of a document, in order."""
    slots, names = case.tokenizer.layout.slot_of_id, [s.field for s in case.tokenizer.slots]
    found = []
    for place, token in enumerate(ids.tolist()[1:], start=1):
        event = sum(end <= place for end in ends.tolist())
        if slots[token] >= 0:
            found.append((event, names[slots[token]] if unit == "field" else "event"))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("unit", ["field", "event"])
@pytest.mark.parametrize("share", [0.15, 0.6, 1.0])
@pytest.mark.parametrize("context", [4096, 70])
def test_what_is_hidden_equals_the_slow_one(cases, unit, share, context):
    case = cases.Case()
    rows = case.dataset(packed=False, context=4096, shuffle=False)
    masker = FieldMasker(case.tokenizer, MaskedFieldConfig(share=share, unit=unit, most=200))
    given = 0
    for index in range(len(rows)):
        ids, (_, _, ends) = rows[index]["input_ids"], rows.events_of(index)[0]
        every = np.ones(len(ids), bool)
        made = masker(ids, ends, every, context, np.random.default_rng(index))
        units = units_of(case, ids, ends, unit)
        chosen = np.random.default_rng(index).random(len(units)) < share
        hidden = {unit for unit, drawn in zip(units, chosen, strict=True) if drawn}
        slow = slow_mask(case, masker, ids, ends, hidden, unit)
        while len(slow[0]) > context:  # without the oldest event
            length, ids = int(ends[0]) - 1, np.delete(ids, slice(1, ends[0]))
            ends, hidden = ends[1:] - length, {(e - 1, kind) for e, kind in hidden if e > 0}
            slow = slow_mask(case, masker, ids, ends, hidden, unit) if len(ends) else [[]]
        if not hidden:
            assert made is None
            continue
        given += 1
        assert [part.tolist() for part in made] == slow
    assert given > 3


def test_a_hidden_text_leaves_one_marker_whatever_its_length(cases):
    case = cases.Case()
    rows = case.dataset(packed=False, context=4096, shuffle=False)
    masker = FieldMasker(case.tokenizer, MaskedFieldConfig(share=1.0, fields=("note",)))
    ids, (_, _, ends) = rows[0]["input_ids"], rows.events_of(0)[0]
    made = masker(ids, ends, np.ones(len(ids), bool), 4096, np.random.default_rng(0))
    history = made.ids[: 1 + len(ends) * 6]
    assert (history < 0).sum() == len(ends), "five tokens and a marker for each event"
    assert case.tokenizer.layout.slot_of_id[made.labels[made.labels >= 0]].min() == -1


@pytest.mark.parametrize("unit", ["field", "event"])
def test_shares_and_limits(cases, unit):
    case = cases.Case(cases.make_frame(entities=40, events=30))
    rows = case.dataset(packed=False, context=4096, shuffle=False)
    masker = FieldMasker(case.tokenizer, MaskedFieldConfig(share=0.3, unit=unit))
    few = FieldMasker(case.tokenizer, MaskedFieldConfig(share=0.9, unit=unit, most=3))
    found = 0
    for index in range(len(rows)):
        ids, (_, _, ends) = rows[index]["input_ids"], rows.events_of(index)[0]
        every = np.ones(len(ids), bool)
        made = masker(ids, ends, every, 4096, np.random.default_rng(index))
        found += 0 if made is None else (made.ids < 0).sum() // 2
        limited = few(ids, ends, every, 4096, np.random.default_rng(index))
        assert (limited.ids < 0).sum() // 2 <= 3
        assert limited.numbers.max() <= 3
    units = len(case.events.times) * (5 if unit == "field" else 1)
    assert 0.25 < found / units < 0.35


def test_only_what_a_row_asks_for_is_hidden(cases):
    def roles(table):  # the newest third is for validation
        counts = np.diff(table.offsets)
        return np.concatenate([(np.arange(n) >= 2 * n // 3) for n in counts]).astype(np.uint8)

    case = cases.Case(roles=roles, masked_field={"share": 1.0}, **ALONE)
    learner, _, _ = case.parts()
    objective = learner.objectives[0]
    scored = DomainSequenceDataset(case.events, context=96, score_roles=(1,), shuffle=False)
    for dataset, role in ((case.dataset(), 0), (scored, 1)):
        read = objective.reader(dataset)
        for index in range(len(dataset)):
            row = dataset[index]
            events = np.concatenate([events for _, events, _ in dataset.events_of(index)])
            answers = sum((m.labels >= 0).sum() for m in read(index, row)["masked_field_documents"])
            own = events[case.events.roles[events] == role]
            assert answers <= np.diff(case.events.event_offsets)[own].sum()
            assert answers <= (row["labels"] != -100).sum()


def slow_loss(learner, items):
    """Document by document, one forward pass for every answered token."""
    objective, model, terms = learner.objectives[0], learner.model, []
    words = model.get_input_embeddings().weight
    for row in items:
        for made in row["masked_field_documents"]:
            vectors = torch.stack(
                [
                    (words[i] if i >= 0 else objective.kind.weight[-1 - i])
                    + (objective.number.weight[n] if n else 0)
                    for i, n in zip(made.ids.tolist(), made.numbers.tolist(), strict=True)
                ]
            )
            for place in np.flatnonzero(made.labels >= 0).tolist():
                out = model(inputs_embeds=vectors[None, :place], use_cache=False)
                terms.append(-out.logits[0, -1].log_softmax(-1)[made.labels[place]])
    return torch.stack(terms)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("encoding", ["none", "rope", "learned"])
def test_the_loss_equals_the_slow_one(cases, packed, encoding):
    case = cases.Case(cases.make_frame(entities=4, events=8), packed=packed, **ALONE)
    learner, items, batch = case.batch(model=case.model(position_encoding=encoding))
    with torch.no_grad():
        terms = slow_loss(learner, items)
        loss = learner(**batch)
    assert batch["masked_field_count"] == len(terms) > 10
    assert loss.parts["masked_field"].item() == pytest.approx(terms.mean().item(), rel=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_no_gradient_goes_from_one_entity_to_another(cases, packed):
    case = cases.Case(packed=packed, **ALONE)
    learner, _, batch = case.batch()
    ids = batch["masked_field_input_ids"]
    if packed:
        bounds = batch["masked_field_cu_seq_lens_q"]
        document = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
        assert ids.shape[0] < len(bounds) - 2, "several documents share a row"
    else:
        document = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
    labels = batch["masked_field_labels"].flatten().clone()
    # One that has another before it in its row, from which causal attention could leak.
    inside = (labels != -100) & (
        document != document[torch.arange(len(labels)) // ids.shape[1] * ids.shape[1]]
    )
    chosen = document[(inside if packed else labels != -100).nonzero()[0, 0]]
    alone = {**batch, "masked_field_labels": labels.masked_fill(document != chosen, -100)}
    alone["masked_field_labels"] = alone["masked_field_labels"].view_as(ids)
    gradient = cases.gradients_of_inputs(learner, lambda: learner(**alone).loss)
    assert gradient[document == chosen].max() > 0
    assert gradient[document != chosen].max() == 0
    if packed:  # the twin: without the boundaries documents would see each other
        for key in ("cu_seq_lens_q", "position_ids"):
            del alone[f"masked_field_{key}"]
        leaking = cases.gradients_of_inputs(learner, lambda: learner(**alone).loss)
        assert leaking[document != chosen].max() > 0


def test_draws_follow_from_seed_epoch_and_row_alone(cases):
    case = cases.Case(**ALONE)

    def drawn(seed, epoch):
        _, rows, _ = case.parts(seed=seed, shuffle=False)
        rows.set_epoch(epoch)
        return [made.ids.tolist() for made in rows[0]["masked_field_documents"]]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


def test_it_learns_a_field_from_what_comes_after_it(cases):
    """Shop and kind tell each other, and the kind stands first: next tokens cannot know it."""
    frame = cases.make_frame(entities=60, events=10).with_columns(
        shop=pl.concat_str(pl.lit("of-"), "kind")
    )
    schema = cases.SCHEMA.__class__(
        "pairs", [f for f in cases.SCHEMA.fields if f.name in ("shop", "kind")]
    )
    settings = {"masked_field": {"share": 0.3, "fields": ["kind"]}, **ALONE}
    case = cases.Case(frame, schema=schema, **settings)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "initializer_range": 0.1}
    learner, rows, collate = case.parts(model=case.model(**sizes))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    losses = []
    for step in range(100):
        rows.set_epoch(step)
        loss = learner.train()(**collate([rows[i] for i in range(3)])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # From what precedes a kind is one of three: 1.10 nats.
    assert np.mean(losses[-20:]) < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0}, "greater than 0"),
        ({"unit": "token"}, "'field' or 'event'"),
        ({"unit": "event", "fields": ["kind"]}, "belong to unit: field"),
        ({"most": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {"training": {"masked_field": settings}})


def test_unknown_fields_and_merged_tokens_are_refused(cases):
    case = cases.Case(masked_field={"fields": ["kid"]}, **ALONE)
    with pytest.raises(ConfigError, match=r"no field 'kid' to hide[\s\S]*did you mean 'kind'"):
        case.parts()
    case = cases.Case(**ALONE)
    objective = MaskedFieldObjective(
        MaskedFieldConfig(), case.tokenizer, width=16, context=96, packed=True
    )
    object.__setattr__(case.events, "vocab_size", case.tokenizer.vocab_size + 5)
    with pytest.raises(ConfigError, match="not those of the fields"):
        objective.reader(case.dataset())
