import json

import pytest
import torch

from domainformer.errors import ArtifactError, FingerprintError, VisionError
from domainformer.models.vision import CompressorConfig, RelevanceCompressor, RelevanceRealizer
from domainformer.models.vision.folder import WEIGHTS, base_fingerprint

from .oracles import RandomTokens
from .tiny import FAMILIES, tiny


def trained(model, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        compressor = RelevanceCompressor(CompressorConfig(feature_size=32, width=16))
    return RelevanceRealizer(model, compressor, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_comes_back_as_it_was(family, tmp_path):
    model, maker = tiny(family)
    model.config._name_or_path, model.config._commit_hash = "maker/model", "abc123"
    before = trained(model, positions="compact")
    folder = before.save_pretrained(tmp_path / "adapter")
    after = RelevanceRealizer.from_pretrained(folder, model=tiny(family)[0])
    inputs = maker(answers=(1, 1))
    assert torch.equal(before(**inputs, budgets=4).logits, after(**inputs, budgets=4).logits)
    assert after.positions == "compact"
    facts = json.loads((folder / "adapter.json").read_text())
    assert (facts["base"]["name"], facts["base"]["revision"]) == ("maker/model", "abc123")


def test_the_folder_holds_the_new_parameters_alone(tmp_path):
    model, _ = tiny("qwen2_vl")
    folder = trained(model).save_pretrained(tmp_path / "adapter")
    new = sum(each.numel() * 4 for each in trained(model).selector.parameters())
    assert (folder / WEIGHTS).stat().st_size < 2 * new + 20_000
    with pytest.raises(ArtifactError):
        trained(model).save_pretrained(folder)
    trained(model).save_pretrained(folder, overwrite=True)


def test_another_base_is_refused(tmp_path):
    model, _ = tiny("qwen2_vl")
    folder = trained(model).save_pretrained(tmp_path / "adapter")
    for other in (tiny("qwen2_vl", seed=1)[0], tiny("qwen2_5_vl")[0]):
        with pytest.raises(FingerprintError, match="trained upon another model"):
            RelevanceRealizer.from_pretrained(folder, model=other)


def test_the_fingerprint_is_of_the_weights_and_not_of_their_precision():
    model, _ = tiny("llava")
    before = base_fingerprint(model)
    assert base_fingerprint(tiny("llava")[0].to(torch.bfloat16)) == before
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    assert base_fingerprint(model) != before


def test_a_damaged_or_foreign_folder_is_refused(tmp_path):
    model, _ = tiny("qwen2_vl")
    with pytest.raises(ArtifactError, match="there is no folder"):
        RelevanceRealizer.from_pretrained(tmp_path / "nowhere", model=model)
    folder = trained(model).save_pretrained(tmp_path / "adapter")
    damaged = bytearray((folder / WEIGHTS).read_bytes())
    damaged[-1] ^= 1
    (folder / WEIGHTS).write_bytes(damaged)
    with pytest.raises(ArtifactError):
        RelevanceRealizer.from_pretrained(folder, model=model)


def test_a_selector_that_cannot_be_rebuilt_is_not_saved(tmp_path):
    model, _ = tiny("qwen2_vl")
    with pytest.raises(VisionError, match="RandomTokens is not saved"):
        RelevanceRealizer(model, RandomTokens()).save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
