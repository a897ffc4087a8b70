"""The copy head: an oracle, exact packing and padding, caching, saving, and what it is good for."""

import pytest
import torch

from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.models.copy_head_domain_transformer import DomainTransformerCopyHead


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=40, hidden_size=32, num_hidden_layers=2, copy_heads=2, copy_width=8
    )
    model = DomainTransformerForCausalLM(config).eval()
    with torch.no_grad():  # weights large enough that copying matters
        for weight in model.copy_head.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return model


def slow_mixture(head, hidden, ids, logits):
    """The formula of the module's docstring, token by token."""
    rows = []
    for t in range(len(ids)):
        scores = [head.sentinel(hidden[t]).squeeze()]
        for s in range(t):
            q = head.query(hidden[t]).view(head.heads, head.width)
            k = head.key(hidden[s]).view(head.heads, head.width)
            slopes = torch.nn.functional.softplus(head.slope)
            scores.append(((q * k).sum(-1) / head.width**0.5 - slopes * (t - s)).exp().sum().log())
        weights = torch.stack(scores).softmax(0)
        p = weights[0] * logits[t].softmax(0)
        for s in range(t):
            p = p + weights[1 + s] * torch.nn.functional.one_hot(ids[s + 1], len(p))
        rows.append(p)
    return torch.stack(rows)


def test_equals_the_formula_token_by_token():
    torch.manual_seed(1)
    head = DomainTransformerCopyHead(6, width=4, heads=3, layer_index=0)
    hidden, ids, logits = torch.randn(7, 6), torch.randint(3, 9, (7,)), torch.randn(7, 9)
    expected = slow_mixture(head, hidden, ids, logits)
    found = head(hidden[None], ids[None], logits[None])[0].exp()
    torch.testing.assert_close(found, expected)


def test_loss_without_the_mixture_equals_loss_of_the_mixture(model):
    ids = torch.randint(3, 40, (3, 12))
    labels = ids.clone()
    labels[:, 0] = -100
    labels[1, 5:] = -100
    slow = model(ids, labels=labels).loss
    model.train()
    fast = model(ids, labels=labels)
    torch.testing.assert_close(fast.loss, slow)
    assert fast.logits is None
    summed = model(ids, labels=labels, num_items_in_batch=10).loss
    torch.testing.assert_close(summed * 10, slow * (labels[:, 1:] != -100).sum())


def test_packed_documents_equal_documents_alone_and_never_copy_from_each_other(model):
    a, b = torch.randint(3, 40, (1, 7)), torch.randint(3, 40, (1, 5))
    boundaries = torch.tensor([0, 7, 12])
    packed = model(torch.cat([a, b], 1), cu_seq_lens_q=boundaries).logits
    alone = torch.cat([model(a).logits, model(b).logits], 1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    labels = torch.cat([torch.full((1, 8), -100), b[:, 1:]], 1)
    model.train()
    embeddings = model.get_input_embeddings()
    seen = {}

    def remember(module, inputs, output):
        output.retain_grad()
        seen["x"] = output

    hook = embeddings.register_forward_hook(remember)
    model(torch.cat([a, b], 1), labels=labels, cu_seq_lens_q=boundaries).loss.backward()
    hook.remove()
    assert seen["x"].grad[:, :7].abs().max() == 0
    assert seen["x"].grad[:, 7:].abs().max() > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_changes_a_result(model, side):
    ids = torch.randint(3, 40, (1, 6))
    pad, ones = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 6, dtype=torch.long)
    order = (pad, ids) if side == "left" else (ids, pad)
    mask = torch.cat([pad, ones] if side == "left" else [ones, pad], 1)
    found = model(torch.cat(order, 1), attention_mask=mask).logits
    found = found[:, 3:] if side == "left" else found[:, :6]
    torch.testing.assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_cached_equals_uncached_with_left_padding(model):
    ids = torch.randint(3, 40, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    ids[1, :3], mask[1, :3] = 0, 0
    whole = model(ids, attention_mask=mask).logits
    first = model(ids[:, :5], attention_mask=mask[:, :5], use_cache=True)
    cache, logits = first.past_key_values, [first.logits]
    for t in range(5, 9):
        step = model(ids[:, t : t + 1], attention_mask=mask[:, : t + 1], past_key_values=cache)
        logits.append(step.logits)
    found = torch.cat(logits, 1)
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, 3:], whole[1, 3:], atol=1e-5, rtol=1e-5)


def test_generate_uses_the_cache_and_agrees_without_it(model):
    ids = torch.randint(3, 40, (1, 6))
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, **options)
    uncached = model.generate(ids, use_cache=False, **options)
    assert cached.tolist() == uncached.tolist()


def test_logits_to_keep_are_the_last_of_all(model):
    ids = torch.randint(3, 40, (2, 6))
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])


def test_saved_and_loaded_model_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = DomainTransformerForCausalLM.from_pretrained(tmp_path).eval()
    stored = again.state_dict()
    assert all(torch.equal(weight, stored[name]) for name, weight in model.state_dict().items())
    ids = torch.randint(3, 40, (1, 6))
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_new_heads_start_with_their_own_bias_and_slope():
    config = DomainTransformerConfig.preset("tiny", vocab_size=40, copy_heads=3)
    head = DomainTransformerForCausalLM(config).copy_head
    assert head.sentinel.bias.item() == 2.0
    slopes = torch.nn.functional.softplus(head.slope).tolist()
    assert slopes == pytest.approx([0.3, (0.3 * 0.02) ** 0.5, 0.02], rel=1e-4)


def test_embeddings_in_place_of_ids_are_refused(model):
    with pytest.raises(ValueError, match="input_ids"):
        model(inputs_embeds=torch.randn(1, 3, 32))
