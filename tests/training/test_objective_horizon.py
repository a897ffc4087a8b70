"""Horizons: answers against slow ones, borders with a planted leak, losses, entities, settings."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.config import build
from domainformer.errors import ConfigError
from domainformer.training import RunConfig
from domainformer.training.objective_horizon import SpanObjective, StepsObjective

ALONE = {"objectives": {"horizon": 1.0}}
SPAN = {"within": "10d", "sums": ["amount"], "most_values": 4, "sum_bins": 4}


def slow_answers(case, objective, ahead):
    """What happens in some events, from the table itself."""
    frame, questions = case.table.frame, objective.questions
    tokens = case.tokenizer.vocab
    names = {int(c): tokens[i] for i, c in enumerate(questions.class_of_id) if c >= 0}
    values = []
    for number in range(sum(questions.fields)):
        field, value = names[number].strip("[]").split("=")
        values.append(int(any(frame[field.lower()][j] == value for j in ahead)))
    count = len(ahead)
    bins = [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 10**9)]
    held = next(i for i, (low, high) in enumerate(bins) if low <= count <= high)
    sizes = case.tokenizer.decode(case.events.ids)["amount"].to_list()
    total = sum(sizes[j] for j in ahead)
    return [*values, held, sum(total >= edge for edge in questions.sum_edges[0])]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("roles", [None, "by_time"])
def test_answers_of_a_span_are_those_of_the_table(cases, packed, roles):
    roles = roles and cases.by_time
    case = cases.Case(roles=roles, packed=packed, horizon=SPAN, **ALONE)
    learner, rows, _ = case.parts()
    objective, dataset = learner.objectives[0], case.dataset()
    slow = cases.slow_horizons(case, dataset, case.training.horizon)
    asked = 0
    for index in range(len(rows)):
        row, at = rows[index], 0
        begin = np.cumsum([0, *row["segment_lengths"]])
        for number, (_, events, ends) in enumerate(dataset.events_of(index)):
            for event, end in zip(events.tolist(), ends.tolist(), strict=True):
                if slow[event] is None:
                    continue
                assert row["horizon_places"][at] == begin[number] + end - 1
                want = slow_answers(case, objective, slow[event])
                assert row["horizon_answers"][at].tolist() == want
                at += 1
        assert at == len(row["horizon_places"])
        asked += at
    assert asked == sum(ahead is not None for ahead in slow) > 20
    answers = np.concatenate([rows[i]["horizon_answers"] for i in range(len(rows))])
    edges = objective.questions.sum_edges[0]
    assert np.unique(answers[:, -1]).tolist() == list(range(len(edges) + 1)), "no bin is empty"
    assert len(edges) >= 2


def answers_of(case, **options):
    learner, rows, _ = case.parts(shuffle=False, **options)
    found = [rows[i][k] for i in range(len(rows)) for k in ("horizon_places", "horizon_answers")]
    return found, learner.objectives[0].questions


def test_nothing_beyond_the_border_reaches_training(cases):
    """A leak is planted: after the border everything happens at once, to everybody."""
    frame = cases.make_frame(entities=12, events=20).filter(
        pl.col("day") < pl.lit(50).cast(pl.Date)
    )
    later = pl.col("day") >= pl.lit(40).cast(pl.Date)
    planted = frame.with_columns(
        kind=pl.when(later).then(pl.lit("rent")).otherwise("kind"),
        shop=pl.when(later).then(pl.lit("s0")).otherwise("shop"),
        amount=pl.when(later).then(39.0).otherwise("amount"),
    )
    case = cases.Case(frame, roles=cases.by_time, horizon=SPAN, **ALONE)
    other = copy.copy(case)
    other.table = case.table.__class__.of(planted, entity="who", time="day")
    other.events = case.tokenizer.encode(other.table, roles=cases.by_time(other.table))
    (clean, asked), (leaky, same) = answers_of(case), answers_of(other)
    assert len(clean) == len(leaky)
    assert all(np.array_equal(a, b) for a, b in zip(clean, leaky, strict=True))
    assert np.array_equal(asked.class_of_id, same.class_of_id)
    assert np.array_equal(asked.sum_edges, same.sum_edges)
    # The twin: were roles not asked for, what is planted would be in the answers.
    for one in (case, other):
        one.events = copy.copy(one.events)
        object.__setattr__(one.events, "roles", None)
    (clean, _), (leaky, _) = answers_of(case), answers_of(other)
    assert not all(np.array_equal(a, b) for a, b in zip(clean, leaky, strict=True))


def slow_loss(case, learner, items):
    """Row by row and event by event, from states of single documents."""
    objective, model, terms = learner.objectives[0], learner.model, []
    for row in items:
        begin = np.cumsum([0, *row["segment_lengths"]])
        for place, answer in zip(
            row["horizon_places"].tolist(), row["horizon_answers"].tolist(), strict=True
        ):
            first = begin[np.searchsorted(begin, place, side="right") - 1]
            ids = torch.from_numpy(row["input_ids"][first : place + 1])
            state = model.model(ids[None], use_cache=False).last_hidden_state[0, -1]
            if isinstance(objective, StepsObjective):
                slot, token = answer
                logits = model.lm_head(objective.mlp(state + objective.slot.weight[slot]))
                terms.append(-logits.log_softmax(-1)[token])
                continue
            outputs, parts, at = objective.head(state), [], 0
            for size in objective.questions.fields:
                chances = outputs[at : at + size].sigmoid()
                truth = answer[at : at + size]
                said = [-(c if y else 1 - c).log() for c, y in zip(chances, truth, strict=True)]
                parts.append(sum(said) / size)
                at += size
            for size, y in zip((8, 4), answer[at:], strict=True):
                parts.append(-outputs[at : at + size].log_softmax(-1)[y])
                at += size
            terms.append(sum(parts) / len(parts))
    return torch.stack(terms)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("horizon", [SPAN, {"steps": 2}])
@pytest.mark.parametrize("next_token", [0.0, 1.0])
def test_the_loss_equals_the_slow_one(cases, packed, horizon, next_token):
    weights = {"horizon": 0.5, "next_token": next_token}
    case = cases.Case(packed=packed, horizon=horizon, objectives=weights)
    learner, items, batch = case.batch(model=case.model(copy_heads=1))
    with torch.no_grad():
        terms = slow_loss(case, learner, items)
        losses = learner(**batch)
    assert batch["horizon_count"] == len(terms) > 10
    assert losses.parts["horizon"].item() == pytest.approx(terms.mean().item(), rel=1e-4)
    if next_token:
        plain = learner.model(**{k: v for k, v in batch.items() if "horizon" not in k}).loss
        assert losses.parts["next_token"].item() == pytest.approx(plain.item(), rel=1e-5)
        whole = plain.item() + 0.5 * terms.mean().item()
        assert losses.loss.item() == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("name", ["horizon", "masked_field"])
def test_passes_of_a_step_sum_up_to_its_mean(cases, name):
    """Terms are weighed by their number in the step, not by their pass."""
    case = cases.Case(horizon=SPAN, objectives={name: 1.0})
    learner, rows, collate = case.parts()
    batches = [collate([rows[0], rows[1]]), collate([rows[2]])]
    total = sum(batch[f"{name}_count"] for batch in batches)
    assert batches[0][f"{name}_count"] != batches[1][f"{name}_count"]
    learner.train()
    whole = learner(**collate([rows[i] for i in range(3)])).loss.item()
    shares = [learner(**b, totals={"next_token": 0, name: total}).loss.item() for b in batches]
    assert sum(shares) == pytest.approx(whole, rel=1e-4)


def test_steps_ahead_ask_for_the_tokens_of_that_event(cases):
    case = cases.Case(horizon={"steps": 2}, packed=False, **ALONE)
    _, rows, _ = case.parts()
    dataset, ends = case.dataset(), case.events.event_offsets
    for index in range(len(rows)):
        ((_, events, _),) = dataset.events_of(index)
        want = []
        for event in events.tolist():
            own = case.events.entity_offsets
            if event + 2 < own[np.searchsorted(own, event, side="right")]:
                ahead = case.events.ids[ends[event + 2] : ends[event + 3]].tolist()
                slots = case.tokenizer.layout.slot_of_id[ahead]
                want += [[s, t] for s, t in zip(slots.tolist(), ahead, strict=True) if s >= 0]
        assert rows[index]["horizon_answers"].tolist() == want


@pytest.mark.parametrize("packed", [True, False])
def test_no_gradient_goes_from_one_entity_to_another(cases, packed):
    case = cases.Case(packed=packed, horizon=SPAN, **ALONE)
    learner, _, batch = case.batch()
    ids = batch["input_ids"]
    document = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
    if packed:
        bounds = batch["cu_seq_lens_q"]
        document = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
        assert ids.shape[0] < len(bounds) - 2, "several documents share a row"
    places = batch["horizon_rows"] * ids.shape[1] + batch["horizon_places"]
    chosen = document[places[len(places) // 2]]
    mine = document[places] == chosen
    alone = {**batch, **{f"horizon_{k}": batch[f"horizon_{k}"][mine] for k in (
        "rows", "places", "answers")}}  # fmt: skip
    gradient = cases.gradients_of_inputs(learner, lambda: learner(**alone).loss)
    assert gradient[document == chosen].max() > 0
    assert gradient[document != chosen].max() == 0
    # Nor from a later token to an earlier state.
    last = torch.arange(len(gradient))[document == chosen] > places[mine].max()
    assert gradient[document == chosen][last].sum() == 0


def test_it_learns_how_busy_an_entity_will_be(cases):
    """Entities come often or seldom, and their kind says which."""
    rng = np.random.default_rng(0)
    days = [np.arange(0, 60, 2 if who % 2 else 9) for who in range(40)]
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(40), [len(d) for d in days]),
            "day": pl.Series(np.concatenate(days)).cast(pl.Date),
        }
    ).with_columns(
        kind=pl.when(pl.col("who") % 2 == 1).then(pl.lit("often")).otherwise(pl.lit("seldom")),
        amount=pl.Series(rng.integers(0, 9, sum(map(len, days)))).cast(pl.Float64),
    )
    schema = cases.SCHEMA.__class__(
        "busy", [f for f in cases.SCHEMA.fields if f.name in ("kind", "amount")]
    )
    case = cases.Case(frame, schema=schema, horizon={"within": "10d"}, **ALONE)
    learner, rows, collate = case.parts()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        rows.set_epoch(step)
        loss = learner.train()(**collate([rows[i] for i in range(4)])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.2
    assert np.mean(losses[-10:]) < 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"within": "10 fortnights"}, "no span of time"),
        ({"within": 0}, "longer than nothing"),
        ({"within": "3d", "steps": 2}, "not both"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {"training": {"horizon": settings}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"within": "900d"}, r"no training event is followed by a whole horizon[\s\S]*longer than"),
        ({"within": 5}, r"horizons \d+ hold an event[\s\S]*give it a unit"),
        ({"steps": 99}, "more than any history has left"),
        ({"within": "10d", "values": ["knd"]}, r"no categorical field 'knd'[\s\S]*'kind'"),
        ({"within": "10d", "sums": ["kind"]}, r"no numeric field 'kind'[\s\S]*amount"),
    ],
)
def test_horizons_that_cannot_be_learned_are_told(cases, settings, message):
    frame = cases.make_frame().unique(["who", "day"], maintain_order=True)
    with pytest.raises(ConfigError, match=message):
        cases.Case(frame, horizon=settings, **ALONE).parts()


def test_fields_may_be_left_out_and_spans_may_be_numbers(cases):
    frame = cases.make_frame().with_columns(day=pl.col("day").cast(pl.Int32).cast(pl.Int64))
    schema = cases.SCHEMA.__class__("plain", [f for f in cases.SCHEMA.fields if f.name != "day"])
    case = cases.Case(frame, schema=schema, horizon={"within": 10, "values": []}, **ALONE)
    learner, _, batch = case.batch()
    assert isinstance(learner.objectives[0], SpanObjective)
    assert learner.objectives[0].questions.fields == ()
    assert torch.isfinite(learner(**batch).loss)
