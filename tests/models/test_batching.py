import numpy as np
import pytest
import torch

from domainformer.errors import ConfigError, DataError
from domainformer.models import Collator, pool_hidden


def row(*lengths, start=3):
    """A row of documents that each begin with BOS (1), tokens counted upward."""
    ids = np.arange(start, start + sum(lengths))
    firsts = np.cumsum(lengths) - lengths
    ids[firsts] = 1
    labels = ids.copy()
    labels[firsts] = -100
    return {
        "input_ids": ids,
        "labels": labels,
        "segment_lengths": np.array(lengths),
        "entity": np.arange(len(lengths)),
    }


def test_padded_batch():
    batch = Collator(0, packed=False)([row(2), row(4)])
    assert batch["input_ids"].tolist() == [[1, 4, 0, 0], [1, 4, 5, 6]]
    assert batch["labels"].tolist() == [[-100, 4, -100, -100], [-100, 4, 5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_packed_batch():
    batch = Collator(0, packed=True)([row(2, 1), row(3, 2)])
    assert batch["input_ids"].tolist() == [[1, 4, 1, 0, 0], [1, 4, 5, 1, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1], [0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 2, 3, 5, 8, 10]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert torch.equal(batch["cu_seq_lens_q"], batch["cu_seq_lens_k"])
    assert batch["max_length_q"] == batch["max_length_k"] == 3
    assert "attention_mask" not in batch  # transformers would stop looking for documents


@pytest.mark.parametrize("packed", [True, False])
def test_rows_are_padded_to_a_given_length(packed):
    batch = Collator(9, packed=packed, pad_to=7)([row(3), row(5)])
    assert batch["input_ids"].shape == (2, 7)
    assert batch["input_ids"][0].tolist() == [1, 4, 5, 9, 9, 9, 9]
    assert (batch["labels"][0, 3:] == -100).all()


def test_no_document_is_asked_for_the_next_ones_first_token():
    careless = row(2, 3) | {"labels": np.array([1, 4, 1, 6, 7])}
    assert Collator(0, packed=True)([careless])["labels"].tolist() == [[-100, 4, -100, 6, 7]]


@pytest.mark.parametrize(
    ("collator", "rows", "message"),
    [
        (Collator(0, packed=False), [row(2, 3)], "a row holds 2 documents"),
        (Collator(0, packed=True), [], "no rows"),
        (Collator(0, packed=True, pad_to=4), [row(2), row(5)], "5 tokens .* padded to 4"),
        (Collator(0, packed=True), [row(3) | {"segment_lengths": [2]}], "do not fit together"),
        (Collator(0, packed=True), [row(3) | {"segment_lengths": [3, 0]}], "do not fit together"),
        (Collator(0, packed=True), [row(3) | {"labels": [1]}], "do not fit together"),
    ],
)
def test_rows_that_do_not_fit_are_refused(collator, rows, message):
    with pytest.raises(DataError, match=message):
        collator(rows)


def pool_slowly(rows, hidden, how):
    """The obvious way: walk the rows and their documents."""
    vectors = []
    for index, one in enumerate(rows):
        start = 0
        for n in one["segment_lengths"]:
            part = hidden[index, start : start + n]
            vectors.append(part[-1] if how == "last" else part.mean(dim=0))
            start += n
    return torch.stack(vectors)


@pytest.mark.parametrize("how", ["last", "mean"])
@pytest.mark.parametrize("packed", [True, False])
def test_pooling_equals_the_slow_way(packed, how):
    torch.manual_seed(0)
    rows = [row(2, 3, 1), row(6), row(1, 1, 2)] if packed else [row(2), row(6), row(1)]
    batch = Collator(0, packed=packed, pad_to=8)(rows)
    hidden = torch.randn(3, 8, 4)
    padding = batch["input_ids"] == 0
    hidden[padding] = torch.nan  # whatever stands in the padding must not matter
    pooled = pool_hidden(hidden, batch, how=how)
    torch.testing.assert_close(pooled, pool_slowly(rows, hidden, how))


def test_the_last_real_token_is_found_beside_left_padding_too():
    hidden = torch.arange(4.0).view(1, 4, 1)
    batch = {"attention_mask": torch.tensor([[0, 0, 1, 1]])}
    assert pool_hidden(hidden, batch).item() == 3
    assert pool_hidden(hidden, batch, how="mean").item() == 2.5


def test_the_type_is_kept():
    hidden = torch.ones(1, 3, 2, dtype=torch.bfloat16)
    for packed in (True, False):
        batch = Collator(0, packed=packed)([row(3)])
        for how in ("last", "mean"):
            assert pool_hidden(hidden, batch, how=how).dtype == torch.bfloat16


def test_pooling_refuses_what_it_cannot_answer():
    hidden = torch.zeros(1, 2, 3)
    with pytest.raises(ConfigError, match="no pooling 'first'"):
        pool_hidden(hidden, {}, how="first")
    with pytest.raises(DataError, match="does not say where its documents are"):
        pool_hidden(hidden, {"input_ids": torch.zeros(1, 2)})
    with pytest.raises(DataError, match="all padding"):
        pool_hidden(hidden, {"attention_mask": torch.zeros(1, 2, dtype=torch.long)})
