"""Objectives beside next tokens: losses against slow ones, slices, twins, the engine, resuming."""

from __future__ import annotations

import copy
import math

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.config import build
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.simulate import simulate
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ConfigError, RuleError
from domainformer.inference import load_bundle
from domainformer.models import Collator, DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training import RunConfig, pretrain, read_metrics
from domainformer.training.config import TrainingConfig
from domainformer.training.engine import event_rules
from domainformer.training.objective_base import ObjectiveCollator, ObjectiveRows
from domainformer.training.objective_config import ContrastiveConfig
from domainformer.training.objective_contrastive import (
    ContrastiveObjective,
    SliceSampler,
    contrastive_sum,
    count_terms,
)
from domainformer.training.objective_trainer import ObjectiveTrainer
from domainformer.training.objectives import ObjectiveModel, count_batch
from domainformer.training.plan import TrainPlan
from domainformer.training.rules import attach, make_rules
from domainformer.training.trainer import EventTrainer

VOCAB = 40


def make_events(entities=24, events=12, seed=0, roles=None):
    """Each entity has four tokens of its own, so that its slices can be told from others'."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(max(1, events // 2), events + 1, size=entities)
    lengths = rng.integers(1, 4, size=counts.sum())
    owner = np.repeat(np.repeat(np.arange(entities), counts), lengths)
    own = rng.integers(4, VOCAB, size=(entities, 4))
    return TokenizedEvents(
        ids=own[owner, rng.integers(0, 4, size=len(owner))].astype(np.uint8),
        event_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        entity_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        entity_ids=pl.Series([f"e{i}" for i in range(entities)]),
        times=np.arange(counts.sum()),
        roles=None if roles is None else roles(counts),
        tokenizer_fingerprint="f00d",
        vocab_size=VOCAB,
    )


def slow_terms(vectors, owners, config):
    """Every term of the loss, pair by pair, in Python."""
    unit = [np.asarray(v, float) / np.linalg.norm(v) for v in vectors]
    terms = []
    for i in range(len(owners)):
        others = [j for j in range(len(owners)) if owners[j] != owners[i]]
        hard = sorted(others, key=lambda j: np.linalg.norm(unit[i] - unit[j]))
        hard = hard[: config.hard_negatives]
        mates = [j for j in range(len(owners)) if owners[j] == owners[i] and j != i]
        if config.loss == "info_nce":
            against = sum(math.exp(unit[i] @ unit[j] / config.temperature) for j in hard)
            for j in mates:
                own = math.exp(unit[i] @ unit[j] / config.temperature)
                terms.append(-math.log(own / (own + against)))
            continue
        terms += [float(np.sum((unit[i] - unit[j]) ** 2)) for j in mates if j > i]
        gaps = [config.margin - float(np.linalg.norm(unit[i] - unit[j])) for j in hard]
        terms += [max(0.0, gap) ** 2 for gap in gaps]
    return terms


@pytest.mark.parametrize("loss", ["margin", "info_nce"])
@pytest.mark.parametrize("hard", [1, 3, None])
def test_the_loss_equals_the_slow_one(loss, hard):
    config = ContrastiveConfig(loss=loss, hard_negatives=hard, margin=1.2)
    owners = np.array([3, 3, 8, 8, 8, 5, 3])  # 5 has a single slice
    vectors = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = slow_terms(vectors.numpy(), owners.tolist(), config)
    fast = contrastive_sum(vectors, torch.from_numpy(owners), config)
    assert count_terms(owners, config) == len(terms)
    assert float(fast) == pytest.approx(sum(terms), rel=1e-5)


@pytest.mark.parametrize("loss", ["margin", "info_nce"])
def test_equal_vectors_have_finite_gradients(loss):
    vectors = torch.ones(4, 3, requires_grad=True)
    contrastive_sum(vectors, torch.tensor([0, 0, 1, 1]), ContrastiveConfig(loss=loss)).backward()
    assert torch.isfinite(vectors.grad).all()


def test_one_owner_alone_teaches_nothing():
    assert count_terms(np.array([4, 4, 4]), ContrastiveConfig()) == 0
    assert count_terms(np.array([], np.int64), ContrastiveConfig()) == 0


def cut_anywhere(events, entity):
    """All runs of whole events of one entity, as tuples of ids."""
    first, last = events.entity_offsets[entity : entity + 2]
    ends = events.event_offsets
    return {
        tuple(events.ids[ends[a] : ends[b]].tolist())
        for a in range(first, last)
        for b in range(a + 1, last + 1)
    }


def test_slices_are_whole_events_of_their_entity_and_of_its_training_part():
    def roles(counts):  # the newest third of each entity is for validation
        return np.concatenate([(np.arange(n) >= 2 * n // 3).astype(np.uint8) for n in counts])

    events = make_events(roles=roles)
    rows = DomainSequenceDataset(events, context=16)
    train = events.roles == 0
    config = ContrastiveConfig(min_events=2, max_events=20)
    sampler = SliceSampler(rows, config)
    given = 0
    for entity in range(events.n_entities):
        known = cut_anywhere(events, entity)
        first, last = events.entity_offsets[entity : entity + 2]
        ends = events.event_offsets[first : last + 1]
        visible = events.ids[ends[0] : ends[int(train[first:last].sum())]].tolist()
        text = ",".join(map(str, visible)) + ","
        for ids in sampler(entity, 0):
            given += 1
            assert ids[0] == 1
            assert 2 <= len(ids) <= 16
            assert tuple(ids[1:].tolist()) in known
            assert ",".join(map(str, ids[1:].tolist())) + "," in text
    assert given > 40


def test_slices_hold_events_of_their_own_part_only():
    def roles(counts):
        return np.concatenate([(np.arange(n) >= n // 2).astype(np.uint8) for n in counts])

    events = make_events(roles=roles)
    events.ids[:] = np.repeat(np.where(events.roles == 1, 9, 5), np.diff(events.event_offsets))
    rows = DomainSequenceDataset(events, context=64, score_roles=(1,), shuffle=False)
    sampler = SliceSampler(rows, ContrastiveConfig(min_events=2))
    assert ids_of(sampler, events) == {9}
    config = ContrastiveConfig(min_events=2)
    assert ids_of(SliceSampler(DomainSequenceDataset(events, context=64), config), events) == {5}
    # The twin: were roles not asked for, later events would get into training.
    careless = DomainSequenceDataset(events, context=64, train_roles=None)
    assert ids_of(SliceSampler(careless, config), events) == {5, 9}


def ids_of(sampler, events):
    drawn = [ids[1:] for e in range(events.n_entities) for ids in sampler(e, 0)]
    return set(np.concatenate(drawn).tolist())


def test_slices_follow_from_seed_epoch_and_entity_alone():
    events = make_events()

    def drawn(seed, epoch, entity=3):
        rows = DomainSequenceDataset(events, context=64, seed=seed)
        rows.set_epoch(epoch)
        return [s.tolist() for s in SliceSampler(rows, ContrastiveConfig(min_events=2))(entity, 0)]

    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002 - global generators must not matter
    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)
    assert drawn(1, 2) != drawn(1, 2, entity=4)


def small_model(**overrides):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, **overrides}
    return DomainTransformerForCausalLM(
        DomainTransformerConfig.preset("tiny", vocab_size=VOCAB, **sizes)
    )


def parts_of(events, *, packed=True, objectives=None, config=None, model=None, context=64):
    training = TrainingConfig(
        context=context, packed=packed, objectives=objectives or {"contrastive": 1.0}
    )
    config = config or ContrastiveConfig(min_events=3)
    made = [ContrastiveObjective(config, pad_id=0, context=context, packed=packed)]
    learner = ObjectiveModel(model or small_model(), made, training)
    rows = ObjectiveRows(DomainSequenceDataset(events, context=context, packed=packed), made)
    collate = ObjectiveCollator(Collator(0, packed=packed, pad_to=context), made)
    return learner, rows, collate


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("overrides", [{}, {"copy_heads": 2, "position_encoding": "rope"}])
def test_the_model_s_losses_equal_slow_ones(packed, overrides):
    """One slice after the other through the model, and the loss pair by pair."""
    events = make_events(entities=6)
    model = small_model(**overrides)
    weights = {"next_token": 1.0, "contrastive": 0.5}
    learner, rows, collate = parts_of(events, packed=packed, objectives=weights, model=model)
    learner.train()
    items = [rows[i] for i in range(len(rows))]
    losses = learner(**collate(items))
    vectors, owners = [], []
    for row in items:
        owners += row["contrastive_owners"]
        for ids in row["contrastive_slices"]:
            hidden = model.model(torch.from_numpy(ids)[None], use_cache=False).last_hidden_state
            vectors.append(hidden[0, -1].detach().numpy())
    terms = slow_terms(vectors, owners, ContrastiveConfig(min_events=3))
    assert losses.parts["contrastive"].item() == pytest.approx(np.mean(terms), rel=1e-4)
    plain = model(**Collator(0, packed=packed, pad_to=64)(items)).loss
    assert losses.parts["next_token"].item() == pytest.approx(plain.item(), rel=1e-5)
    assert losses.loss.item() == pytest.approx(plain.item() + 0.5 * np.mean(terms), rel=1e-4)


def trainer_of(root, events, plan, *, owners=None, **options):
    learner, rows, collate = parts_of(events, **options)
    if owners is not None:
        collate = Mislabelled(collate, owners)
    return ObjectiveTrainer(
        learner, plan, train_rows=rows, eval_rows=rows, collate=collate, checkpoint_root=root
    )


class Mislabelled:
    """Sabotage: slices are told to be of other entities than they are."""

    def __init__(self, collate, seed):
        self._collate, self._rng = collate, np.random.default_rng(seed)

    def __call__(self, rows):
        batch = self._collate(rows)
        mixed = self._rng.permutation(batch["contrastive_owners"].numpy())
        return batch | {"contrastive_owners": torch.from_numpy(mixed)}


def nearest_is_own(model, events, *, seed=7):
    """Share of fresh slices whose nearest other slice is of the same entity."""
    rows = DomainSequenceDataset(events, context=64, seed=seed)
    sampler = SliceSampler(rows, ContrastiveConfig(min_events=3, slices=2))
    slices = [(e, ids) for e in range(events.n_entities) for ids in sampler(e, 0)]
    owners = np.array([entity for entity, _ in slices])
    with torch.no_grad():
        states = [
            model.model(torch.from_numpy(i)[None]).last_hidden_state[0, -1] for _, i in slices
        ]
    unit = torch.nn.functional.normalize(torch.stack(states), dim=-1)
    cosines = (unit @ unit.T).fill_diagonal_(-2.0)
    return float((owners[cosines.argmax(1).numpy()] == owners).mean())


PLAN = TrainPlan(steps=40, rows=6, learning_rate=0.01, eval_every=40, save_every=40, log_every=20)


def test_it_learns_to_tell_entities_and_the_twin_with_wrong_positives_does_not(tmp_path):
    events = make_events(entities=24, events=16)
    scores = {}
    for name, owners in (("right", None), ("wrong", 5)):
        trainer = trainer_of(tmp_path / name, events, PLAN, owners=owners)
        trainer.fit()
        trainer.model.eval()
        scores[name] = nearest_is_own(trainer.model.model, events)
    untrained = nearest_is_own(small_model().eval(), events)
    assert scores["right"] > max(untrained, scores["wrong"]) + 0.1


def test_accumulated_losses_are_means_over_the_whole_step(tmp_path):
    """Terms are weighed by their number in the step, not by their pass."""
    events = make_events(entities=40)
    weights = {"next_token": 1.0, "contrastive": 1.0}
    plan = TrainPlan(steps=1, rows=3, accumulation=2, log_every=1)
    trainer = trainer_of(tmp_path, events, plan, objectives=weights)
    batches = list(trainer.get_train_dataloader())[:2]
    learner = copy.deepcopy(trainer.model)
    trainer._get_num_items_in_batch(batches, None)
    totals = trainer._totals
    assert totals["contrastive"] == sum(b["contrastive_count"] for b in batches)
    learner.train()
    shares = [learner(**batch, totals=totals).parts for batch in batches]
    for name in weights:
        means = [learner(**batch).parts[name].item() for batch in batches]
        counts = [count_batch(batch)[name] for batch in batches]
        expected = np.average(means, weights=counts)
        assert sum(part[name].item() for part in shares) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_two_entities_has_no_contrastive_loss():
    events = make_events(entities=1)
    learner, rows, collate = parts_of(events)
    losses = learner.train()(**collate([rows[0]]))
    assert losses.parts == {}
    losses.loss.backward()
    assert losses.loss.item() == 0.0


# The engine

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.1}
ALL = {"next_token": 1.0, "contrastive": 0.5, "masked_field": 0.7, "horizon": 0.3}


def config_for(root, **training):
    base = {
        "context": 128, "max_steps": 6, "batch_tokens": 512, "gradient_accumulation": 2,
        "learning_rate": 0.01, "eval_every": 2, "log_every": 1, "quiet": True, "objectives": ALL,
        "horizon": {"within": "7d"},
    }  # fmt: skip
    return build(
        RunConfig,
        {
            "data": {"entity": "client_id", "time": "timestamp", "label": "label"},
            "split": {"kind": "entity", "fractions": [0.6, 0.3, 0.1]},
            "tokenizer": {"bpe_vocab_size": 300},
            "model": {"preset": "tiny", "overrides": {**SMALL, "copy_heads": 1}},
            "training": base | training,
            "output": {"root": str(root), "name": "run"},
        },
    )


@pytest.fixture(scope="module")
def table():
    return simulate("finance", entities=40, events_per_entity=16, seed=1)


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    return pretrain(config_for(tmp_path_factory.mktemp("runs")), table=table)


def test_each_objective_is_logged_and_the_bundle_is_a_plain_model(whole):
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    for row in rows:
        if "loss" in row:
            parts = sum(weight * row[f"loss_{name}"] for name, weight in ALL.items())
            assert row["loss"] == pytest.approx(parts, rel=1e-4)
    judged = {r["step"]: r for r in rows if "eval_loss" in r}
    assert list(judged) == [2, 4, 6]
    named = {"eval_loss": 1.0, **{f"eval_loss_{k}": w for k, w in ALL.items() if k != "next_token"}}
    best = min(judged, key=lambda s: sum(w * judged[s][key] for key, w in named.items()))
    assert whole.metrics["best_step"] == best
    for key in named:
        assert whole.metrics[key] == judged[best][key]
    bundle = load_bundle(whole.model_dir)
    assert type(bundle.model) is DomainTransformerForCausalLM
    assert bundle.model.config.use_cache is True


def test_a_run_that_broke_off_ends_with_the_same_weights(whole, table, tmp_path, monkeypatch):
    original = EventTrainer.training_step

    def fail(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise MemoryError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(EventTrainer, "training_step", fail)
    with pytest.raises(MemoryError):
        pretrain(config_for(tmp_path), table=table)
    monkeypatch.setattr(EventTrainer, "training_step", original)
    torch.rand(5)
    resumed = pretrain(config_for(tmp_path, resume=True))
    assert resumed.record.resumed == [4]
    left = load_bundle(whole.model_dir).model.state_dict()
    right = load_bundle(resumed.model_dir).model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    losses = [
        [
            {k: v for k, v in row.items() if "loss" in k}
            for row in read_metrics(r.run_dir / "metrics.jsonl")
        ]
        for r in (whole, resumed)
    ]
    assert losses[0] == losses[1]


def test_contrastive_alone_in_bf16_on_rows_that_are_not_packed(table, tmp_path):
    alone = pretrain(
        config_for(
            tmp_path, objectives={"contrastive": 1.0}, precision="bf16", packed=False, max_steps=2
        ),
        table=table,
    )
    rows = read_metrics(alone.run_dir / "metrics.jsonl")
    assert all("loss_next_token" not in row for row in rows)
    assert all(math.isfinite(row["eval_loss"]) for row in rows if "eval_loss" in row)


def test_next_tokens_alone_take_the_plain_path(table, tmp_path, monkeypatch):
    """No wrapper, no second forward: the numbers and the speed are those of before."""
    import domainformer.training.engine as engine

    def never(*args, **kwargs):
        raise AssertionError("built for next tokens alone")

    monkeypatch.setattr(engine, "ObjectiveModel", never)
    result = pretrain(
        config_for(tmp_path, objectives={"next_token": 1.0}, max_steps=1), table=table
    )
    rows = read_metrics(result.run_dir / "metrics.jsonl")
    assert {"step", "tokens", "eval_loss"} in [set(row) for row in rows]
    assert not [key for row in rows for key in row if key.startswith("loss_")]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"objectives": {"contrastiv": 1.0}}, "did you mean 'contrastive'"),
        ({"objectives": {"next_token": 0.0}}, "needs a weight above 0"),
        ({"objectives": {"next_token": -1.0}}, "greater than or equal to 0"),
        ({"objectives": {"next_token": math.inf}}, "finite"),
        ({"contrastive": {"slices": 1}}, "training.contrastive.slices"),
        ({"contrastive": {"min_events": 9, "max_events": 8}}, "smaller than min_events"),
        ({"contrastive": {"loss": "triplet"}}, "info_nce"),
    ],
)
def test_wrong_settings_are_told(training, message):
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {"training": training})


def test_evaluation_takes_the_average_that_a_rule_keeps(tmp_path):
    trainer = trainer_of(tmp_path, make_events(), TrainPlan(steps=1, rows=4))
    with attach(make_rules(["ema_weights"]), trainer.model) as trainer.rules:
        plain = trainer.evaluate()["eval_loss"]
        trainer.rules.state["0:ema_weights"]["average"] = {
            name: 2 * weight.detach() for name, weight in trainer.rules.parameters.items()
        }
        averaged = trainer.evaluate()["eval_loss"]
        trainer.rules.keep_evaluation_weights()
    trainer.rules = None
    assert plain != averaged == trainer.evaluate()["eval_loss"]


def test_rules_of_the_loss_are_for_next_tokens_alone(tmp_path):
    config = config_for(tmp_path)
    with pytest.raises(RuleError, match="'z_loss' adds to the loss of next tokens alone"):
        event_rules(config.model_copy(update={"rules": ("z_loss",)}))


def test_a_misspelt_rule_leaves_no_run_behind(tmp_path, table):
    config = config_for(tmp_path).model_copy(update={"rules": ("z_los",)})
    with pytest.raises(RuleError, match="z_loss"):
        pretrain(config, table=table)
    assert not (tmp_path / "run").exists()
