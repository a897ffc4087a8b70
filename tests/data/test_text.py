"""Text files: reading, policies, splits; each change counted, each refusal with its place."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import (
    Document,
    TextReport,
    normalise,
    normalise_documents,
    policy_characters,
    read_texts,
    split_text,
    text_fingerprint,
)
from domainformer.errors import ConfigError, DataError

POLICIES = ("printable", "printable+newline+tab")
NASTY = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\r\n\t é’a")))


def oracle(text, policy, unknown):
    """One character after the other: text, line ends, blanks, counts of unknown characters."""
    out, line_ends, blanks, counts, index = [], 0, 0, {}, 0
    while index < len(text):
        char, index = text[index], index + 1
        if char == "\r":
            line_ends, char = line_ends + 1, "\n"
            index += text[index : index + 1] == "\n"
        if char in "\n\t" and policy == "printable":
            blanks, char = blanks + 1, " "
        if char not in policy_characters(policy):
            counts[char] = counts.get(char, 0) + 1
            char = "?" if unknown == "replace" else ""
        out.append(char)
    return "".join(out), line_ends, blanks, counts


# ── normalisation ─────────────────────────────────────────────────────────────────────────────


@settings(max_examples=200, deadline=None)
@given(text=NASTY, policy=st.sampled_from(POLICIES), unknown=st.sampled_from(["replace", "drop"]))
def test_normalising_equals_the_slow_way(text, policy, unknown):
    done, report = normalise(text, policy, unknown)
    expected, line_ends, blanks, counts = oracle(text, policy, unknown)
    assert done == expected
    assert (report.characters, report.line_ends, report.blanks) == (len(text), line_ends, blanks)
    assert report.replaced == (counts if unknown == "replace" else {})
    assert report.dropped == (counts if unknown == "drop" else {})
    assert report.changes == line_ends + blanks + sum(counts.values())
    assert set(done) <= set(policy_characters(policy))
    assert normalise(done, policy) == (done, TextReport(len(done)))  # nothing is left to do


@settings(max_examples=100, deadline=None)
@given(text=NASTY)
def test_strict_changes_nothing_or_refuses(text):
    if text.isascii():
        assert normalise(text, "strict") == (text, TextReport(len(text)))
        return
    place = next(index for index, char in enumerate(text) if not char.isascii())
    before = text[:place].split("\n")
    with pytest.raises(DataError, match=f"U\\+{ord(text[place]):04X}") as caught:
        normalise(text, "strict", name="poem.txt")
    expected = f"poem.txt, line {len(before)}, column {len(before[-1]) + 1}"
    assert caught.value.where == expected


def test_an_unknown_character_is_an_error_that_names_it():
    with pytest.raises(DataError) as caught:
        normalise("one\r\ntwo \N{EM DASH} thr\N{LATIN SMALL LETTER E WITH ACUTE}e", name="a.txt")
    error = caught.value
    assert error.what == "the text holds '—' U+2014 EM DASH"
    assert error.where == "a.txt, line 2, column 5"
    assert error.why.endswith("; the text has 2 such characters")
    assert "replace" in error.next_step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "printible"), "did you mean 'printable'"),
        (("a", "printable", "replaced"), "did you mean 'replace'"),
        (("a", "strict", "drop"), "exclude each other"),
    ],
)
def test_unknown_policies_and_treatments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        normalise(*arguments)


def test_reports_of_documents_add_up():
    documents = [Document("a", "x\r\né"), Document("b", "éê\ty", start=7)]
    done, report = normalise_documents(documents, "printable", "replace")
    assert done == [Document("a", "x ?"), Document("b", "?? y", start=7)]
    assert report == TextReport(8, 1, 2, {"é": 2, "ê": 1})
    assert report.to_json()["replaced"] == {"é": 2, "ê": 1}
    assert report.render().startswith("8 characters: 1 line end, 2 blanks, 3 replaced ('é' U+00E9")
    assert TextReport(1).render() == "1 character: nothing changed"
    many = TextReport(7, dropped={chr(0x4E00 + index): index + 1 for index in range(7)})
    assert many.render().count("CJK") == 5
    assert many.render().endswith("…)")
    with pytest.raises(DataError, match="where: b, line 1"):
        normalise_documents([Document("a", "x"), Document("b", "é")])


# ── reading ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def books(tmp_path):
    for name, text in {
        "b.txt": "b",
        "a.md": "a",
        "in/c.txt": "c\r\n",
        "in/deep/d.txt": "\ufeffd",
        ".hidden/e.txt": "e",
        "in/.f.txt": "f",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def test_files_folders_and_patterns_are_read_in_order(books):
    assert read_texts(books / "a.md") == [Document("a.md", "a")]
    everything = [("b.txt", "b"), ("in/c.txt", "c\r\n"), ("in/deep/d.txt", "d")]
    assert [(document.name, document.text) for document in read_texts(str(books))] == everything
    assert [document.name for document in read_texts(f"{books}/*.*")] == ["a.md", "b.txt"]
    deep = read_texts(books / "in" / "**" / "*.txt")
    assert [document.name for document in deep] == ["c.txt", "deep/d.txt"]


def test_a_path_with_magic_characters_is_a_path_first(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert read_texts(tmp_path / "a[1].txt") == [Document("a[1].txt", "x")]


def test_what_cannot_be_read_is_refused(books):
    with pytest.raises(DataError, match="no file or folder"):
        read_texts(books / "nothing.txt")
    with pytest.raises(DataError, match=r"no file matches \*\.rst"):
        read_texts(books / "*.rst")
    (books / "empty.txt").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_texts(books)
    (books / "empty.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"line 2, byte 9 of the file\n.*0xe9"):
        read_texts(books)


# ── splitting ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
def test_by_position_each_document_is_cut(fraction):
    text = "".join(random.Random(3).choices("abc ", k=997))
    train, validation = split_text(
        [Document("x", text), Document("y", text[:10])], "position", fraction
    )
    cut = int((1 - fraction) * 997)
    assert train[0] == Document("x", text[:cut])
    assert validation[0] == Document("x", text[cut:], start=cut)
    again = split_text(train[:1], fraction=fraction)[1][0]
    assert text[again.start :].startswith(again.text)
    assert [document.name for document in train] == [document.name for document in validation]


def test_by_document_the_draw_follows_the_seed_and_keeps_copies_together():
    documents = [Document(f"{index}", f"text {index % 15}") for index in range(20)]
    draws = set()
    for seed in range(8):
        train, validation = split_text(documents, by="document", fraction=0.2, seed=seed)
        assert sorted(train + validation) == sorted(documents)
        assert train == sorted(train, key=documents.index)
        assert not {text for _, text, _ in train} & {text for _, text, _ in validation}
        assert len({text for _, text, _ in validation}) == 3
        assert split_text(documents, "document", 0.2, seed) == (train, validation)
        draws.add(tuple(validation))
    assert len(draws) > 5


@pytest.mark.parametrize(
    ("documents", "arguments", "error", "message"),
    [
        (["ab"], {"by": "line"}, ConfigError, "no split by 'line'"),
        (["ab"], {"fraction": 0.0}, ConfigError, "between 0 and 1"),
        (["ab"], {"fraction": 1.0}, ConfigError, "between 0 and 1"),
        ([], {}, DataError, "no documents"),
        (["a"], {}, DataError, "too short to be split"),
        (["ab"], {"by": "document"}, DataError, "of 1 there is 1 distinct"),
        (["ab", "ab"], {"by": "document"}, DataError, "of 2 there are 1 distinct"),
    ],
)
def test_what_cannot_be_split_is_refused(documents, arguments, error, message):
    documents = [Document(str(index), text) for index, text in enumerate(documents)]
    with pytest.raises(error, match=message):
        split_text(documents, **arguments)


def test_fingerprints_see_every_change():
    documents = [Document("a", "one"), Document("b", "two")]
    changed = [
        documents[::-1],
        documents[:1],
        [Document("a", "onetwo")],
        [Document("a", "one"), Document("b", "twO")],
        [Document("a", "on"), Document("b", "etwo")],
    ]
    names = {text_fingerprint(each) for each in [documents, *changed]}
    assert len(names) == 6
    assert text_fingerprint([Document("z", "one"), Document("y", "two")]) in names


# ── real text ─────────────────────────────────────────────────────────────────────────────────


def test_tinyshakespeare_is_split_as_nanogpt_splits_it(data_root):
    (document,) = read_texts(data_root / "text" / "tinyshakespeare.txt")
    text, report = normalise(document.text)
    assert report == TextReport(1_115_394)
    (train,), (validation,) = split_text([document._replace(text=text)])
    assert (len(train.text), len(validation.text)) == (1_003_854, 111_540)
    assert validation.start == int(0.9 * len(text))
    assert train.text + validation.text == text
