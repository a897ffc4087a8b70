import json
import shutil

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainformer.artifacts import MANIFEST, sha256_file
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.inference import is_bundle, load_bundle, save_bundle
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "shop",
    [FieldSpec("kind", "categorical_fixed"), FieldSpec("price", "numerical_continuous", n_bins=4)],
)
EVENTS = pl.DataFrame({"kind": ["tea", "cake", "tea", "jam"], "price": [2.0, 3.5, 1.0, 9.0]})


def fit(events=EVENTS):
    return DomainTokenizer(SCHEMA).fit(events)


def make(tokenizer, cls=DomainTransformerForCausalLM, **options):
    config = DomainTransformerConfig(
        vocab_size=options.pop("vocab_size", tokenizer.vocab_size),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        **options,
    )
    return cls(config).eval()


@pytest.fixture
def saved(tmp_path):
    tokenizer = fit()
    model = make(tokenizer)
    save_bundle(tmp_path / "model", model, tokenizer, {"context": 32, "steps": 7})
    return tmp_path / "model", model, tokenizer


def test_what_was_saved_is_loaded(saved):
    folder, model, tokenizer = saved
    bundle = load_bundle(folder)
    ids = torch.tensor([[1, 5, 9, 6, 10]])
    assert torch.equal(bundle.model(ids).logits, model(ids).logits)
    assert not bundle.model.training
    assert bundle.language_model is bundle.model
    assert bundle.tokenizer.fingerprint == tokenizer.fingerprint
    assert bundle.schema == SCHEMA
    assert bundle.record == {"context": 32, "steps": 7}
    assert bundle.context == 32
    assert is_bundle(folder)
    assert not is_bundle(folder.parent)


def test_the_context_is_the_models_own_unless_recorded(tmp_path):
    tokenizer = fit()
    save_bundle(tmp_path / "model", make(tokenizer), tokenizer)
    assert load_bundle(tmp_path / "model").context == 64


def test_a_classifier_keeps_its_class_and_head(tmp_path):
    tokenizer = fit()
    model = make(tokenizer, DomainTransformerForSequenceClassification, num_labels=3)
    save_bundle(tmp_path / "model", model, tokenizer)
    loaded = load_bundle(tmp_path / "model").model
    assert type(loaded) is DomainTransformerForSequenceClassification
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    with pytest.raises(ArtifactError, match="does not predict tokens"):
        load_bundle(tmp_path / "model").language_model  # noqa: B018


def test_hugging_face_reads_the_same_folder(saved):
    folder, model, tokenizer = saved
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, model(ids).logits)
    event = {"kind": "cake", "price": 3.5}
    text = AutoTokenizer.from_pretrained(folder)(tokenizer.render_event(event))
    assert text["input_ids"] == tokenizer.encode_event(event)


def test_a_dtype_can_be_asked_for(saved):
    assert load_bundle(saved[0], dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert load_bundle(saved[0]).model.dtype == torch.float32


def test_an_existing_folder_is_replaced_only_on_request(saved):
    folder, model, tokenizer = saved
    with pytest.raises(ArtifactError, match="exists already"):
        save_bundle(folder, model, tokenizer)
    save_bundle(folder, model, tokenizer, {"steps": 8}, overwrite=True)
    assert load_bundle(folder).record == {"steps": 8}


def test_saving_with_another_tokenizer_is_refused(saved, tmp_path):
    _, model, _ = saved
    # As many ids, but another meaning: only the fingerprint tells.
    other = fit(EVENTS.with_columns(kind=pl.Series(["tea", "cake", "tea", "rum"])))
    assert other.vocab_size == model.config.vocab_size
    with pytest.raises(FingerprintError, match="another tokenizer"):
        save_bundle(tmp_path / "mixed", model, other)
    assert not (tmp_path / "mixed").exists()


def test_another_vocabulary_size_is_refused(tmp_path):
    tokenizer = fit()
    model = make(tokenizer, vocab_size=tokenizer.vocab_size + 3)
    with pytest.raises(FingerprintError, match="different vocabularies"):
        save_bundle(tmp_path / "model", model, tokenizer)


def resign(folder):
    """Write the manifest anew, as someone would who swaps files and covers it up."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        size = (folder / name).stat().st_size
        manifest["files"][name] = {"bytes": size, "sha256": sha256_file(folder / name)}
    path.write_text(json.dumps(manifest))


def swap(folder, other, names):
    for name in names:
        shutil.copy(other / name, folder / name)
    resign(folder)


TOKENIZER_FILES = ("tokenizer.json", "domain_tokenizer.json")


@pytest.mark.parametrize("names", [TOKENIZER_FILES, ("config.json",), ("domainformer.json",)])
def test_swapped_parts_are_refused_even_with_a_valid_manifest(saved, tmp_path, names):
    other = fit(EVENTS.with_columns(kind=pl.Series(["tea", "cake", "tea", "rum"])))
    save_bundle(tmp_path / "other", make(other), other)
    swap(saved[0], tmp_path / "other", names)
    with pytest.raises(FingerprintError, match="another tokenizer"):
        load_bundle(saved[0])


def test_swapping_nothing_is_accepted(saved):
    """The twin of the test above: it is the swap that is refused, not the new manifest."""
    resign(saved[0])
    load_bundle(saved[0])


@pytest.mark.parametrize("name", ["model.safetensors", "domainformer.json", "tokenizer.json"])
def test_damage_is_found(saved, name):
    path = saved[0] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"damaged|cannot be read"):
        load_bundle(saved[0])


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(ArtifactError, match="no folder"):
        load_bundle(tmp_path / "nowhere")
    fit().save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ArtifactError, match="not a bundle"):
        load_bundle(tmp_path / "tokenizer")


def test_an_unknown_architecture_or_format_is_told(saved):
    path = saved[0] / "domainformer.json"
    facts = json.loads(path.read_text())
    for change, message in (
        ({"architecture": "Nothing"}, "unknown kind"),
        ({"format": 99}, "bundle format 99"),
    ):
        path.write_text(json.dumps({**facts, **change}))
        resign(saved[0])
        with pytest.raises(ArtifactError, match=message):
            load_bundle(saved[0])
