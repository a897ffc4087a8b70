import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.table import EventTable
from domainformer.errors import DataError, InputError
from domainformer.inference import Bundle, Sampling, SlotGrammar, generate
from domainformer.inference.generate import draws_of
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

FIELDS = {
    "kind": FieldSpec("kind", "categorical_fixed", min_frequency=3, hash_buckets=2),
    "direction": FieldSpec("direction", "sign", column="amount"),
    "amount": FieldSpec("amount", "numerical_continuous", n_bins=6),
    "day": FieldSpec("day", "temporal", calendar_fields=("month", "dow"), elapsed_bins=4),
    "shop": FieldSpec("shop", "text", max_tokens=3),
}
LAST = ("kind", "direction", "amount", "day", "shop")
INSIDE = ("shop", "kind", "direction", "amount", "day")
WITHOUT = ("kind", "direction", "amount", "day")


def make_table(entities=6, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, size=entities)
    n = int(lengths.sum())
    days = pl.Series(rng.integers(0, 700, size=n)).cast(pl.Int32).cast(pl.Date)
    frame = pl.DataFrame(
        {
            "card": np.repeat([f"card {i}" for i in range(entities)], lengths),
            "day": days,
            "kind": rng.choice(["a", "b", "c", *map(str, range(20))], size=n),
            "amount": rng.normal(size=n),
            "shop": pl.Series(["corner shop", "petrol", "", None]).gather(rng.integers(4, size=n)),
        }
    )
    return EventTable.of(frame, entity="card", time="day")


TABLE = make_table()


def bundle_of(order, encoding="rope", context=96):
    torch.manual_seed(0)
    schema = DomainSchema("cards", [FIELDS[name] for name in order])
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=256).fit(TABLE)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.5,
        position_encoding="none" if encoding == "copy" else encoding,
        copy_heads=2 if encoding == "copy" else 0,
        copy_width=8,
    )
    return Bundle(DomainTransformerForCausalLM(config).eval(), tokenizer, schema)


@pytest.fixture(scope="module")
def bundle():
    return bundle_of(LAST)


def brute(bundle, index, sample, n_events, seed, sampling):
    """One row, the whole sequence again for every id, no cache and no masks but a walk by hand."""
    grammar = SlotGrammar.of(bundle.tokenizer)
    events = bundle.tokenizer.encode(TABLE)
    history = [1, *events.history(index).ids.tolist()]
    draws = draws_of(seed, events.entity_ids[index], sample, 200)
    banned = {*grammar.unknown.tolist(), *grammar.first.tolist()}
    new, slot, left, begun = [], 0, 0, 0
    while True:
        if slot == 0 and begun == n_events and not left:
            return new
        one = grammar.slots[slot]
        allowed = [i for i in range(one.start, one.stop) if i not in banned]
        allowed += range(grammar.text_start, grammar.vocab_size) if left else []
        with torch.no_grad():
            full = bundle.model(torch.tensor([history + new])).logits[0, -1].double().numpy()
        logits = np.full((1, grammar.vocab_size), -np.inf)
        logits[0, allowed] = full[allowed]
        picked = int(sampling.pick(logits, draws[[len(new)]])[0])
        if picked >= grammar.text_start:
            left -= 1
        else:
            if slot == 0 and begun == n_events:
                return new
            begun += slot == 0
            left = one.max_tokens if picked != one.missing else 0
            slot = (slot + 1) % len(grammar.slots)
        new.append(picked)


@pytest.mark.parametrize("order", [LAST, INSIDE, WITHOUT], ids=["last", "inside", "without"])
@pytest.mark.parametrize("encoding", ["none", "learned", "rope", "copy"])
def test_batches_with_a_cache_equal_one_row_without(order, encoding):
    bundle = bundle_of(order, encoding, context=256)
    expected = [
        brute(bundle, index, sample, 2, 7, Sampling()) for index in range(6) for sample in range(2)
    ]
    found = generate(bundle, TABLE, n_events=2, n_samples=2, seed=7)
    assert found.height == 6 * 2 * 2
    decoded = bundle.tokenizer.decode(np.concatenate(expected))
    assert found.select(decoded.columns).equals(decoded)
    assert found.columns[:3] == ["card", "sample", "step"]
    assert found["card"].to_list() == [f"card {i}" for i in range(6) for _ in range(4)]
    assert found["sample"].to_list() == [0, 0, 1, 1] * 6
    assert found["step"].to_list() == [0, 1] * 12


def test_the_future_does_not_depend_on_the_batch(bundle):
    together = generate(bundle, TABLE, n_events=3, n_samples=2)
    one_by_one = generate(bundle, TABLE, n_events=3, n_samples=2, batch_tokens=1)
    alone = generate(bundle, TABLE, n_events=3, n_samples=2, entities=["card 4"])
    assert together.equals(one_by_one)
    assert together.filter(pl.col("card") == "card 4").equals(alone)


def test_the_seed_decides(bundle):
    first, again, other = (generate(bundle, TABLE, n_events=3, seed=s) for s in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)
    samples = generate(bundle, TABLE, n_events=3, n_samples=2)
    values = [part.drop("sample") for part in samples.partition_by("sample")]
    assert not values[0].equals(values[1])


def test_a_longer_future_begins_with_the_shorter(bundle):
    """As long as the whole history fits beside either."""
    short, long = (generate(bundle, TABLE, n_events=n, context=400) for n in (2, 3))
    kept = long.filter(pl.col("step") < 2)
    whole = short.join(kept, on=["card", "step"], how="inner")
    assert whole.height == short.height
    assert short.equals(kept)


def test_events_are_well_formed_and_never_unknown(bundle):
    found = generate(bundle, TABLE, n_events=20, n_samples=3, temperature=3.0)
    assert found.height == 6 * 3 * 20  # far beyond the context: windows were renewed
    known = {"a", "b", "c", *map(str, range(20)), None}
    assert set(found["kind"].to_list()) <= known
    assert found["day_month"].drop_nulls().is_between(1, 12).all()
    assert found["day_dow"].drop_nulls().is_between(1, 7).all()
    texts = [t for t in found["shop"].to_list() if t]
    assert texts


def test_greedy_and_sampling_limits(bundle):
    greedy = generate(bundle, TABLE, n_events=3, temperature=0.0)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}):
        assert generate(bundle, TABLE, n_events=3, seed=5, **options).equals(greedy)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 2, 3]),
        (Sampling(top_k=2), [0, 2]),
        (Sampling(top_p=0.6), [0, 2]),
        (Sampling(top_p=0.5), [2]),
        (Sampling(top_k=3, top_p=0.85), [0, 2, 3]),
    ],
)
def test_frequencies_follow_the_truncated_distribution(sampling, kept):
    p = np.array([0.25, 0.05, 0.5, 0.2])
    draws = (np.arange(10_000) + 0.5) / 10_000
    logits = np.log(np.tile(p, (len(draws), 1)))
    found = np.bincount(sampling.pick(logits, draws), minlength=4) / len(draws)
    expected = np.where(np.isin(np.arange(4), kept), p, 0.0)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


def test_temperature_flattens():
    p = np.array([0.9, 0.1])
    draws = (np.arange(1000) + 0.5) / 1000
    logits = np.log(np.tile(p, (1000, 1)))
    share = (Sampling(temperature=2.0).pick(logits, draws) == 0).mean()
    assert share == pytest.approx(0.75, abs=2e-3)  # √9 : 1


def test_an_id_that_is_not_allowed_is_never_picked():
    logits = np.array([[-np.inf, 0.0, -np.inf]])
    for draw in (0.0, 0.5, 1 - 2**-53):
        for sampling in (Sampling(), Sampling(top_k=2), Sampling(top_p=1.0), Sampling(0.0)):
            assert sampling.pick(logits, np.array([draw]))[0] == 1


def test_names_that_clash_are_kept_apart():
    schema = DomainSchema("steps", [FieldSpec("step", "categorical_fixed")])
    frame = pl.DataFrame({"who": [1, 1, 2], "step": ["x", "y", "x"]})
    table = EventTable.of(frame, entity="who")
    tokenizer = DomainTokenizer(schema).fit(table)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=16,
    )
    bundle = Bundle(DomainTransformerForCausalLM(config).eval(), tokenizer, schema)
    found = generate(bundle, table, n_events=30)
    assert found.columns == ["who", "sample", "step", "step_"]
    assert found.height == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"n_events": 0}, "n_events"),
        ({"n_samples": 0}, "n_samples"),
        ({"entities": ["card 77"]}, "did you mean 'card"),
    ],
)
def test_bad_requests(bundle, options, message):
    with pytest.raises(InputError, match=message):
        generate(bundle, TABLE, **{"n_events": 1, **options})


def test_a_context_without_room_is_told(bundle):
    with pytest.raises(DataError, match="too short to generate"):
        generate(bundle, TABLE, n_events=1, context=10)
