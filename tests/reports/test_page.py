import re
import sys
from html.parser import HTMLParser

import polars as pl
import pytest

from domainformer.errors import ArtifactError, FingerprintError, MissingExtraError
from domainformer.reports import write_report
from domainformer.reports.markup import Markup, escape
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer

VOID = {"meta", "br", "hr", "link", "img"}
SECTIONS = ["data", "tokens", "training", "evaluation", "probe", "map", "next", "identity"]


class Reader(HTMLParser):
    """Collects elements and attributes, and complains where tags do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(source: str) -> Reader:
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert not reader.open, f"never closed: {reader.open}"
    return reader


@pytest.fixture(scope="module")
def page(build_run, inferred) -> str:
    """The page of a full run with a hostile name, told by hostile data."""
    parts = ("store", "metrics", "evaluation", "probe", "embeddings")
    folder = build_run(*parts, name="<b onclick=alert(1)>x")
    path = write_report(folder, inferred=inferred)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_full_page_has_every_section_and_nests(page):
    reader = read(page)
    ids = [value for name, value in reader.attributes if name == "id"]
    assert [one for one in ids if one in SECTIONS] == SECTIONS
    assert len(ids) == len(set(ids))
    text = " ".join(reader.text)
    for expected in (
        "950 k",
        "bf16 autocast",
        "2024-01-01",
        "repeat last",
        "tea & cake",
        "on 1 of 3 positions, given the history alone",
        "3 rows without",
        "Paired differences",
    ):
        assert expected in text


def test_page_neither_loads_nor_runs_anything(page):
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(reader.elements)
    references = [v for n, v in reader.attributes if n in ("href", "src", "xlink:href") and v]
    assert all(reference.startswith("#") for reference in references)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://", without_namespaces)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_hostile_names_stay_text(page):
    reader = read(page)
    assert reader.elements.count("b") == 0
    text = " ".join(reader.text)
    assert "<script>alert('x')</script>" in text
    assert "<b onclick=alert(1)>x" in text


def test_sabotage_markup_that_was_not_escaped_is_caught():
    hostile = "<script>alert(1)</script>"
    assert "script" in read(escape(Markup(hostile))).elements
    assert "script" not in read(escape(hostile)).elements


def test_a_run_that_just_began_gives_a_short_page(build_run):
    source = write_report(build_run()).read_text(encoding="utf-8")
    read(source)
    assert "not split yet" in source
    assert "There are no metrics yet" in source
    assert "domainformer evaluate" in source
    assert "<svg" not in source


@pytest.mark.parametrize(
    ("parts", "present", "absent"),
    [
        (("store",), "Token shares", "Embedding map"),
        (("store", "metrics"), "Tokens per second", "history alone"),
        (("evaluation",), "No probe was run", "Token shares"),
        (("embeddings",), "Embedding map", "Token shares"),
    ],
)
def test_each_part_stands_alone(build_run, parts, present, absent):
    source = write_report(build_run(*parts)).read_text(encoding="utf-8")
    read(source)
    assert present in source
    assert absent not in source


def test_labels_colour_the_map(build_run):
    labels = pl.DataFrame({"client": range(30), "churn": ["stayed", "left"] * 15})
    source = write_report(build_run("embeddings"), labels=labels).read_text(encoding="utf-8")
    assert ">stayed<" in source
    assert ">left<" in source


def test_writing_again_replaces_the_page(build_run):
    folder = build_run()
    first = write_report(folder).read_text()
    assert write_report(folder).read_text().split("Written by")[0] == first.split("Written by")[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(ArtifactError, match="not a run folder"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["evaluation.json", "schema_evidence.json", "embeddings.parquet"])
def test_damaged_parts_are_named_not_skipped(build_run, name):
    folder = build_run("store")
    (folder / name).write_text('{"half')
    with pytest.raises(ArtifactError, match=name.split(".")[0]):
        write_report(folder)


def test_parts_of_different_runs_are_refused(build_run, table):
    one = build_run("store")
    fields = DomainTokenizer.from_pretrained(one / "tokenizer").schema.fields
    tokenizer = DomainTokenizer(DomainSchema("other", fields[:2])).fit(table)
    tokenizer.save_pretrained(one / "tokenizer", overwrite=True)
    with pytest.raises(FingerprintError, match="another tokenizer"):
        write_report(one)


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_missing_extra_is_named(build_run, monkeypatch, package):
    folder = build_run("metrics")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"domainformer\[report\]"):
        write_report(folder)
    assert not (folder / "report.html").exists()
