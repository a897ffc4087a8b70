import json

import numpy as np
import polars as pl
import pytest

from domainformer.artifacts import write_json
from domainformer.errors import ArtifactError
from domainformer.tokenizers import SemanticIdTokenizer, fit_semantic_ids
from domainformer.tokenizers.semantic import RQVAESettings


def test_a_saved_tokenizer_codes_new_entities_alike(items, found, tmp_path):
    folder = found.tokenizer.save(tmp_path / "ids")
    loaded = SemanticIdTokenizer.load(folder)
    assert loaded.spec == found.tokenizer.spec
    assert loaded.state() == found.tokenizer.state()
    twins = items.with_columns(product="twin of " + pl.col("product"))
    grown = loaded.with_entities(twins)
    assert grown.state() == found.tokenizer.with_entities(twins).state()
    again = SemanticIdTokenizer.load(grown.save(tmp_path / "grown"))
    assert again.state() == grown.state()
    assert {path.name for path in folder.iterdir()} == {
        "semantic_ids.json",
        "model.safetensors",
        "manifest.json",
    }


def test_an_encoder_is_saved_too(items, found, tmp_path):
    settings = RQVAESettings(hidden=(16,), latent=4, epochs=10, reset_every=2)
    rqvae = fit_semantic_ids(
        None, found.tokenizer.spec, items=items, settings=settings, least_usage=0.5
    ).tokenizer
    loaded = SemanticIdTokenizer.load(rqvae.save(tmp_path / "ids"))
    vectors = rqvae.model.features.read(items)
    assert len(loaded.model.quantizer.layers) == 2
    np.testing.assert_array_equal(loaded.model.features.read(items), vectors)
    np.testing.assert_array_equal(
        loaded.model.quantizer.codes(vectors), rqvae.model.quantizer.codes(vectors)
    )


def test_codes_from_elsewhere_are_saved_without_a_model(found, tmp_path):
    bare = found.tokenizer.with_model(None)
    loaded = SemanticIdTokenizer.load(bare.save(tmp_path / "ids"))
    assert loaded.model is None
    assert loaded.state() == bare.state()


def test_an_existing_folder_is_only_replaced_on_request(found, tmp_path):
    folder = found.tokenizer.save(tmp_path / "ids")
    with pytest.raises(ArtifactError, match="exists already"):
        found.tokenizer.save(folder)
    found.tokenizer.save(folder, overwrite=True)


def test_what_is_missing_changed_or_newer_is_told(found, tmp_path):
    with pytest.raises(ArtifactError, match="no folder"):
        SemanticIdTokenizer.load(tmp_path / "nowhere")
    for name in ("model.safetensors", "semantic_ids.json"):
        folder = found.tokenizer.save(tmp_path / "ids", overwrite=True)
        (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"?")
        with pytest.raises(ArtifactError, match="damaged"):
            SemanticIdTokenizer.load(folder)
        (folder / name).unlink()
        with pytest.raises(ArtifactError, match="incomplete"):
            SemanticIdTokenizer.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"ids": {}}, "cannot be read"),
        ({"field": {"name": "product", "field_type": "sign"}}, "no semantic levels|cannot be read"),
    ],
)
def test_folders_that_were_not_written_by_this_version(found, tmp_path, change, message):
    from domainformer.artifacts import staged_directory

    source = found.tokenizer.save(tmp_path / "ids")
    state = json.loads((source / "semantic_ids.json").read_text()) | change
    folder = tmp_path / "other"
    with staged_directory(folder, meta={"kind": "domainformer.semantic_ids"}) as staging:
        write_json(staging / "semantic_ids.json", state)
        (staging / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=message):
        SemanticIdTokenizer.load(folder)


def test_a_folder_of_something_else(tmp_path):
    from domainformer.artifacts import staged_directory

    with staged_directory(tmp_path / "other", meta={"kind": "x"}) as staging:
        (staging / "a.txt").write_text("a")
    with pytest.raises(ArtifactError, match="holds no semantic ids"):
        SemanticIdTokenizer.load(tmp_path / "other")
