import pytest

from domainformer.reports.markup import bullets, distinct, escape, facts, shorten, table, tag


@pytest.mark.parametrize("text", ["<script>", "a & b", '"quoted"', "'single'", "</td>"])
def test_everything_but_markup_is_escaped(text):
    for drawn in (tag("p", text), tag("p", title=text), table([text], [[text]]), bullets([text])):
        assert escape(text) in drawn
        assert text not in drawn.replace("</td></tr>", "")
    assert str(escape(escape(text))) == str(escape(text))


def test_controls_and_direction_marks_become_visible():
    assert escape("a\x00b\u202ec") == "a\ufffdb\ufffdc"
    assert shorten("one\ntwo\tthree") == "one two three"


def test_rows_without_a_value_are_left_out():
    drawn = facts([("a", None), ("b", 0), ("c", "")])
    assert "<dt>b</dt><dd>0</dd>" in drawn
    assert "<dt>a" not in drawn
    assert "<dt>c" not in drawn
    assert bullets([]) == ""


def test_shorten_keeps_the_limit():
    assert len(shorten("x" * 100, 20)) == 20
    assert shorten("short", 20) == "short"
    assert shorten("e\u0301" * 30, 11).endswith("…")


def test_distinct_names_are_distinct():
    names = ["a", "a", "a (2)", "b", "a"]
    assert len(set(distinct(names))) == len(names)
    assert distinct(["a", "b"]) == ["a", "b"]
