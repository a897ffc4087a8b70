import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from domainformer.models import PRESETS, DomainTransformerConfig, DomainTransformerModel


@pytest.mark.parametrize(
    ("name", "width", "layers", "heads"),
    [
        ("tiny", 128, 4, 4),
        ("24m", 256, 24, 16),
        ("24m-wide-heads", 256, 24, 4),
        ("330m", 1024, 24, 16),
    ],
)
def test_presets_have_the_published_sizes(name, width, layers, heads):
    config = DomainTransformerConfig.preset(name, vocab_size=77)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        width,
        layers,
        heads,
    )
    assert config.vocab_size == 77
    assert config.position_encoding == "none"
    assert config.tie_word_embeddings


def test_every_preset_is_tested():
    assert set(PRESETS) == {"tiny", "24m", "24m-wide-heads", "330m"}


def test_the_inner_width_follows_the_mlp():
    assert DomainTransformerConfig(hidden_size=256, mlp="gelu").intermediate_size == 1024
    # 8/3 × 256 = 682.7, up to a multiple of 64
    assert DomainTransformerConfig(hidden_size=256, mlp="swiglu").intermediate_size == 704
    assert DomainTransformerConfig(intermediate_size=100).intermediate_size == 100


def test_both_mlps_cost_about_the_same():
    sizes = [
        DomainTransformerModel(DomainTransformerConfig.preset("tiny", mlp=mlp)).num_parameters()
        for mlp in ("gelu", "swiglu")
    ]
    assert sizes[1] / sizes[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"hidden_size": 12, "num_attention_heads": 4, "position_encoding": "rope"}, "odd"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"vocab_size": 0}, "vocab_size must be at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
        ({"norm": "batchnorm"}, "norm"),
        ({"position_encoding": "alibi"}, "position_encoding"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_what_does_not_fit_together_is_refused(values, message):
    with pytest.raises(StrictDataclassError, match=message):
        DomainTransformerConfig(**values)


def test_misspelt_names_get_a_hint():
    with pytest.raises(ValueError, match="did you mean '24m-wide-heads'"):
        DomainTransformerConfig.preset("24m-wide-head")
    with pytest.raises(ValueError, match="did you mean 'hidden_size'"):
        DomainTransformerConfig.preset("tiny", hiden_size=3)


def test_a_preset_takes_what_every_configuration_takes():
    config = DomainTransformerConfig.preset("tiny", num_labels=5, attn_implementation="eager")
    assert config.num_labels == 5
    assert config._attn_implementation == "eager"


def test_saved_and_loaded_it_is_the_same(tmp_path):
    config = DomainTransformerConfig.preset("tiny", vocab_size=9, mlp="swiglu", norm="rmsnorm")
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, DomainTransformerConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForSequenceClassification",
    }
