"""Statistics as bytes: nothing but what was written is read."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import ArtifactError
from domainformer.tokenizers.statistics import codec
from domainformer.tokenizers.statistics.base import pack_texts, unpack_texts

DATA = codec.encode({"a": ["b", 1]}, [np.array([1, -2]), np.array([0.5]), np.array([7], np.uint8)])


def test_arrays_and_header_come_back():
    header, arrays = codec.decode(DATA)
    assert header == {"a": ["b", 1]}
    assert [array.tolist() for array in arrays] == [[1, -2], [0.5], [7]]


@pytest.mark.parametrize("position", range(0, len(DATA), 3))
def test_a_changed_byte_is_noticed(position):
    changed = bytearray(DATA)
    changed[position] ^= 0x20
    with pytest.raises(ArtifactError):
        codec.decode(bytes(changed))


@pytest.mark.parametrize("length", [0, 4, 8, 12, 16, 24, len(DATA) - 1])
def test_cut_bytes_are_refused(length):
    with pytest.raises(ArtifactError):
        codec.decode(DATA[:length])


@pytest.mark.parametrize("foreign", [b"PAR1" * 20, b"\x80\x05pickle" * 9, "text", None])
def test_foreign_bytes_are_refused(foreign):
    with pytest.raises(ArtifactError, match="no fit statistics"):
        codec.decode(foreign)


def test_a_newer_format_is_named():
    with pytest.raises(ArtifactError, match="another version"):
        codec.decode(codec.MAGIC[:-1] + b"9" + DATA[8:])


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back(texts):
    assert unpack_texts(pack_texts(pl.Series(texts, dtype=pl.String))).to_list() == texts


@pytest.mark.parametrize(
    "wrong", [{"lengths": [2]}, {"lengths": [-1, 4]}, {"bytes": [255, 254, 253]}]
)
def test_texts_that_are_none_are_refused(wrong):
    packed = {"lengths": [1, 2], "bytes": [97, 98, 99], **wrong}
    arrays = {"lengths": np.array(packed["lengths"]), "bytes": np.array(packed["bytes"], np.uint8)}
    with pytest.raises(ValueError):
        unpack_texts(arrays)
