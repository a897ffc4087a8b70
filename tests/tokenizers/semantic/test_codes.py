import numpy as np
import pytest

from domainformer.errors import TokenizerError
from domainformer.tokenizers.semantic.codes import group_numbers, number_new, room_for


def test_numbers_follow_names_whatever_the_order_of_rows():
    random = np.random.default_rng(0)
    names = [f"n{i}" for i in range(200)]
    codes = random.integers(3, size=(200, 2)).astype(np.int32)
    numbers = dict(zip(names, group_numbers(codes, names).tolist(), strict=True))
    seen = {}
    for name, key in sorted(zip(names, map(tuple, codes.tolist()), strict=True)):
        assert numbers[name] == seen.get(key, 0)
        seen[key] = seen.get(key, 0) + 1
    order = random.permutation(200)
    shuffled = [names[i] for i in order]
    again = group_numbers(codes[order], shuffled).tolist()
    assert dict(zip(shuffled, again, strict=True)) == numbers
    assert group_numbers(np.empty((0, 2), np.int32), []).tolist() == []


@pytest.mark.parametrize(("largest", "room"), [(1, 8), (4, 8), (5, 16), (8, 16), (9, 32)])
def test_room_is_twice_the_largest_group_at_least(largest, room):
    assert room_for(np.arange(largest, dtype=np.int32)) == room


def test_new_entities_join_in_the_order_of_their_names():
    taken = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0]], np.int32)
    codes = np.array([[0, 0], [0, 0], [1, 0]], np.int32)
    last = np.array([[0, 1], [0, 1], [0, 1]], np.int32)
    found = number_new(taken, ["b", "a", "c"], codes, last, room=8)
    assert found.tolist() == [[0, 0, 3], [0, 0, 2], [1, 0, 0]]


def test_a_full_group_sends_on_to_the_next_nearest_until_all_are_full():
    taken = np.array([[0, 0, 0]], np.int32)
    codes, last = np.zeros((4, 2), np.int32), np.tile(np.array([[0, 2, 1]], np.int32), (4, 1))
    found = number_new(taken, list("abcd")[:2], codes[:2], last[:2], room=1)
    assert found.tolist() == [[0, 2, 0], [0, 1, 0]]
    with pytest.raises(TokenizerError, match="no id left for the entity 'c'"):
        number_new(taken, list("abcd"), codes, last, room=1)
