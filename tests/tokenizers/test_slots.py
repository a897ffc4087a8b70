"""Which id belongs to whom, against a list that is filled one token after the other."""

import numpy as np
import polars as pl
import pytest

from domainformer.errors import TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers.fields import (
    CalendarTokenizer,
    CategoricalTokenizer,
    DiscreteTokenizer,
    SignTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.slots import BPE, GENERIC, Growth, lay_out

PIECES = 7


def fields():
    kind = CategoricalTokenizer(FieldSpec("kind", "categorical_fixed", hash_buckets=1))
    kind = kind.fit(pl.Series(["a"])).extended(pl.Series(["b", "b", "c"]))
    count = DiscreteTokenizer(FieldSpec("count", "numerical_discrete")).fit(pl.Series([5]))
    date = CalendarTokenizer(FieldSpec("day", "temporal", calendar_fields=("dow", "quarter")))
    return [
        kind.extended(pl.Series(["d"])),
        SignTokenizer(FieldSpec("sign", "sign")).fit(pl.Series([1.0])),
        TextTokenizer(FieldSpec("shop", "text")),
        count.extended(pl.Series([3])),
        date.fit(pl.Series([], dtype=pl.Date)),
    ]


GROWTHS = [Growth("one", (2, 0, 0, 0, 0), 2), Growth("two", (1, 0, 0, 1, 0), 0)]


def plain(tokenizers):
    """(owner, local id) of every id: base blocks, base pieces, then each growth."""
    sizes = [len(t.vocab) - sum(g.fields[i] for g in GROWTHS) for i, t in enumerate(tokenizers)]
    owners = [(GENERIC, index) for index in range(4)]
    owners += [(i, local) for i, size in enumerate(sizes) for local in range(size)]
    pieces = PIECES - sum(growth.pieces for growth in GROWTHS)
    owners += [(BPE, 2 + piece) for piece in range(pieces)]
    for growth in GROWTHS:
        for index, count in enumerate(growth.fields):
            owners += [(index, sizes[index] + i) for i in range(count)]
            sizes[index] += count
        owners += [(BPE, 2 + pieces + i) for i in range(growth.pieces)]
        pieces += growth.pieces
    return owners


def test_every_id_has_the_owner_that_the_plain_list_gives():
    tokenizers = fields()
    layout = lay_out(tokenizers, pieces=PIECES, growths=GROWTHS)
    owners = plain(tokenizers)
    assert layout.vocab_size == len(owners)
    vocab = layout.vocabulary([f"piece{i}" for i in range(PIECES)])
    slots = layout.slots
    for index, (owner, local) in enumerate(owners):
        assert layout.local_of_id[index] == local
        if owner < 0:
            assert layout.slot_of_id[index] == owner
            assert owner == GENERIC or vocab[index] == f"piece{local - 2}"
        else:
            assert vocab[index] == tokenizers[owner].vocab[local]
            slot = slots[layout.slot_of_id[index]]
            assert slot.field == tokenizers[owner].spec.name
            assert index in slot
            assert [s for s in slots if index in s] == [slot]
    assert layout.token_ids.tolist() == [i for i, (o, _) in enumerate(owners) if o != BPE]
    assert [vocab[i] for i in layout.token_ids] == list(layout.tokens)


def test_local_and_global_ids_are_each_others_inverse():
    layout = lay_out(fields(), pieces=PIECES, growths=GROWTHS)
    for block in layout.blocks:
        ids = layout.ids_of(block)
        local = np.arange(len(ids))
        assert layout.to_global(block, local).tolist() == ids.tolist()
        assert layout.local_of_id[ids].tolist() == local.tolist()
        own = block.ids
        assert layout.to_local(block, own).tolist() == list(range(len(own)))
        for slot in block.slots:
            assert np.arange(layout.vocab_size)[slot.index].tolist() == slot.ids.tolist()
            assert slot.width == len(slot.ids)
    assert layout.of_pieces(np.arange(PIECES)).tolist() == layout.piece_ids.tolist()


def test_without_extensions_a_slot_is_a_slice():
    layout = lay_out(fields(), pieces=PIECES)
    assert all(isinstance(slot.index, slice) for slot in layout.slots)
    assert layout.pieces == (range(layout.first_bpe, layout.vocab_size),)
    for block in layout.blocks:
        assert block.ids.tolist() == list(range(block.start, block.stop))


def test_pieces_that_are_counted_later_give_the_same_layout():
    late = lay_out(fields(), growths=GROWTHS).with_pieces(PIECES)
    assert late.slots == lay_out(fields(), pieces=PIECES, growths=GROWTHS).slots


@pytest.mark.parametrize("counts", [(1, 0), (99, 0, 0, 0, 0), (-1, 0, 0, 0, 0)])
def test_a_growth_of_other_fields_is_refused(counts):
    with pytest.raises(TokenizerError, match="does not belong to these fields"):
        lay_out(fields(), pieces=PIECES, growths=[Growth("x", counts, 0)])
