"""Packed rows against the slow and obvious way: every document run alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from domainformer.models import Collator, DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.models.packed_attention import (
    boundaries_from_positions,
    count_positions,
    find_documents,
    packed_sdpa_attention_forward,
    positions_from_boundaries,
)

BACKENDS = ["eager", "sdpa", "packed_sdpa"]
ENCODINGS = ["none", "learned", "rope"]
ROWS = [[5, 1], [9], [3, 7, 1]]  # lengths of the documents of each row
LENGTH = 12


def build(backend="sdpa", encoding="none", **overrides):
    torch.manual_seed(0)
    config = DomainTransformerConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        position_encoding=encoding,
        attn_implementation=backend,
        initializer_range=0.2,  # far from uniform attention, so that a leak shows
        **overrides,
    )
    return DomainTransformerForCausalLM(config).eval()


def documents():
    generator = torch.Generator().manual_seed(1)
    return [[torch.randint(3, 60, (n,), generator=generator) for n in row] for row in ROWS]


def packed_batch(pad_to=LENGTH):
    rows = []
    for row in documents():
        ids = torch.cat(row).numpy()
        rows.append({"input_ids": ids, "labels": ids, "segment_lengths": [len(d) for d in row]})
    return Collator(0, packed=True, pad_to=pad_to)(rows)


def per_document(batch_BLx):
    """Cut a batch of rows back into its documents."""
    for row, lengths in zip(batch_BLx, ROWS, strict=True):
        yield from row[: sum(lengths)].split(lengths)


def assert_each_as_alone(model, logits):
    alone = [model(document[None]).logits[0] for row in documents() for document in row]
    for packed, single in zip(per_document(logits), alone, strict=True):
        torch.testing.assert_close(packed, single, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_packed_equals_alone(backend, encoding):
    model, batch = build(backend, encoding), packed_batch()
    assert_each_as_alone(model, model(**batch).logits)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_restarting_positions_alone_say_enough(backend, encoding):
    model, batch = build(backend, encoding), packed_batch()
    ids, positions = batch["input_ids"], batch["position_ids"]
    assert_each_as_alone(model, model(ids, position_ids=positions).logits)
    # transformers does not look for restarts where a mask is given; the model does.
    mask = (ids != 0).long()
    assert_each_as_alone(model, model(ids, position_ids=positions, attention_mask=mask).logits)


@pytest.mark.slow  # compiles a kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's and transformers' own calls
@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.no_grad()
def test_packed_equals_alone_with_flex_attention(encoding):
    model, batch = build("flex_attention", encoding), packed_batch()
    assert_each_as_alone(model, model(**batch).logits)


@torch.no_grad()
def test_sabotage_without_boundaries_documents_mix():
    model, batch = build(), packed_batch()
    with pytest.raises(AssertionError, match="not close"):
        assert_each_as_alone(model, model(batch["input_ids"]).logits)


@torch.no_grad()
def test_flash_kernels_get_the_boundaries_of_the_whole_batch(monkeypatch):
    """A stand-in with the calling convention of a flash kernel: there is none for a CPU."""
    seen = []

    def flash(module, query, key, value, attention_mask, cu_seq_lens_q, scaling, **kwargs):
        assert attention_mask is None
        seen.append((cu_seq_lens_q, kwargs["cu_seq_lens_k"], kwargs["max_length_q"]))
        return packed_sdpa_attention_forward(
            module, query, key, value, None, scaling=scaling, cu_seq_lens_q=cu_seq_lens_q
        )

    name = "stand_in_flash_attention"
    monkeypatch.setitem(AttentionInterface._global_mapping, name, flash)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, flash_attention_mask)
    model, batch = build(), packed_batch()
    alone = model(**batch).logits
    # Past set_attn_implementation, which would look for the kernel itself.
    monkeypatch.setattr(model.config, "_attn_implementation_internal", name)
    for inputs in (batch, {k: batch[k] for k in ("input_ids", "position_ids")}):
        torch.testing.assert_close(model(**inputs).logits, alone)
        boundaries, keys, longest = seen.pop()
        assert boundaries.dtype == torch.int32
        assert torch.equal(boundaries, keys)
        assert longest == boundaries.diff().max()


def gradients_between(model, batch, *, shield=True):
    """|d loss of document i / d embedding of document j|, a matrix with one row per i."""
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    where = {"cu_seq_lens_q": batch["cu_seq_lens_q"]} if shield else {}
    hidden = model.model(inputs_embeds=embeds, **where).last_hidden_state
    rows = []
    for document in per_document(hidden):
        (gradient,) = torch.autograd.grad(document.square().sum(), embeds, retain_graph=True)
        rows.append([part.abs().max().item() for part in per_document(gradient)])
    return torch.tensor(rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_flows_between_documents(backend):
    between = gradients_between(build(backend), packed_batch())
    assert (between.diagonal() > 0).all()
    assert (between - between.diagonal().diag() == 0).all()  # exactly


def test_sabotage_without_boundaries_gradients_flow():
    between = gradients_between(build(), packed_batch(), shield=False)
    assert (between - between.diagonal().diag() != 0).any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_packed_weight_gradients_equal_those_of_documents_run_alone(encoding):
    model, batch = build("sdpa", encoding), packed_batch()
    scored = (batch["labels"] != -100).sum()
    model(**batch, num_items_in_batch=scored).loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row in documents():
        for document in row:
            if len(document) > 1:
                ids = document[None]
                model(ids, labels=ids, num_items_in_batch=scored).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_packed_rows_survive_gradient_checkpointing():
    batch, losses, gradients = packed_batch(), [], []
    for checkpointing in (False, True):
        model = build().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    assert torch.equal(*losses)
    torch.testing.assert_close(*gradients)


def test_packed_rows_refuse_a_cache_and_make_none():
    model, batch = build(), packed_batch()
    assert model(**batch, use_cache=True).past_key_values is None
    cache = model(batch["input_ids"]).past_key_values
    with pytest.raises(ValueError, match="packed rows cannot"):
        model(**batch, past_key_values=cache)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_boundaries_and_positions_are_inverse(rows):
    length = max(sum(row) for row in rows)
    lengths, positions = [], []
    for row in rows:
        tail = length - sum(row)
        whole = [*row, *([tail] if tail else [])]
        lengths += whole
        positions.append([p for n in whole for p in range(n)])
    boundaries = F.pad(torch.tensor(lengths).cumsum(0), (1, 0))
    expected = torch.tensor(positions)
    assert torch.equal(positions_from_boundaries(boundaries, len(rows), length), expected)
    assert torch.equal(boundaries_from_positions(expected), boundaries.int())


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ([0, 3], "must rise from 0 to 6"),
        ([1, 6], "must rise from 0 to 6"),
        ([0, 4, 2, 6], "must rise from 0 to 6"),
        ([0, 6], "runs over the end of its row"),
    ],
)
def test_boundaries_that_do_not_fit_are_refused(boundaries, message):
    with pytest.raises(ValueError, match=message):
        positions_from_boundaries(torch.tensor(boundaries), 2, 3)


def test_padding_is_not_mistaken_for_packing():
    positions = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert find_documents(positions, mask) is None
    assert find_documents(torch.arange(5)[None], None) is None


def test_padding_around_packed_documents_stands_alone():
    positions = torch.tensor([[0, 1, 0, 1, 2, 7]])
    found, boundaries = find_documents(positions, torch.tensor([[1, 1, 1, 1, 1, 0]]))
    assert found.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert boundaries.tolist() == [0, 2, 5, 6]


def test_positions_are_counted_over_real_tokens():
    embeds = torch.zeros(2, 3, 4)
    assert count_positions(embeds, None, 5).tolist() == [[5, 6, 7]]
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert count_positions(embeds, mask, 0).tolist() == [[0, 0, 1], [0, 1, 1]]
    assert count_positions(embeds[:, :1], mask, 2).tolist() == [[1], [1]]


def test_without_boundaries_the_function_is_transformers_sdpa():
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = True
    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind(0)
    out, weights = packed_sdpa_attention_forward(module, q, k, v, None)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    assert torch.equal(out, expected)
    assert weights is None
