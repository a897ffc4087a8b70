"""Raw events or text to answers, equal to the long way; and models wherever they lie."""

import importlib.util

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from domainformer import pipeline
from domainformer.data import EventTable
from domainformer.errors import (
    ConfigError,
    DataError,
    InputError,
    MissingExtraError,
    RegistryError,
    SchemaError,
)
from domainformer.inference import load_bundle, save_bundle
from domainformer.inference.embed import embed
from domainformer.inference.generate import generate
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.pipelines import load_model
from domainformer.registry import Registry
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import CharacterTokenizer, DomainTokenizer

SCHEMA = DomainSchema(
    "shop",
    [FieldSpec("kind", "categorical_fixed"), FieldSpec("price", "numerical_continuous", n_bins=4)],
)
EVENTS = pl.DataFrame(
    {
        "client": ["a", "a", "b", "c", "c", "c"],
        "day": [1, 2, 1, 1, 4, 9],
        "kind": ["tea", "cake", "tea", "jam", "tea", "tea"],
        "price": [2.0, 3.5, 1.0, 9.0, 2.0, 2.5],
    }
)
RECORD = {"data": {"entity": "client", "time": "day"}, "context": 30}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def table():
    return EventTable.of(EVENTS, entity="client", time="day")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, table):
    """A language model of events, a classifier of them, and one of text."""
    root = tmp_path_factory.mktemp("pipelines")
    tokenizer = DomainTokenizer(SCHEMA).fit(table)
    sizes = {**SIZES, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 40}
    torch.manual_seed(0)
    model = DomainTransformerForCausalLM(DomainTransformerConfig(**sizes))
    save_bundle(root / "events", model, tokenizer, RECORD)
    config = DomainTransformerConfig(**sizes, id2label={0: "stays", 1: "goes"})
    classifier = DomainTransformerForSequenceClassification(config)
    save_bundle(root / "classes", classifier, tokenizer, RECORD)
    letters = CharacterTokenizer.ascii()
    config = GPT2Config(vocab_size=letters.vocab_size, n_layer=1, n_embd=8, n_head=2)
    config.bos_token_id = config.eos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(root / "text")
    letters.save_pretrained(root / "letters")
    AutoTokenizer.from_pretrained(root / "letters").save_pretrained(root / "text")
    return root


def test_embedding_is_that_of_the_long_way(folders, table):
    found = pipeline("event-embedding", folders / "events")(table, how="mean")
    expected = embed(load_bundle(folders / "events"), table, how="mean")
    assert found.equals(expected)


@pytest.mark.parametrize("form", ["path", "polars", "pandas", "arrow", "dictionaries", "lazy"])
def test_events_of_any_form_are_the_same_events(folders, table, tmp_path, form):
    path = tmp_path / "events.parquet"
    EVENTS.write_parquet(path)
    given = {
        "path": path,
        "polars": EVENTS,
        "pandas": EVENTS.to_pandas(),
        "arrow": EVENTS.to_arrow(),
        "dictionaries": EVENTS.to_dicts(),
        "lazy": EVENTS.lazy(),
    }[form]
    pipe = pipeline("event-embedding", folders / "events")
    assert np.array_equal(pipe(given)["embedding"].to_numpy(), pipe(table)["embedding"].to_numpy())


def test_other_columns_can_be_named(folders):
    renamed = EVENTS.rename({"client": "who", "day": "when"})
    found = pipeline("event-embedding", folders / "events")(renamed, entity="who", time="when")
    assert found["who"].to_list() == ["a", "b", "c"]


def test_next_events_are_those_of_the_long_way(folders, table):
    found = pipeline("next-event", folders / "events")(table, n_events=2, n_samples=2, seed=3)
    expected = generate(load_bundle(folders / "events"), table, n_events=2, n_samples=2, seed=3)
    assert found.equals(expected)


def test_probabilities_are_those_of_each_history_alone(folders, table):
    """Against the model on one unpadded row at a time."""
    pipe = pipeline("event-classification", folders / "classes")
    found = pipe(EVENTS, batch_tokens=16)
    bundle = load_bundle(folders / "classes")
    events = bundle.encode(table)
    for index, row in enumerate(found.iter_rows(named=True)):
        start, stop = events.entity_offsets[index : index + 2]
        ids = events.ids[events.event_offsets[start] : events.event_offsets[stop]]
        ids = torch.tensor([[bundle.tokenizer.bos_id, *map(int, ids)]])
        with torch.inference_mode():
            expected = bundle.model(input_ids=ids).logits.double().softmax(-1)[0]
        assert row["client"] == table.entity_ids[index]
        assert row["probability_stays"] == pytest.approx(float(expected[0]), abs=1e-6)
        assert row["probability_goes"] == pytest.approx(float(expected[1]), abs=1e-6)


def test_text_goes_on(folders):
    pipe = pipeline("text-generation", folders / "text")
    [found] = pipe("to be", max_new_tokens=3, do_sample=False)
    assert found["generated_text"].startswith("to be")


def test_a_model_is_found_by_its_registered_name(folders, tmp_path):
    Registry(tmp_path / "models").publish(folders / "text", "letters")
    pipe = pipeline("text-generation", "letters", registry=tmp_path / "models")
    assert pipe("a", max_new_tokens=1)
    with pytest.raises(RegistryError, match="did you mean 'letters'"):
        load_model("leters", registry=tmp_path / "models")


def test_options_reach_the_model(folders):
    bundle = load_model(folders / "events", dtype="bfloat16", overrides={"attention_dropout": 0.5})
    assert bundle.model.dtype == torch.bfloat16
    assert bundle.model.config.attention_dropout == 0.5
    adapter = load_model(folders / "text", device_map={"": "meta"})
    assert adapter.model.device.type == "meta"


def test_wrong_options_are_told(folders):
    with pytest.raises(ConfigError, match="did you mean 'attention_dropout'"):
        load_model(folders / "events", overrides={"atention_dropout": 0.5})
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        load_model(folders / "events", dtype="bfloat61")
    with pytest.raises(ConfigError, match="no quantization '2bit'"):
        load_model(folders / "text", quantization="2bit")
    with pytest.raises(RegistryError, match="a folder has no revision"):
        load_model(folders / "text", revision="main")


def test_quantisation_names_its_extra(folders, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"domainformer\[quantization\]"):
        load_model(folders / "text", quantization="4bit")


@pytest.mark.parametrize(
    ("task", "model", "words"),
    [
        ("next-event", "classes", "needs a model that predicts tokens"),
        ("event-classification", "events", "needs a classifier"),
        ("event-embedding", "text", "needs a bundle of events"),
        ("text-generation", "events", "needs a language model with its tokenizer"),
        ("next-events", "events", "did you mean 'next-event'"),
    ],
)
def test_a_model_for_another_task_is_told(folders, task, model, words):
    with pytest.raises(InputError, match=words):
        pipeline(task, folders / model)


def test_events_that_cannot_be_read_are_told(folders):
    pipe = pipeline("event-embedding", folders / "events")
    with pytest.raises(SchemaError, match="there is no column 'kind'"):
        pipe(EVENTS.drop("kind"))
    with pytest.raises(DataError):
        pipe(3)
