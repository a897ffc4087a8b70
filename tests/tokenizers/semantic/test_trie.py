import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.tokenizers.semantic import PrefixTrie

LABELS = (3, 4, 2)
rows = st.tuples(*(st.integers(0, count - 1) for count in LABELS))
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


@SETTINGS
@given(st.lists(rows, max_size=20), st.lists(rows, min_size=1, max_size=20))
def test_find_equals_a_dictionary(ids, asked):
    trie = PrefixTrie.of(ids, LABELS)
    first = {}
    for row, key in enumerate(ids):
        first.setdefault(key, row)
    found = trie.find(np.array([*asked, *ids]))
    assert found.tolist() == [first.get(key, -1) for key in (*asked, *ids)]


@SETTINGS
@given(st.lists(rows, max_size=20), st.lists(rows, min_size=1, max_size=8))
def test_allowed_equals_the_prefixes_of_a_set(ids, asked):
    trie, walks = PrefixTrie.of(ids, LABELS), np.array(asked)
    nodes = np.zeros(len(walks), np.int64)
    for depth, count in enumerate(LABELS):
        expected = [
            [
                tuple(walk[:depth]) + (label,) in {key[: depth + 1] for key in ids}
                for label in range(count)
            ]
            for walk in walks.tolist()
        ]
        mask = trie.allowed(depth, nodes)
        # A walk that has left the trie may go nowhere.
        assert mask.tolist() == expected
        nodes = trie.step(depth, nodes, walks[:, depth])


def test_labels_out_of_range_lead_nowhere():
    trie = PrefixTrie.of([[0, 3, 1], [1, 0, 0]], LABELS)
    assert trie.step(0, np.zeros(3, np.int64), np.array([-1, 3, 1])).tolist() == [-1, -1, 1]
    # 0·4 + 4 would be the edge of node 1 to label 0, if labels were not checked.
    assert trie.step(1, np.array([0]), np.array([4])).tolist() == [-1]


def test_a_trie_of_nothing():
    trie = PrefixTrie.of(np.empty((0, 3)), LABELS)
    assert trie.find(np.array([[0, 0, 0]])).tolist() == [-1]
    assert not trie.allowed(0, np.zeros(2, np.int64)).any()


def test_large_ids_do_not_overflow():
    ids = np.array([[65535] * 8, [65535] * 7 + [0]])
    trie = PrefixTrie.of(ids, (65536,) * 8)
    assert trie.find(ids).tolist() == [0, 1]
