import numpy as np
import polars as pl
import pytest

from domainformer.errors import ArtifactError
from domainformer.schema import FieldSpec
from domainformer.tokenizers import EntityFeaturePlan, SemanticIdTokenizer, fit_semantic_ids
from domainformer.tokenizers.semantic.sentences import embed_texts

WORDS = ["[PAD]", "[UNK]", "red", "blue", "green", "grey", "mug", "scarf", "lamp", "chair"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny encoder with random weights, saved as any model is."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("sentences") / "model"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def test_vectors_are_means_over_tokens_whatever_the_batch(model):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["red mug", None, "blue", "", "grey scarf lamp chair red", "new words"]
    found = embed_texts(texts, model)
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model)
    for text, vector in zip(texts, found, strict=True):
        if not text:
            assert not vector.any()
            continue
        with torch.no_grad():
            hidden = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden.mean(dim=0).numpy(), atol=1e-5)


def test_ids_from_sentences_and_new_ones_after_loading(items, model, tmp_path):
    spec = FieldSpec("product", "categorical_entity", semantic_levels=1, semantic_codes=4)
    plan = EntityFeaturePlan(text=("title",), text_model=model)
    found = fit_semantic_ids(None, spec, items=items, method="kmeans", plan=plan)
    assert found.report.features == {"text": 8}
    loaded = SemanticIdTokenizer.load(found.tokenizer.save(tmp_path / "ids"))
    twins = items[:5].with_columns(product="new " + pl.col("product"))
    assert loaded.with_entities(twins).state() == found.tokenizer.with_entities(twins).state()


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be loaded as a sentence-embedding model"):
        embed_texts(["a"], tmp_path)
