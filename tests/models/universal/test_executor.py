"""Intermediate outputs: computed once, in order, from declared providers alone."""

import copy

import pytest
import torch
from torch import nn

from domainformer.errors import AdapterError, UnresolvedInput
from domainformer.models.universal import Provider, Untouchable, bind

from .corpus.broken import EDGES, FlatWithIntermediates
from .corpus.case import V

IDS = torch.arange(8).view(2, 4)
MAP = {
    "embedding_0_token_output": ("embedding_0_token", "input_0_tokens"),
    "mhsa_0_output": lambda embedding_0_token: embedding_0_token * 0,
    "residual_0_output": ("add", "embedding_0_token_output", "mhsa_0_output"),
    "layernorm_0": ("layernorm_0", "residual_0_output"),
    "ffn_0_output": ("ffn_0", "layernorm_0"),
}


def _oracle(model, ids):
    """The same by hand."""
    h = model.embedding_0_token(ids)
    h = h + model.mhsa_0(h, h, h)[0]
    return model.linear_0(model.layernorm_1(model.ffn_0(model.layernorm_0(h))))


def _calls(model):
    counts = {}
    for name, part in model.named_children():
        part.register_forward_hook(
            lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1})
        )
    return counts


def test_a_graph_in_the_config_gives_what_the_parts_give_by_hand():
    model = FlatWithIntermediates().eval()
    model.config = {"edges": [list(edge) for edge in EDGES]}
    bound = bind(model)
    assert bound.inspector.requires_intermediate_outputs()
    expected = _oracle(model, IDS)
    counts = _calls(model)
    torch.testing.assert_close(bound(IDS).logits, expected)
    assert counts == dict.fromkeys(dict(model.named_children()), 1)
    order = bound.executor.order
    assert order.index("residual_0") > order.index("mhsa_0") > order.index("embedding_0_token")
    assert bound.executor.dead == {"embedding_0_token_output", "mhsa_0_output"}


def test_a_map_of_the_user_goes_before_the_graph():
    model = FlatWithIntermediates().eval()
    bound = bind(model, providers=MAP, config={"edges": EDGES})
    h = model.embedding_0_token(IDS)
    expected = model.linear_0(model.layernorm_1(model.ffn_0(model.layernorm_0(h))))
    torch.testing.assert_close(bound(IDS).logits, expected)
    assert bound(IDS).logits.shape == (2, 4, V)


def test_a_copy_computes_with_its_own_parts_and_with_replaced_ones():
    bound = bind(FlatWithIntermediates().eval(), config={"edges": EDGES})
    before = bound(IDS).logits
    copied = copy.deepcopy(bound)
    nn.init.zeros_(copied.module.embedding_0_token.weight)
    copied.module.ffn_0 = nn.Identity()
    torch.testing.assert_close(bound(IDS).logits, before)
    torch.testing.assert_close(copied(IDS).logits, _oracle(copied.module, IDS))


def test_gradients_flow_through_what_was_computed():
    model = FlatWithIntermediates()
    bound = bind(model, config={"edges": EDGES})
    bound(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_nothing_is_put_in_the_place_of_what_is_missing():
    model = FlatWithIntermediates()
    for number in range(len(EDGES)):
        edges = [edge for i, edge in enumerate(EDGES) if i != number]
        missing = bind_error(model, edges)
        # A sum with one summand less is another sum, not a missing one.
        if EDGES[number][1] != "residual_0":
            assert EDGES[number][1] in str(missing)
            assert missing.candidates
            assert "broken.py:" in missing.where


def bind_error(model, edges):
    try:
        bind(model, config={"edges": edges})
    except UnresolvedInput as error:
        return error
    return None


def test_a_dead_argument_gets_a_sentinel():
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, V)
            self.seen = []

        def forward(self, input_ids, extra):
            return self.table(input_ids)

    model = Peeks()
    model.register_forward_pre_hook(
        lambda _, args, kwargs: model.seen.append(kwargs["extra"]), with_kwargs=True
    )
    assert bind(model)(IDS).logits.shape == (2, 4, V)
    assert isinstance(model.seen[0], Untouchable)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"edges": [*EDGES, ("ffn_0", "layernorm_0"), ("x", "y")]}}, "wait for each"),
        ({"config": {"edges": ["ab", 3]}}, "edges[1]"),
        ({"providers": {"ffn_0_output": 3}}, "providers['ffn_0_output']"),
        ({"providers": {"ffn_0_output": ("ffn_0", "a", "b")}}, "nothing provides it"),
        ({"providers": {"ffn_0_output": ("ffn_0", "input_ids", "input_ids")}}, "cannot take 2"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments, message):
    with pytest.raises(AdapterError) as refused:
        bind(FlatWithIntermediates(), **arguments)
    assert message in str(refused.value)


def test_a_part_that_gives_several_values_needs_a_choice():
    def providers(take):
        triple = ("embedding_0_token",) * 3
        return {**MAP, "mhsa_0_output": Provider("mhsa_0", triple, take=take)}

    model = FlatWithIntermediates().eval()
    torch.testing.assert_close(bind(model, providers=providers(0))(IDS).logits, _oracle(model, IDS))
    with pytest.raises(AdapterError, match="gives several values"):
        bind(model, providers=providers(None))(IDS)
    with pytest.raises(AdapterError, match="has no value 7"):
        bind(model, providers=providers(7))(IDS)


def test_a_part_that_fails_is_named_with_its_inputs():
    bound = bind(FlatWithIntermediates(), providers={"ffn_0_output": ("ffn_0", "input_ids")})
    with pytest.raises(AdapterError, match=r"ffn_0 fails on its inputs(.|\n)*int64 \[2, 4\]"):
        bound(IDS)


def test_a_mask_of_unclear_meaning_is_declared():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, V)

        def forward(self, tokens, padding_mask):
            return self.table(tokens).masked_fill(padding_mask[..., None], 0.0)

    bound = bind(Masked(), providers={"padding_mask": lambda attention_mask: attention_mask == 0})
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    logits = bound(IDS, attention_mask=mask).logits
    assert (logits[0, 3] == 0).all()
    assert (logits[1, 3] != 0).any()
    with pytest.raises(UnresolvedInput, match="takes attention_mask"):
        bound(IDS)
