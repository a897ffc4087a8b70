"""Learning and greedy encoding against the slow oracle; ties, units, stops."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.errors import DataError, MissingExtraError, TokenizerError
from domainformer.tokenizers.merges import ActionPieceMerges, MergeTable
from domainformer.tokenizers.merges import compiled as compiled_module
from domainformer.tokenizers.merges.encoding import encode_greedy
from domainformer.tokenizers.merges.fitting import weight_unit

from . import slow
from .conftest import make_events, random_histories

PROPERTY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
BASE = 6
SETS = st.lists(st.integers(0, BASE - 1), max_size=4, unique=True).map(sorted)
HISTORIES = st.lists(st.lists(SETS, min_size=1, max_size=6), min_size=1, max_size=5)


def as_tuples(rules):
    return [tuple(rule) for rule in rules.tolist()]


def slow_ids(chains, table, n_events):
    """What `encode` must give: tokens by last event, oldest first, then by leading part."""
    rows = [[] for _ in range(n_events)]
    for nodes in chains:
        for token, begins in slow.tokens_of(nodes):
            rows[begins + int(table.span[token]) - 1].append((begins, table.lead[token], token))
    return [[token for _, _, token in sorted(row)] for row in rows]


def rows_of(events):
    return [
        events.ids[start:stop].tolist()
        for start, stop in zip(events.event_offsets[:-1], events.event_offsets[1:], strict=True)
    ]


def shifted(histories):
    """The oracle's chains, with events numbered over all histories as the events are."""
    first, chains = 0, []
    for history in histories:
        chains.append(slow.chain(history, first))
        first += len(history)
    return chains


@PROPERTY
@given(histories=HISTORIES, most=st.integers(0, 40))
def test_learning_equals_recounting_everything(compiled, histories, most):
    rules, weights, _ = slow.learn(histories, BASE, most)
    events = make_events(histories, BASE)
    merges = ActionPieceMerges.fit(events, vocab_size=BASE + most, compiled=compiled)
    assert as_tuples(merges.rules) == rules
    assert merges.weights == tuple(map(float, weights))


@PROPERTY
@given(histories=HISTORIES, others=HISTORIES, most=st.integers(0, 25))
def test_greedy_encoding_equals_one_rule_at_a_time(compiled, histories, others, most):
    merges = ActionPieceMerges.fit(make_events(histories, BASE), vocab_size=BASE + most)
    rules = {rule: BASE + i for i, rule in enumerate(as_tuples(merges.rules))}
    events = make_events(others, BASE)
    encoded = merges.encode(events, compiled=compiled)
    expected = [slow.settle(nodes, rules) for nodes in shifted(others)]
    assert rows_of(encoded) == slow_ids(expected, merges.table, events.n_events)
    assert merges.decode(encoded) == events


@PROPERTY
@given(data=st.data(), histories=HISTORIES)
def test_any_rules_encode_as_one_at_a_time(compiled, data, histories):
    """Rules that no data taught: merged tokens far apart, twins, rules that enable earlier ones."""
    rules = []
    for made in range(data.draw(st.integers(1, 12))):
        a, b = sorted(data.draw(st.tuples(*[st.integers(0, BASE + made - 1)] * 2)))
        distance = data.draw(st.integers(1 if a == b else -3, 3))
        if (a, b, distance) not in rules:
            rules.append((a, b, distance))
        else:
            rules.append((a, BASE + made - 1, 3))
    if len(set(rules)) < len(rules) or any(a == b and d <= 0 for a, b, d in rules):
        return
    rules = [(min(a, b), max(a, b), d) for a, b, d in rules]
    table = MergeTable.of(BASE, rules)
    events = make_events(histories, BASE)
    encoded = encode_greedy(events, table, "other", compiled=compiled)
    ids = {rule: BASE + i for i, rule in enumerate(rules)}
    expected = [slow.settle(nodes, ids) for nodes in shifted(histories)]
    assert rows_of(encoded) == slow_ids(expected, table, events.n_events)


@pytest.mark.parametrize("seed", range(3))
def test_larger_histories_equal_the_oracle(compiled, seed):
    histories = random_histories(seed, entities=25, events=9, empty=seed == 1)
    rules, _, chains = slow.learn(histories, 14, 60)
    events = make_events(histories, 14)
    merges = ActionPieceMerges.fit(events, vocab_size=74, compiled=compiled)
    assert as_tuples(merges.rules) == rules
    # Encoding the training events from scratch leads to where learning ended.
    lengths = [len(slow.tokens_of(nodes)) for nodes in chains]
    assert merges.encode(events, compiled=compiled).lengths.tolist() == lengths


def test_both_machines_agree_on_more_data():
    pytest.importorskip("numba")
    events = make_events(random_histories(7, entities=200, events=15, width=6, base=40), 40)
    plain = ActionPieceMerges.fit(events, vocab_size=500, compiled=False)
    fast = ActionPieceMerges.fit(events, vocab_size=500, compiled=True)
    assert plain.weights == fast.weights
    assert plain.fingerprint == fast.fingerprint
    assert plain.encode(events, compiled=False) == fast.encode(events, compiled=True)
    one = plain.encode_permuted(events, seed=1, compiled=False)
    assert one == fast.encode_permuted(events, seed=1, compiled=True)


def test_result_does_not_depend_on_the_order_of_entities():
    histories = random_histories(3, entities=40)
    shuffled = [histories[i] for i in np.random.default_rng(0).permutation(40)]
    one, other = (
        ActionPieceMerges.fit(make_events(h, 14), vocab_size=120) for h in (histories, shuffled)
    )
    assert one.fingerprint == other.fingerprint
    assert one.weights == other.weights


def test_ties_fall_to_lower_ids(compiled):
    # Three thirds against one whole: equal only in exact arithmetic.
    thirds = [[[0, 1, 2]], [[0, 1, 3]], [[0, 1, 4]]]
    whole = [[[2, 5]], [[3, 4]]]
    merges = ActionPieceMerges.fit(
        make_events([*thirds, *whole, [[3, 5]], [[3, 5]]], 6), vocab_size=7, compiled=compiled
    )
    assert as_tuples(merges.rules) == [(0, 1, 0)]
    assert merges.weights == (2.0,)


def test_weights_are_those_of_the_paper(compiled):
    # One pair inside a set of three (2/3), one across sets of three and two (1/6).
    merges = ActionPieceMerges.fit(
        make_events([[[0, 1, 2], [3, 4]]], 5), vocab_size=30, compiled=compiled
    )
    assert as_tuples(merges.rules)[0] == (3, 4, 0)
    assert merges.weights[0] == 1.0
    assert merges.weights[1] == float(Fraction(2, 3))


def test_a_merge_across_events_merges_on_and_an_empty_set_takes_it_over(compiled):
    rules = [(2, 3, 1), (4, 5, 0), (6, 7, 1), (0, 1, 0), (8, 9, 0)]
    table = MergeTable.of(6, rules)
    events = make_events([[[0, 1, 2], [3, 4, 5]]], 6)
    steps = [
        rows_of(encode_greedy(events, MergeTable.of(6, rules[:n]), "x", compiled=compiled))
        for n in range(6)
    ]
    assert steps[1] == [[0, 1], [6, 4, 5]]  # in the slot between
    assert steps[3] == [[0, 1], [8]]  # merged with the right neighbour, which is empty now
    assert steps[4] == [[9], [8]]
    assert steps[5] == [[], [10]]
    assert table.parts(10) == [[0, 1, 2], [3, 4, 5]]


def test_stops_with_a_note_when_no_pair_is_left(compiled):
    events = make_events([[[0, 1], [2]]], 3)
    merges = ActionPieceMerges.fit(events, vocab_size=1000, compiled=compiled)
    assert merges.n_merges == 2
    assert "no pair is left to merge after 2 merges" in merges.note
    assert "5 tokens instead of 1,000" in merges.note
    enough = ActionPieceMerges.fit(events, vocab_size=4, compiled=compiled)
    assert "the 4 tokens asked for" in enough.note


def test_lonely_tokens_leave_nothing_to_merge(compiled):
    merges = ActionPieceMerges.fit(make_events([[[0]], [[1]]], 2), vocab_size=9, compiled=compiled)
    assert merges.n_merges == 0
    assert merges.decode(merges.encode(make_events([[[0], [1]]], 2))).ids.tolist() == [0, 1]


def test_wide_events_are_rounded_once_and_in_no_order(compiled):
    histories = random_histories(5, entities=12, events=3, width=40, base=60)
    events = make_events(histories, 60)
    assert weight_unit(events) & (weight_unit(events) - 1) == 0  # a power of two
    merges = ActionPieceMerges.fit(events, vocab_size=90, compiled=compiled)
    back = ActionPieceMerges.fit(make_events(histories[::-1], 60), vocab_size=90, compiled=compiled)
    assert merges.fingerprint == back.fingerprint
    assert merges.decode(merges.encode(events)) == events


def test_only_training_events_are_learned_from_and_merges_respect_roles(compiled):
    histories = [[[0, 1], [0, 1], [2, 3], [2, 3]]] * 3
    roles = [0, 0, 1, 2] * 3
    events = make_events(histories, 4, roles=roles)
    merges = ActionPieceMerges.fit(events, vocab_size=20, compiled=compiled)
    assert {part for rule in merges.rules[:, :2].tolist() for part in rule} <= {0, 1, *range(4, 20)}
    encoded = merges.encode(events, compiled=compiled)
    assert merges.decode(encoded) == events
    # What the last training event knows is the same whatever comes after it.
    everything = ActionPieceMerges.fit(make_events(histories, 4), vocab_size=20, compiled=compiled)
    other = make_events([[[0, 1], [0, 1], [0, 3], [1, 2]]] * 3, 4, roles=roles)
    one, two = (everything.encode(e, compiled=compiled) for e in (events, other))
    assert rows_of(one)[:2] == rows_of(two)[:2]
    # Without roles the merges do reach across: the barrier is what holds them.
    free = everything.encode(make_events(histories, 4), compiled=compiled)
    assert free.n_tokens < one.n_tokens
    with pytest.raises(DataError, match="no training events"):
        ActionPieceMerges.fit(events, vocab_size=20, train_roles=(7,))


def test_an_event_says_nothing_of_later_ones(compiled):
    """Cut anywhere: the tokens up to the cut hold no part of what comes after."""
    histories = random_histories(11, entities=20)
    events = make_events(histories, 14)
    merges = ActionPieceMerges.fit(events, vocab_size=100)
    encoded = merges.encode(events, compiled=compiled)
    for event, row in enumerate(rows_of(encoded)):
        for token in row:
            parts = merges.table.parts(token)
            first = event - len(parts) + 1
            for back, part in enumerate(parts):
                assert set(part) <= set(rows_of(events)[first + back])


def test_progress_is_told_and_may_stop():
    events = make_events(random_histories(1), 14)
    told = []
    ActionPieceMerges.fit(events, vocab_size=60, progress=lambda *n: told.append(n))
    assert told[-1] == (46, 46)

    def interrupt(done, wanted):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ActionPieceMerges.fit(events, vocab_size=60, progress=interrupt)


@pytest.mark.parametrize("vocab_size", [13, 1 << 24])
def test_sizes_that_cannot_be(vocab_size):
    with pytest.raises(TokenizerError, match="cannot make a vocabulary"):
        ActionPieceMerges.fit(make_events([[[0, 1]]], 14), vocab_size=vocab_size)


def test_events_that_are_no_sets_are_refused():
    twice = make_events([[[0, 1]], [[2, 2]]], 4)
    with pytest.raises(TokenizerError, match="stands twice") as caught:
        ActionPieceMerges.fit(twice, vocab_size=9)
    assert "event 1" in str(caught.value)
    falling = make_events([[[2, 1]]], 4)
    with pytest.raises(TokenizerError, match="as if order mattered") as caught:
        ActionPieceMerges.fit(falling, vocab_size=9)
    assert "sources" in str(caught.value)
    # With slots in that order, the same event is in order.
    slots = np.array([-2, 1, 0, 2])
    merges = ActionPieceMerges.fit(falling, vocab_size=5, slot_of_id=slots)
    assert merges.decode(merges.encode(falling)) == falling
    with pytest.raises(TokenizerError, match="belongs to no slot"):
        ActionPieceMerges.fit(make_events([[[0, 1]]], 4), vocab_size=9, slot_of_id=slots)
    with pytest.raises(TokenizerError, match="slot_of_id has shape"):
        ActionPieceMerges.fit(falling, vocab_size=9, slot_of_id=[0, 1])


def test_without_numba_the_compiled_machine_names_its_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "numba", None)
    compiled_module.machine.cache_clear()
    with pytest.raises(MissingExtraError, match="fast"):
        compiled_module.machine(compiled=True)
    compiled_module.machine.cache_clear()
