"""The item transformer: ties, attributes, padding, empty histories."""

import numpy as np
import pytest
import torch

from domainformer.errors import DataError
from domainformer.models import DomainTransformerConfig
from domainformer.models.item_transformer import ItemAttributes, ItemTransformer, padded_histories

SETS = [["a"], [], ["a", "b", "c"], ["c", "c"], ["b"]]


def make_model(attributes=None, items=5, context=4):
    torch.manual_seed(1)
    config = DomainTransformerConfig(
        vocab_size=items + 1,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context + 1,
        position_encoding="learned",
        initializer_range=0.5,
    )
    return ItemTransformer(config, attributes).eval()


def test_the_table_is_id_plus_shared_attributes():
    attributes = ItemAttributes.of(SETS)
    model = make_model(attributes)
    own, shared = model.backbone.embed_tokens.weight, model.attribute_table
    for item, names in enumerate(SETS):
        numbers = ["abc".index(name) for name in set(names)]
        extra = sum(shared[number] for number in numbers) / max(len(numbers), 1) ** 0.5
        assert torch.allclose(model.item_table()[item], own[item] + extra, atol=1e-6)
    assert torch.equal(model.item_table()[5], own[5])  # START has no attributes


def test_logits_are_products_with_the_table_that_reads():
    model = make_model(ItemAttributes.of(SETS))
    ids = torch.tensor([[5, 0, 3]])
    hidden = model.hidden(ids, None, model.item_table())
    expected = hidden @ model.item_table()[:5].T + model.bias
    assert torch.allclose(model(ids), expected, atol=1e-6)


def test_padding_changes_nothing():
    model = make_model()
    items = np.array([0, 1, 2, 3, 4])
    ids, mask = padded_histories(
        items, np.array([0, 3, 5]), np.array([3, 5, 5]), start_id=5, context=4
    )
    together = model(ids, mask)
    for row, length in enumerate((3, 2, 0)):
        alone = model(ids[row : row + 1, : length + 1])
        assert torch.allclose(together[row, : length + 1], alone[0], atol=1e-5)


def test_the_newest_items_are_read():
    items = np.arange(10)
    ids, _ = padded_histories(items, np.array([2]), np.array([9]), start_id=99, context=3)
    assert ids.tolist() == [[99, 6, 7, 8]]


def test_attributes_of_other_items_are_refused():
    with pytest.raises(DataError, match="not those of the items"):
        make_model(ItemAttributes.of([["a"], ["b"]]))
    with pytest.raises(DataError, match="no item has an attribute"):
        ItemAttributes.of([[], None])
