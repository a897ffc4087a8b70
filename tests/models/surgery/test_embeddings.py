"""Vocabularies: new rows begin as told, old ones stay, ties hold, and what is saved loads."""

from __future__ import annotations

import pytest
import torch
from surgery_cases import IDS, KINDS, VOCAB, Plain, Wrapper, logits, make
from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery import freeze, resize_embeddings

INITS = ("mean", "mean+noise", "zero", "copy", "subwords")
EACH = [(kind, "mean") for kind in KINDS]
EACH += [(kind, init) for kind in ("bert", "plain") for init in INITS[1:]]
SOURCES = {"copy": [3, 7], "subwords": [[3], [4, 5, 6]]}


def ends(model):
    model = getattr(model, "module", model)
    if hasattr(model, "get_input_embeddings"):
        return model.get_input_embeddings(), model.get_output_embeddings()
    return model.embed, model.head


def expected(old, init):
    return {
        "mean": old.mean(0).expand(2, -1),
        "zero": torch.zeros(2, old.shape[1]),
        "copy": old[[3, 7]],
        "subwords": torch.stack([old[3], old[4:7].mean(0)]),
    }[init]


@pytest.mark.parametrize(("kind", "init"), EACH)
def test_old_tokens_keep_their_logits_and_new_ones_begin_as_told(kind, init, tmp_path):
    model = make(kind)
    before = logits(model)
    old = [end.weight.detach().clone() for end in ends(model)]
    bias = getattr(ends(model)[1], "bias", None)
    bias = None if bias is None else bias.detach().clone()
    tied = ends(model)[0].weight is ends(model)[1].weight
    assert resize_embeddings(model, VOCAB + 2, init=init, sources=SOURCES.get(init)) is model
    new = logits(model)
    assert new.shape[-1] == VOCAB + 2
    torch.testing.assert_close(new[..., :VOCAB], before)
    assert tied == (ends(model)[0].weight is ends(model)[1].weight)
    for end, was in zip(ends(model), old, strict=True):
        assert torch.equal(end.weight[:VOCAB], was)
        if init != "mean+noise":
            torch.testing.assert_close(end.weight[VOCAB:].detach(), expected(was, init))
    if bias is not None and init != "mean+noise":
        torch.testing.assert_close(
            ends(model)[1].bias[VOCAB:, None].detach(), expected(bias[:, None], init)
        )
    if hasattr(model, "config"):
        assert model.config.vocab_size == VOCAB + 2
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert torch.equal(logits(again), new)


@pytest.mark.parametrize("kind", ["bert", "llama", "wrapped"])
def test_fewer_rows_drop_the_last(kind):
    model = make(kind)
    before = logits(model)
    resize_embeddings(model, VOCAB - 5)
    torch.testing.assert_close(logits(model), before[..., : VOCAB - 5])


def test_noise_has_the_covariance_of_the_rows():
    torch_rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    model = nn.Embedding(50, 3)
    model.weight.data = torch_rows @ torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 0.1]])
    holder = nn.ModuleDict({"embed": model})
    old = model.weight.detach().clone()
    resize_embeddings(holder, 50 + 20_000, init="mean+noise", noise=0.25)
    new = model.weight[50:].detach()
    torch.testing.assert_close(new.mean(0), old.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(new.T.cov(), 0.25 * old.T.cov(correction=0), atol=0.02, rtol=0)
    # The draw depends on the seed alone.
    again = [nn.ModuleDict({"e": nn.Embedding.from_pretrained(old.clone())}) for _ in range(2)]
    for one, seed in zip(again, (0, 1), strict=True):
        resize_embeddings(one, 52, init="mean+noise", noise=0.25, seed=seed)
    assert not torch.equal(again[0]["e"].weight, again[1]["e"].weight)


def test_frozen_tables_stay_frozen_and_wrappers_follow():
    model = Wrapper(Plain())
    freeze(model, "embed")
    resize_embeddings(model, VOCAB + 1)
    assert not model.module.head.weight.requires_grad
    assert (model.module.embed.num_embeddings, model.module.head.out_features) == (41, 41)
    assert model(IDS).shape[-1] == VOCAB + 1


def test_a_plain_module_with_several_tables_is_asked_for_the_right_one():
    model = nn.ModuleDict({"a": nn.Embedding(9, 2), "b": nn.Embedding(9, 2)})
    with pytest.raises(SurgeryError, match="not clear which embedding"):
        resize_embeddings(model, 10)
    resize_embeddings(model, 10, paths=["b"])
    assert (len(model["a"].weight), len(model["b"].weight)) == (9, 10)
    with pytest.raises(SurgeryError, match="same number of rows"):
        resize_embeddings(model, 11, paths=["a", "b"])
    with pytest.raises(SurgeryError, match="no module 'c'"):
        resize_embeddings(model, 11, paths=["c"])


@pytest.mark.parametrize(
    ("size", "more", "match"),
    [
        (0, {}, "no number of tokens"),
        (2, {}, r"cut off a special token[\s\S]*keep at least 3"),
        (42, {"init": "means"}, "did you mean 'mean'"),
        (42, {"init": "copy", "sources": [1]}, "2 new rows need as many sources"),
        (42, {"init": "copy"}, "2 new rows need as many sources"),
        (42, {"init": "copy", "sources": [1, 40]}, "source 40 is no row"),
        (42, {"init": "subwords", "sources": [[1], []]}, "one of them is empty"),
        (42, {"init": "zero", "sources": [1, 2]}, "reads no sources"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(size, more, match):
    model = make("gpt2")
    before = logits(model)
    with pytest.raises(SurgeryError, match=match):
        resize_embeddings(model, size, **more)
    assert torch.equal(logits(model), before)
    assert model.config.vocab_size == VOCAB


def test_no_id_that_ends_a_text_is_cut_off():
    for part, ids in (("config", [2, VOCAB - 1]), ("generation_config", VOCAB - 1)):
        model = make("llama")
        getattr(model, part).eos_token_id = ids
        with pytest.raises(SurgeryError, match=f"eos_token_id is {VOCAB - 1}"):
            resize_embeddings(model, VOCAB - 1)


@pytest.mark.parametrize(
    ("size", "options"), [(60.0, {}), ("60", {}), (60, {"init": "mean+noise", "noise": -1})]
)
def test_numbers_that_are_none_are_refused(size, options):
    with pytest.raises(SurgeryError, match="is no"):
        resize_embeddings(make("gpt2"), size, **options)
