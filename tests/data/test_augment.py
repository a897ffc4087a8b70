"""Value substitution: consistent within a history, confined to its field, and off when off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainformer.data.augment import Interchangeable, ValueSubstitution, interchangeable
from domainformer.errors import ConfigError

KIND = Interchangeable(tuple(range(6, 12)), (5, 4))
SHOP = Interchangeable(tuple(range(14, 40)), (13, 12))
ID_LISTS = st.lists(st.integers(0, 49), min_size=1, max_size=60).map(lambda ids: ids * 3)


def swap(rate: float) -> ValueSubstitution:
    return ValueSubstitution([KIND, SHOP], rate, vocab_size=50)


@given(ID_LISTS, st.integers(0, 2**32), st.floats(0, 1))
def test_a_value_becomes_one_token_of_its_own_field_everywhere(ids, seed, rate):
    before = np.array(ids)
    after = swap(rate)(before, np.random.default_rng(seed))
    assert before.tolist() == ids
    for value in np.unique(before):
        (became,) = np.unique(after[before == value])
        if value == became:
            continue
        (group,) = [group for group in (KIND, SHOP) if value in group.values]
        assert became in (*group.absent, *group.values)


def test_the_rate_is_the_share_of_replaced_values_and_two_thirds_of_them_become_absent():
    ids = np.repeat(KIND.values, 3)
    results = [swap(0.3)(ids, np.random.default_rng(seed)) for seed in range(2000)]
    changed = np.mean([result != ids for result in results])
    unknown, missing = (np.mean([r == absent for r in results]) for absent in KIND.absent)
    # A value drawn at random is the value itself with probability 1 in 6.
    assert changed == pytest.approx(0.3 * (1 - 1 / 3 / 6), abs=0.01)
    assert (unknown, missing) == pytest.approx((0.1, 0.1), abs=0.01)


@given(ID_LISTS, st.integers(0, 2**32))
def test_only_habits_are_replaced(ids, seed):
    before = np.array(ids[: len(ids) * 2 // 3])
    after = swap(1.0)(before, np.random.default_rng(seed))
    for group in (KIND, SHOP):
        own = [i for i in before.tolist() if i in group.values]
        for value in set(own):
            if own.count(value) < 3 or own.count(value) < 0.1 * len(own):
                assert (after[before == value] == value).all()


def test_items_that_hardly_repeat_are_left_alone_and_the_shop_is_not():
    basket = [12 + 2, *SHOP.values[:20], KIND.values[0], KIND.values[0], KIND.values[0]]
    after = swap(1.0)(np.array(basket), np.random.default_rng(1))
    assert after[:21].tolist() == basket[:21]
    assert (after[21:] != KIND.values[0]).all()


def test_rate_zero_changes_nothing_and_equal_seeds_agree():
    ids = np.arange(50)
    assert swap(0.0)(ids, np.random.default_rng(0)) is ids
    first, second = (swap(0.5)(ids, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_field_of_one_value_has_nothing_to_choose_from():
    assert interchangeable([([7], [6]), ([], [])]) == []


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ConfigError, match="probability"):
        swap(rate)
