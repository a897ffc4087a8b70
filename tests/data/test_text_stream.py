"""stream_texts: the same characters as read_texts, in parts, and the same errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.text import read_texts
from domainformer.data.text_stream import last_cut, stream_texts
from domainformer.errors import DataError


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab é漢🐈 \n\t\ufeff"), min_size=1),
    part=st.integers(1, 9),
    mark=st.booleans(),
)
def test_parts_make_the_file(tmp_path_factory, text, part, mark):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text(text, "utf-8-sig" if mark else "utf-8", newline="")
    if not mark and text.startswith("\ufeff"):
        return  # a mark of its own, which reading takes away
    (whole,) = read_texts(folder)
    parts = list(stream_texts(folder, part=part))
    assert "".join(item.text for item in parts) == whole.text == text
    assert all(text[item.start :].startswith(item.text) for item in parts)
    assert {item.name for item in parts} == {"a.txt"}


def test_long_texts_are_cut_where_there_is_a_place():
    text = "one two" + "x" * 5_000
    assert last_cut(text) == 3
    assert last_cut("x" * 5_000) is None
    assert last_cut("a b c", 0, 2) == 1
    assert last_cut("a b c", 2) == 3


@pytest.mark.parametrize("part", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("data", [b"one\ntwo\nna\xefve\n", b"a b\ncut \xe6\xbc", b"\xff"])
def test_errors_name_the_same_place(tmp_path, data, mark, part):
    path = tmp_path / "latin.txt"
    path.write_bytes(mark + data)
    with pytest.raises(DataError) as whole:
        read_texts(path)
    with pytest.raises(DataError) as streamed:
        list(stream_texts(path, part=part))
    assert streamed.value.where == whole.value.where
    bad = next(i for i, byte in enumerate(data) if byte in (0xEF, 0xE6, 0xFF))
    assert f"byte {bad + len(mark) + 1:,} " in str(streamed.value)


def test_an_empty_file_is_told(tmp_path):
    for name, data in (("a.txt", b""), ("b.txt", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="is empty"):
            list(stream_texts(tmp_path / name))
    with pytest.raises(DataError, match="there is no file or folder"):
        list(stream_texts(tmp_path / "nothing"))
