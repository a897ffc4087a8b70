"""Scripted interviews: whatever is answered ends in a configuration that loads, or in an error."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.config import load_config
from domainformer.errors import ConfigError, DataError, DomainformerError, SchemaError
from domainformer.schema import DomainSchema
from domainformer.start import begin, look
from domainformer.training import RunConfig, pretrain
from domainformer.training.language import TextRunConfig, train

TINY = ("model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",)
FEW_TOKENS = "3000"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table, a text, a table whose columns say nothing, and a format not read."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    start = np.datetime64("2024-01-01", "D")
    table = pl.DataFrame(
        {
            "client_id": rng.integers(0, 12, 240),
            "date": start + rng.integers(0, 90, 240).astype("timedelta64[D]"),
            "kind": rng.choice(["a", "b", "c"], 240),
            "amount": rng.normal(10, 4, 240).round(2),
        }
    )
    table = table.with_columns(label=pl.col("client_id") % 2)
    table.write_parquet(folder / "cards.parquet")
    table.rename({"client_id": "who", "date": "when"}).write_csv(folder / "unnamed.csv")
    (folder / "poem.txt").write_text("to be or not to be, that is the question. " * 20 + "à")
    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    return folder


class Script:
    """Answers in order; what was asked and told is kept."""

    def __init__(self, *answers):
        self.answers, self.asked, self.told = iter(answers), [], []

    def __call__(self, question, number):
        self.asked.append(question.key)
        self.number = number
        try:
            answer = next(self.answers)
        except StopIteration:
            raise EOFError from None
        if isinstance(answer, type):
            raise answer
        return answer

    def begin(self, *arguments, **options):
        return begin(*arguments, ask=self, tell=self.told.append, **options)


def _events(written, *overrides):
    return load_config(RunConfig, written.config, overrides)


def _text(written, *overrides):
    return load_config(TextRunConfig, written.config, overrides)


def test_enter_takes_what_was_found_in_a_table(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    script = Script("cards.parquet", "", "", "", "", "")
    written = script.begin(None, tmp_path)
    assert script.asked == ["data", "entity", "time", "label", "split", "size"]
    assert (written.kind, written.questions) == ("pretrain", 6)
    config = _events(written)
    assert (config.data.entity, config.data.time, config.data.label) == (
        "client_id",
        "date",
        "label",
    )
    assert config.split.kind == "time"
    assert config.schema == str(written.schema)
    assert "label" not in DomainSchema.from_yaml(written.schema).columns
    assert written.command == f"domainformer pretrain {written.config}"


def test_enter_takes_what_was_found_in_a_text(place, tmp_path):
    script = Script("", "", "", "")
    written = script.begin(place / "poem.txt", tmp_path)
    assert script.asked == ["tokenizer", "unknown", "context", "size"]
    assert (written.kind, written.schema) == ("train", None)
    config = _text(written)
    # The one letter beyond ASCII became a question mark, which the training text has not.
    assert (config.data.unknown, config.tokenizer.alphabet) == ("replace", "ascii")
    assert config.training.context == 64


def test_without_questions_the_same_is_written(place, tmp_path):
    asked = Script("", "", "", "", "").begin(place / "cards.parquet", tmp_path / "a")
    silent = begin(place / "cards.parquet", tmp_path / "b")
    assert silent.questions == 0
    texts = [one.config.read_text().replace("/a/", "/b/") for one in (asked, silent)]
    assert texts[0] == texts[1]
    assert asked.schema.read_text() == silent.schema.read_text()


@pytest.mark.parametrize(
    ("data", "answers", "reason"),
    [
        ("unnamed.csv", ["", "who", "when", "", "", ""], "an answer is needed"),
        ("unnamed.csv", ["whoo", "who", "when", "", "", ""], "did you mean 'who'?"),
        ("unnamed.csv", ["who", "who", "when", "", "", ""], "is the entity already"),
        ("unnamed.csv", ["who", "kind", "when", "", "", ""], "holds times as text"),
        (
            "unnamed.csv",
            ["who", "when", "when", "label", "", ""],
            "entity or the time already",
        ),
        (
            "unnamed.csv",
            ["who", "when", "none", "", "", ""],
            "left out whatever you answer",
        ),
        (
            "unnamed.csv",
            ["who", "when", "", "month", "time", ""],
            "'month' is no answer",
        ),
        (
            "unnamed.csv",
            ["who", "none", "", "time", "entity", ""],
            "only the order of rows",
        ),
        ("unnamed.csv", ["who", "when", "", "", "many", "quick"], "choose one of"),
        ("unnamed.csv", ["who", "when", "", "", "0", "7"], "at least one token"),
        ("unnamed.csv", ["who", "when", "", "", "7.5", "7"], "is no whole number"),
        ("poem.txt", ["nowhere", "characters", "", "", ""], "there is no tokenizer in"),
        ("poem.txt", ["", "keep", "drop", "", ""], "'keep' is no answer"),
        ("poem.txt", ["", "", "5", "100000", "16", "quick"], "must lie between 8 and"),
    ],
)
def test_a_wrong_answer_is_asked_again_with_the_reason(place, tmp_path, data, answers, reason):
    script = Script(*answers)
    written = script.begin(place / data, tmp_path)
    assert any(reason in line for line in script.told), script.told
    assert written.questions < len(script.asked)
    _events(written) if written.kind == "pretrain" else _text(written)


def test_a_wrong_path_is_asked_again(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    script = Script("card.parquet", "rows.jsonl", "poem.txt", "", "", "", "")
    assert script.begin(None, tmp_path).kind == "train"
    assert "did you mean 'cards.parquet'?" in script.told[0]
    assert "neither a table that can be read nor plain text" in script.told[1]


ANYTHING = st.sampled_from(
    [
        "",
        "",
        "",
        "who",
        "when",
        "kind",
        "client_id",
        "date",
        "label",
        "none",
        "amount",
        "time",
    ]
    + [
        "entity",
        "quick",
        "100",
        "0",
        "-1",
        "16",
        "characters",
        "drop",
        "¼",
        "²",
        "\x00",
        "nan",
    ]
    + [
        "cards.parquet",
        "unnamed.csv",
        "poem.txt",
        "rows.jsonl",
        ".",
        "*",
        "a\nb",
        "x" * 300,
    ]
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.sampled_from([None, "cards.parquet", "unnamed.csv", "poem.txt", "rows.jsonl", "."]),
    answers=st.lists(ANYTHING, max_size=14),
)
def test_any_answers_end_in_what_loads_or_in_an_error(
    place, tmp_path_factory, monkeypatch, data, answers
):
    monkeypatch.chdir(place)
    folder = tmp_path_factory.mktemp("any") / "out"
    script = Script(*answers)
    try:
        written = script.begin(data, folder)
    except DomainformerError:
        assert not folder.exists()
        return
    assert written.questions <= 6
    if written.kind == "train":
        assert _text(written).data.path
    else:
        DomainSchema.from_yaml(_events(written).schema).check(
            look(_events(written).data.path).frame.columns
        )


@pytest.mark.parametrize("ending", [KeyboardInterrupt, EOFError])
@pytest.mark.parametrize("number", range(5))
def test_who_leaves_leaves_nothing_behind(place, tmp_path, ending, number):
    script = Script(*[""] * number, ending)
    with pytest.raises((KeyboardInterrupt, ConfigError)) as caught:
        script.begin(place / "cards.parquet", tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())
    if ending is EOFError:
        assert "the answers ended at the question" in str(caught.value)


def test_what_exists_is_kept_and_told_before_anything_is_asked(place, tmp_path):
    (tmp_path / "run.yaml").write_text("mine")
    script = Script()
    with pytest.raises(ConfigError, match="exists already"):
        script.begin(place / "cards.parquet", tmp_path)
    assert not script.asked
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    written = begin(place / "cards.parquet", tmp_path, overwrite=True)
    assert _events(written).data.entity == "client_id"


@pytest.mark.parametrize(
    ("data", "given", "error", "message"),
    [
        ("cards.parquet", {"label": "lable"}, SchemaError, "did you mean 'label'?"),
        (
            "cards.parquet",
            {"context": "64"},
            ConfigError,
            "--context is of no use here",
        ),
        ("poem.txt", {"entity": "who"}, ConfigError, "--entity is of no use here"),
        ("unnamed.csv", {}, ConfigError, "pass --entity"),
        (
            "unnamed.csv",
            {"entity": "who", "time": "whe"},
            SchemaError,
            "did you mean 'when'?",
        ),
        ("rows.jsonl", {}, DataError, "convert it"),
        ("nothing.csv", {}, DataError, "there is no file"),
    ],
)
def test_without_questions_what_is_missing_is_told(place, tmp_path, data, given, error, message):
    with pytest.raises(error, match=message):
        begin(place / data, tmp_path / "out", given=given)
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_too_short_is_told_before_anything_is_asked(tmp_path):
    (tmp_path / "a.txt").write_text("to be")
    script = Script()
    with pytest.raises(DataError, match="too short"):
        script.begin(tmp_path / "a.txt", tmp_path)
    assert not script.asked


def test_several_texts_go_together_and_signs_of_a_path_are_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "${texts}"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("not to be. " * 12)
    written = begin(folder, tmp_path, given={"size": FEW_TOKENS, "context": "16"})
    assert _text(written).data.cross_documents
    monkeypatch.chdir(tmp_path)
    done = train(_text(written, *TINY, "sampling.every=0", "training.quiet=true"))
    assert (done.model_dir / "model.safetensors").is_file()


def test_the_written_configuration_of_a_table_runs(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = begin(place / "cards.parquet", "out", given={"size": FEW_TOKENS})
    done = pretrain(_events(written, *TINY, "tokenizer.bpe_vocab_size=256", "training.quiet=true"))
    assert (done.model_dir / "model.safetensors").is_file()
