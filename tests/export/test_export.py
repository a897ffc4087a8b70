"""Every file answers what PyTorch answers, on shapes of its own; or it is refused."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from domainformer.errors import ArtifactError, ExportError
from domainformer.export import ExportedModel, export_model, export_onnx
from domainformer.export.inputs import InputSpec
from domainformer.export.parity import Parity
from domainformer.export.result import parity_path, read_parity
from domainformer.export.run import _check
from domainformer.export.subject import of_model
from domainformer.inference import save_bundle
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    pool_hidden,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "shop",
    [FieldSpec("kind", "categorical_fixed"), FieldSpec("price", "numerical_continuous", n_bins=4)],
)
EVENTS = pl.DataFrame({"kind": ["tea", "cake", "tea", "jam"], "price": [2.0, 3.5, 1.0, 9.0]})
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle, and its model."""
    folder = tmp_path_factory.mktemp("bundle") / "model"
    tokenizer = DomainTokenizer(SCHEMA).fit(EVENTS)
    torch.manual_seed(0)
    model = DomainTransformerForCausalLM(
        DomainTransformerConfig(
            vocab_size=tokenizer.vocab_size, max_position_embeddings=40, **SIZES
        )
    ).eval()
    save_bundle(folder, model, tokenizer, {"context": 20})
    return folder, model


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    """All formats of the bundle."""
    folder = tmp_path_factory.mktemp("exported") / "all"
    report = export_model(bundle[0], folder, formats=["torchscript", "onnx", "onnx-int8", "pt2"])
    return report, folder, bundle[1]


def padded(high, rows=4, length=11):
    """A batch of a size that no comparison used, with padding."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1, high, (rows, length), generator=generator)
    mask = (torch.arange(length) < torch.tensor([11, 8, 3, 1])[:, None]).long()
    return ids, mask


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_a_file_answers_what_the_model_answers(exported, form):
    report, folder, model = exported
    ids, mask = padded(model.config.vocab_size)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
    found = ExportedModel(folder, form)(input_ids=ids, attention_mask=mask)["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    [one] = [one for one in report.files if one.format == form]
    assert one.parity.within(1e-4)
    assert len(one.parity.shapes) == 5


def test_int8_says_how_far_it_is_and_is_smaller_where_it_counts(exported):
    report, folder, model = exported
    files = {one.format: one for one in report.files}
    assert 0 < files["onnx-int8"].parity.difference < 0.5
    assert files["onnx-int8"].parity.agreement > 0.8
    assert read_parity(files["onnx-int8"].path)["tolerance"] is None
    ids, mask = padded(model.config.vocab_size)
    found = ExportedModel(folder, "onnx-int8", threads=1)(input_ids=ids, attention_mask=mask)
    assert found["logits"].shape == (4, 11, model.config.vocab_size)


def test_the_difference_stands_beside_each_file(exported):
    _, folder, _ = exported
    names = {path.name for path in folder.iterdir()}
    for file in ("model.onnx", "model.int8.onnx", "model.pt2", "model.torchscript.pt"):
        assert file in names
        assert parity_path(folder / file).name in names
    assert read_parity(folder / "model.pt2")["difference"] <= 1e-4


def test_the_preprocessing_travels(exported):
    report, folder, _ = exported
    assert {"schema.yaml", "tokenizer.json", "domain_tokenizer.json"} <= set(report.preprocessing)
    assert DomainTokenizer.from_pretrained(folder).schema == SCHEMA
    assert not list(folder.glob("*.safetensors"))


def test_an_export_is_longest_where_the_model_is(exported):
    _, folder, _ = exported
    assert json.loads((folder / "export.json").read_text())["longest"] == 20


@pytest.mark.parametrize("name", ["tokenizer.json", "schema.yaml", "domain_tokenizer.json"])
def test_without_its_preprocessing_a_bundle_is_refused(bundle, tmp_path, name):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(bundle[0], folder)
    (folder / name).unlink()
    with pytest.raises(ExportError, match=f"lacks the preprocessing[\\s\\S]*{name}"):
        export_model(folder, tmp_path / "out", formats=["pt2"])
    assert not (tmp_path / "out").exists()


def test_without_its_tokenizer_a_folder_of_transformers_is_refused(tmp_path):
    config = GPT2Config(vocab_size=20, n_layer=1, n_embd=8, n_head=2, n_positions=16)
    config.bos_token_id = config.eos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ExportError, match=r"tokenizer\.json or tokenizer\.model"):
        export_model(tmp_path / "model", tmp_path / "out", formats=["pt2"])


class Scaled(nn.Module):
    """Correct in every shape."""

    def forward(self, x):
        return x * torch.arange(x.shape[0], dtype=x.dtype)[:, None]


class Baked(nn.Module):
    """The batch of the example becomes a constant of a trace."""

    def forward(self, x):
        return x[:2] * torch.arange(min(int(x.shape[0]), 2), dtype=x.dtype)[:, None]


class Remembering(nn.Module):
    """Answers something else each time: nothing that is written down can be equal to it."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Untraceable(nn.Module):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("no trace of me")
        return x + 1


X = {"x": torch.randn(2, 3, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("form", ["pt2", "torchscript"])
def test_a_module_of_ones_own(tmp_path, form):
    export_model(Scaled(), tmp_path / "out", formats=[form], inputs=X)
    model = ExportedModel(tmp_path / "out")
    assert model.inputs == [{"name": "x", "dtype": "float32", "dims": ["batch", 3]}]
    np.testing.assert_array_equal(model(x=np.ones((3, 3)))["output"][:, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("module", "form"), [(Baked, "torchscript"), (Remembering, "pt2"), (Baked, "pt2")]
)
def test_a_file_that_answers_something_else_is_refused(tmp_path, module, form):
    with pytest.raises(ExportError):
        export_model(module(), tmp_path / "out", formats=[form], inputs=X)
    assert not (tmp_path / "out").exists()


def test_a_second_format_that_cannot_be_had_is_told(tmp_path):
    report = export_model(Untraceable(), tmp_path / "out", formats=["pt2", "torchscript"], inputs=X)
    script = report.files[1]
    assert script.path is None
    assert "no trace of me" in script.remark
    with pytest.raises(ExportError, match="the export has no torchscript"):
        ExportedModel(tmp_path / "out", "torchscript")
    with pytest.raises(ExportError, match="no trace of me"):
        export_model(Untraceable(), tmp_path / "alone", formats=["torchscript"], inputs=X)


def test_the_operators_that_onnx_lacks(tmp_path):
    """Search among knots, ties included, and the quantile function to 1e-9 in the tails, too."""

    class Quantiles(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("knots", torch.tensor([[0.0, 1.0, 1.0, 2.0], [-1, 0, 3, 9.0]]))

        def forward(self, x, p):
            places = torch.searchsorted(self.knots.double(), x.T.contiguous(), right=True)
            return places.T, torch.special.ndtri(p)

    specs = [
        InputSpec("x", "float64", ("batch", 2), "numbers"),
        InputSpec("p", "float64", ("batch", 4), "numbers"),
    ]
    module = Quantiles()
    # Outside of (0, 1) the quantile function is not a number, and so it must be in the file.
    export_onnx(module, tmp_path / "out", inputs=specs)
    model = ExportedModel(tmp_path / "out")
    x = np.array([[1.0, 0.0], [-5, -5], [2, 9], [99, 1], [0.5, 3]])
    p = np.array([[1e-12, 1e-5, 0.07, 0.0749], [0.075, 0.3, 0.5, 0.6]] * 2 + [[0.99] * 4])
    found = model(x=x, p=p)
    expected = module(torch.from_numpy(x), torch.from_numpy(p))
    np.testing.assert_array_equal(found["output_0"], expected[0])
    np.testing.assert_allclose(found["output_1"], expected[1], atol=1e-9, rtol=1e-9)


def test_a_classifier_and_an_embedding(tmp_path):
    config = DomainTransformerConfig(
        vocab_size=30, num_labels=3, max_position_embeddings=16, **SIZES
    )
    model = DomainTransformerForSequenceClassification(config).eval()
    ids, mask = padded(30)
    inputs = {"input_ids": ids, "attention_mask": mask}
    export_model(model, tmp_path / "classes", formats=["pt2"])
    found = ExportedModel(tmp_path / "classes")(**inputs)["logits"]
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**inputs).logits.numpy(), atol=1e-5)
        hidden = model.model(**inputs).last_hidden_state
    export_model(model, tmp_path / "vectors", formats=["pt2"], what="embedding")
    vectors = ExportedModel(tmp_path / "vectors")(**inputs)["embedding"]
    np.testing.assert_allclose(vectors, pool_hidden(hidden, inputs).numpy(), atol=1e-5)
    with pytest.raises(ExportError, match="gives no logits"):
        export_model(model.model, tmp_path / "no", formats=["pt2"])


@pytest.mark.integration
def test_two_sequences_of_different_length(tmp_path):
    config = T5Config(vocab_size=20, num_layers=1, d_model=8, num_heads=2, d_kv=4, d_ff=8)
    model = T5ForConditionalGeneration(config).eval()
    shapes = [{"batch": 1, "length": 1, "decoder_length": 4}]
    export_model(model, tmp_path / "out", formats=["pt2"], shapes=shapes)
    inputs = {
        "input_ids": np.full((3, 6), 4),
        "attention_mask": np.ones((3, 6)),
        "decoder_input_ids": np.full((3, 2), 5),
    }
    assert ExportedModel(tmp_path / "out")(**inputs)["logits"].shape == (3, 2, 20)


def test_fixed_shapes(tmp_path):
    export_model(Scaled(), tmp_path / "out", formats=["pt2"], inputs=X, dynamic=False)
    model = ExportedModel(tmp_path / "out")
    assert model(x=np.ones((2, 3)))["output"].shape == (2, 3)
    assert model.inputs[0]["dims"] == [2, 3]
    with pytest.raises(ExportError, match="the wrong shape"):
        model(x=np.ones((4, 3)))
    with pytest.raises(ExportError, match="no shapes to choose from"):
        export_model(
            Scaled(), tmp_path / "no", formats=["pt2"], inputs=X, dynamic=False,
            shapes=[{"batch": 3}],
        )  # fmt: skip


def test_half_precision_is_exported_in_single(tmp_path):
    model = nn.Linear(3, 2, dtype=torch.bfloat16)
    report = export_model(model, tmp_path / "out", formats=["pt2"], inputs={"input": X["x"]})
    assert report.files[0].parity.within(1e-6)
    assert model.weight.dtype == torch.bfloat16


def test_wrong_arguments_are_told(tmp_path, exported):
    _, folder, model = exported
    with pytest.raises(ExportError, match="did you mean 'onnx'"):
        export_model(model, tmp_path / "out", formats=["onx"])
    with pytest.raises(ExportError, match="what Linear reads is not known"):
        export_model(nn.Linear(2, 2), tmp_path / "out")
    with pytest.raises(ExportError, match="cannot be called with the inputs"):
        export_model(Scaled(), tmp_path / "out", inputs={"y": X["x"]})
    with pytest.raises(ExportError, match="there is no folder"):
        export_model(tmp_path / "none", tmp_path / "out")
    run = ExportedModel(folder, "pt2")
    with pytest.raises(ExportError, match="reads input_ids, attention_mask"):
        run(input_ids=np.ones((1, 2)))
    with pytest.raises(ExportError, match="the wrong shape"):
        run(input_ids=np.ones(2), attention_mask=np.ones((1, 2)))
    with pytest.raises(ExportError, match="is no array of int64"):
        run(input_ids=[["tea"]], attention_mask=np.ones((1, 1)))
    with pytest.raises(ExportError, match=r"too long[\s\S]*sees 20 at most"):
        run(input_ids=np.ones((1, 21)), attention_mask=np.ones((1, 21)))
    with pytest.raises(ExportError, match="pt2 file cannot be run on these inputs"):
        run(input_ids=np.ones((2, 5)), attention_mask=np.ones((2, 4)))


def test_a_model_in_memory_is_as_it_was(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2)).train()
    model[2].eval()
    model(X["x"]).sum().backward()
    gradients = [one.grad.clone() for one in model.parameters()]
    state = torch.get_rng_state()
    export_model(model, tmp_path / "out", formats=["pt2"], inputs={"input": X["x"]})
    assert [part.training for part in model] == [True, True, False]
    assert all(torch.equal(a.grad, b) for a, b in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_rounded_weights_may_be_off_but_not_without_numbers():
    """What int8 is not held to, a float file is; neither may lose a number."""
    subject = of_model(Scaled(), inputs=X)
    off = Parity([], 3.0, 1.0, 0.5)
    _check(subject, "onnx-int8", off, 1e-4)
    with pytest.raises(ExportError, match="differs by 3"):
        _check(subject, "onnx", off, 1e-4)
    with pytest.raises(ExportError, match="differs by inf"):
        _check(subject, "onnx-int8", Parity([], float("inf"), float("inf"), 0.5), 1e-4)


def test_a_damaged_export_is_refused(tmp_path):
    export_model(Scaled(), tmp_path / "out", formats=["pt2"], inputs=X)
    path = tmp_path / "out" / "model.pt2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="is damaged"):
        ExportedModel(tmp_path / "out")


def test_what_was_there_stays_when_an_export_fails(tmp_path):
    export_model(Scaled(), tmp_path / "out", formats=["pt2"], inputs=X)
    with pytest.raises(ArtifactError, match="exists already"):
        export_model(Scaled(), tmp_path / "out", formats=["pt2"], inputs=X)
    with pytest.raises(ExportError):
        export_model(Remembering(), tmp_path / "out", formats=["pt2"], inputs=X, overwrite=True)
    assert ExportedModel(tmp_path / "out")(x=np.ones((2, 3)))["output"].shape == (2, 3)
