"""The page of a language model's run: from a trained one to a folder with nothing but run.json."""

import json
import shutil
from html.parser import HTMLParser

import pytest
import torch

from domainformer.config import build
from domainformer.errors import ArtifactError
from domainformer.reports import write_report
from domainformer.run import start_run
from domainformer.training.language import TextRunConfig, train

EVIL = "<script>alert('x')</script>"
SECTIONS = ["scores", "samples", "training", "data", "model", "next", "identity"]
VOID = {"meta", "br", "hr", "link", "img"}


class Reader(HTMLParser):
    """Collects elements, attributes and text by element; complains where tags do not nest."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.attributes, self.text, self.pre = [], [], [], "", []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "pre" in self.open:
            self.pre[-1] += data


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def page_of(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run over hostile text, with rules that tell numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    (root / "play.txt").write_text(f"To be, or not\u00e9 to be. {EVIL}\r\n" * 40, newline="")
    config = {
        "data": {"path": str(root / "play.txt"), "unknown": "replace"},
        "model": {"overrides": {"hidden_size": 16, "num_hidden_layers": 1}},
        "training": {
            "context": 16,
            "batch_tokens": 128,
            "max_steps": 8,
            "eval_every": 2,
            "log_every": 1,
            "precision": "fp32",
            "quiet": True,
        },
        "rules": ["z_loss", {"activation_recorder": {"every": 2}}],
        "sampling": {"tokens": 9, "every": 2, "prompts": [EVIL, "To be"]},
        "output": {"root": str(root), "name": "hostile"},
    }
    yield train(build(TextRunConfig, config))
    torch.set_num_threads(before)


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained.run_dir, tmp_path / "copy")


@pytest.fixture(scope="module")
def page(trained):
    return page_of(trained.run_dir)


def test_every_section_is_there_and_tells_the_run(trained, page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert [one for one in ids if one in SECTIONS] == SECTIONS
    assert len(ids) == len(set(ids))
    metrics, record = trained.metrics, trained.record
    for told in (
        f"{metrics['nats']:.4f}",
        f"{metrics['bits_per_character']:.4f}",
        f"{metrics['unigram_nats']:.4f}",
        "frequencies of characters alone",
        "a uniform guess among",
        "40 replaced ('é' 40)",
        "40 line ends",
        f"{record.split['train_characters']:,}",
        "DomainTransformerForCausalLM",
        "one token per character",
        "printable ASCII, newline, tab",
        "Keep the normaliser of the softmax near 1",
        "8 of 8",
        record.identity.code,
        record.tokenizer_fingerprint,
    ):
        assert told in page.text, told
    drawn = {"Loss", "Learning rate", "Tokens per second", "Gradient norm"}
    assert all(title in page.text for title in drawn)
    rule_numbers = json_lines(trained.run_dir / "metrics.jsonl")
    told = {key.removeprefix("rule_") for row in rule_numbers for key in row if "rule_" in key}
    assert told
    assert all(name[-39:] in page.text for name in told)


def test_text_of_the_run_stays_text_and_nothing_loads(page):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert any(one.startswith(EVIL) for one in page.pre)
    references = [value for name, value in page.attributes if name in ("href", "src")]
    assert all(reference.startswith("#") for reference in references)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_samples_are_shown_letter_by_letter(trained, page):
    samples = json_lines(trained.run_dir / "samples.jsonl")
    assert len(samples) == 8
    assert all(one["text"] in page.pre for one in samples)
    assert f"Step {samples[-1]['step']}" in page.text


def test_a_newline_at_the_beginning_and_a_foreign_prompt_are_kept(copied):
    texts = [("", "\n\nfirst"), ("gone", "the prompt is not in it")]
    lines = [json.dumps({"step": 1, "prompt": a, "text": b}) + "\n" for a, b in texts]
    (copied / "samples.jsonl").write_text("".join(lines) + '{"step": 2, "pro')
    found = page_of(copied)
    # Browsers drop a newline right behind <pre>: an element stands between.
    assert '<pre class="sample"><b></b>\n\nfirst' in (copied / "report.html").read_text()
    assert "the prompt is not in it" in found.pre
    assert "Without a prompt" in found.text


def test_of_many_samples_some_are_shown_and_the_rest_is_counted(copied):
    lines = [json.dumps({"step": n, "prompt": "a", "text": f"a{n}."}) for n in range(1, 41)]
    (copied / "samples.jsonl").write_text("\n".join(lines))
    found = page_of(copied)
    assert {"a1.", "a39.", "a40."} <= set(found.pre)
    assert "12 of 39 earlier texts" in found.text


def test_many_numbers_of_rules_are_named_where_they_are_not_drawn(copied):
    with (copied / "metrics.jsonl").open("a") as handle:
        handle.write(json.dumps({"step": 9, **{f"rule_r_{n}": n for n in range(40)}}) + "\n")
    text = page_of(copied).text
    assert "further numbers of rules" in text
    assert "rule_r_39: in metrics.jsonl" in text


@pytest.mark.parametrize("part", ["samples.jsonl", "metrics.jsonl", "tokenizer", "model"])
def test_a_run_without_a_part_still_has_a_page(copied, part):
    path = copied / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = page_of(copied)
    missing = {"samples.jsonl": "not written anything yet", "metrics.jsonl": "no metrics yet"}
    assert missing.get(part, "Run identity") in found.text


def test_a_run_that_was_stopped_tells_how_to_go_on(copied):
    path = copied / "run.json"
    record = json.loads(path.read_text())
    record |= {"status": "interrupted", "results": None, "finished": None, "resumed": [4]}
    path.write_text(json.dumps(record))
    shutil.rmtree(copied / "model")
    text = page_of(copied).text
    assert "Best validation loss so far" in text
    assert "training.resume=true" in text
    assert "taken up again at steps" in text
    assert "domainformer sample" not in text
    assert "one token per character" in text  # from the run's tokenizer
    assert "learned" in text  # from the checkpoint's config.json


def test_a_run_that_just_began_has_a_short_page(tmp_path):
    config = {"data": {"path": "a.txt"}, "rules": ["muon", {"mine": {"x": EVIL}}], "sampling": {}}
    run = start_run(tmp_path, EVIL.replace("/", ""), kind="train", config=config)
    found = page_of(run.directory)
    for told in ("not read yet", "Not built yet", "no metrics yet", "not written anything yet"):
        assert told in found.text
    assert "a rule of your own" in found.text
    assert f"output.name='{run.record.name}".split("'")[0] in found.text
    assert not {"script", "svg"} & set(found.elements)


def test_a_model_that_was_trained_further_names_its_parent(copied):
    path = copied / "run.json"
    record = json.loads(path.read_text())
    record["config"]["model_name"] = "base"
    record["resolved"]["parent"] = {"model_name": "base", "model_id": "0123abcd"}
    path.write_text(json.dumps(record))
    config = {"model_type": "gpt2", "n_layer": 7, "n_head": 11, "n_embd": 22}
    (copied / "model" / "config.json").write_text(json.dumps(config))
    text = page_of(copied).text
    assert all(told in text for told in ("trained further", "0123abcd", "base", "11", "22"))


def test_damage_is_named_not_skipped(copied):
    (copied / "model" / "config.json").write_text("{half")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        write_report(copied)
