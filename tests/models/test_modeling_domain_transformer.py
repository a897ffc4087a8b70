import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    StaticCache,
)

from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    DomainTransformerModel,
)

BACKENDS = ["eager", "sdpa", "packed_sdpa"]
ENCODINGS = ["none", "learned", "rope"]
CHOICES = [
    {"norm": "layernorm", "mlp": "gelu"},
    {"norm": "rmsnorm", "mlp": "swiglu", "tie_word_embeddings": False},
]


def build(cls=DomainTransformerForCausalLM, **overrides):
    torch.manual_seed(0)
    values = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "initializer_range": 0.2,  # far from uniform attention, so that mistakes show
        # Generation must not stop early: no end token.
        "eos_token_id": None,
    }
    return cls(DomainTransformerConfig(**(values | overrides))).eval()


def histories(*lengths):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 40, (n,), generator=generator) for n in lengths]


def pad(documents, side, length=10):
    ids, mask = torch.zeros(2, len(documents), length, dtype=torch.long).unbind(0)
    for row, document in enumerate(documents):
        n = len(document)
        where = slice(0, n) if side == "right" else slice(length - n, length)
        ids[row, where] = document
        mask[row, where] = 1
    return ids, mask


@pytest.mark.parametrize("choices", CHOICES, ids=["gpt", "llama"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.no_grad()
def test_the_past_does_not_see_the_future(encoding, choices):
    model = build(position_encoding=encoding, **choices)
    (ids,) = histories(9)
    changed = ids.clone()
    changed[6] = (changed[6] + 1) % 40
    before, after = model(ids[None]).logits[0], model(changed[None]).logits[0]
    torch.testing.assert_close(before[:6], after[:6])
    assert (before[6:] - after[6:]).abs().amax(dim=-1).min() > 1e-3


@torch.no_grad()
def test_order_is_known_without_positional_encoding():
    model = build(position_encoding="none")
    (ids,) = histories(8)
    swapped = ids[[1, 0, *range(2, 8)]]
    assert not torch.allclose(model(ids[None]).logits[0, -1], model(swapped[None]).logits[0, -1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.no_grad()
def test_padding_changes_nothing(encoding, backend, side):
    model = build(position_encoding=encoding, attn_implementation=backend)
    documents = histories(4, 10, 1, 7)
    ids, mask = pad(documents, side)
    logits = model(ids, attention_mask=mask).logits
    for row, document in enumerate(documents):
        alone = model(document[None]).logits[0]
        torch.testing.assert_close(logits[row, mask[row].bool()], alone, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_sabotage_left_padding_without_its_mask_changes_results():
    model = build(position_encoding="learned")
    (document,) = histories(4)
    ids, _ = pad([document], "left")
    alone = model(document[None]).logits[0]
    assert not torch.allclose(model(ids).logits[0, -4:], alone, atol=1e-2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_beside_padding_are_finite_and_those_of_documents_alone(side):
    model = build().train()
    documents = histories(4, 10, 7)
    ids, mask = pad(documents, side)
    labels = ids.masked_fill(mask == 0, -100)
    if side == "left":
        labels[torch.arange(3), mask.argmax(dim=1)] = -100  # nothing real stands before it
    scored = sum(len(d) - 1 for d in documents)
    model(ids, attention_mask=mask, labels=labels, num_items_in_batch=scored).loss.backward()
    padded = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for document in documents:
        model(document[None], labels=document[None], num_items_in_batch=scored).loss.backward()
    for name, parameter in model.named_parameters():
        assert padded[name].isfinite().all()
        torch.testing.assert_close(padded[name], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "none"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.no_grad()
def test_cached_equals_uncached_without_position_ids(encoding, backend, side):
    """The library's own tests always pass position_ids, and so miss a forgotten offset."""
    model = build(position_encoding=encoding, attn_implementation=backend)
    ids, mask = pad(histories(10, 6, 8), "left")
    if side == "none":
        ids, mask = torch.stack(histories(10, 10)), None
    whole = model(ids, attention_mask=mask).logits
    cache, logits = None, []
    for start, stop in ((0, 5), (5, 6), (6, 9), (9, 10)):  # a prompt, one token, three, one
        output = model(
            ids[:, start:stop],
            attention_mask=None if mask is None else mask[:, :stop],
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits.append(output.logits)
    stepwise = torch.cat(logits, dim=1)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(stepwise[real], whole[real], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("encoding", ["learned", "rope"])
@torch.no_grad()
def test_sabotage_a_forgotten_offset_changes_results(encoding):
    model = build(position_encoding=encoding)
    (ids,) = histories(6)
    cache = model(ids[None, :5], use_cache=True).past_key_values
    wrong = model(ids[None, 5:], past_key_values=cache, position_ids=torch.tensor([[0]])).logits
    assert not torch.allclose(wrong[0, -1], model(ids[None]).logits[0, -1], atol=1e-2)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_batched_generation_equals_each_history_alone(encoding):
    model = build(position_encoding=encoding)
    documents = histories(3, 10, 6)
    ids, mask = pad(documents, "left")
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    together = model.generate(ids, attention_mask=mask, **options)[:, 10:]
    uncached = model.generate(ids, attention_mask=mask, use_cache=False, **options)[:, 10:]
    assert torch.equal(together, uncached)
    for row, document in enumerate(documents):
        alone = model.generate(
            document[None], attention_mask=torch.ones(1, len(document)), **options
        )
        assert torch.equal(together[row], alone[0, len(document) :])
        greedy = document
        for _ in range(8):
            with torch.no_grad():
                greedy = torch.cat((greedy, model(greedy[None]).logits[0, -1:].argmax(-1)))
        assert torch.equal(greedy, alone[0])


@torch.no_grad()
def test_a_static_cache_gives_the_same():
    model = build(position_encoding="learned")
    (ids,) = histories(7)
    cache = StaticCache(config=model.config, max_cache_len=12)
    parts = [model(ids[None, a:b], past_key_values=cache).logits for a, b in ((0, 6), (6, 7))]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids[None]).logits, atol=2e-5, rtol=1e-5)


def test_no_cache_is_built_where_none_can_be_used():
    model = build()
    (ids,) = histories(5)
    assert model(ids[None]).past_key_values is not None
    assert model(ids[None], labels=ids[None]).past_key_values is None
    assert model.train()(ids[None]).past_key_values is None


def test_loss_is_the_shifted_cross_entropy():
    model = build()
    ids = torch.stack(histories(8, 8))
    labels = ids.clone()
    labels[0, :3] = -100
    labels[1, 5] = -100
    output = model(ids, labels=labels)
    kept = labels[:, 1:] != -100
    expected = F.cross_entropy(output.logits[:, :-1][kept], labels[:, 1:][kept])
    torch.testing.assert_close(output.loss, expected)
    halved = model(ids, labels=labels, num_items_in_batch=2 * kept.sum()).loss
    torch.testing.assert_close(halved, expected / 2)


@torch.no_grad()
def test_only_the_logits_asked_for_are_computed():
    model = build()
    (ids,) = histories(8)
    whole = model(ids[None]).logits
    torch.testing.assert_close(model(ids[None], logits_to_keep=2).logits, whole[:, -2:])
    some = torch.tensor([1, 5])
    torch.testing.assert_close(model(ids[None], logits_to_keep=some).logits, whole[:, some])


@torch.no_grad()
def test_embeddings_can_stand_for_ids():
    model = build()
    (ids,) = histories(8)
    embeds = model.get_input_embeddings()(ids[None])
    assert torch.equal(model(inputs_embeds=embeds).logits, model(ids[None]).logits)
    for inputs in ({}, {"input_ids": ids[None], "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="exactly one of"):
            model(**inputs)


def test_positions_beyond_the_learned_table_are_refused():
    model = build(position_encoding="learned")
    with pytest.raises(ValueError, match="position 24 is beyond the table of 24"):
        model(torch.full((1, 25), 5))
    build(position_encoding="rope")(torch.full((1, 25), 5))  # needs no table


def test_hidden_states_and_attention_weights_are_recorded():
    model = build(attn_implementation="eager")
    ids = torch.stack(histories(6, 6))
    output = model.model(ids, output_hidden_states=True, output_attentions=True)
    assert [h.shape for h in output.hidden_states] == [(2, 6, 32)] * 3
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert [w.shape for w in output.attentions] == [(2, 2, 6, 6)] * 2
    assert isinstance(model(ids, return_dict=False), tuple)


def test_new_weights_are_drawn_for_tied_embeddings_and_depth():
    config = DomainTransformerConfig(
        vocab_size=500, hidden_size=128, num_attention_heads=4, num_hidden_layers=8
    )
    torch.manual_seed(0)
    model = DomainTransformerForCausalLM(config)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    residual = 0.02 / math.sqrt(16)
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert weight.std().item() == pytest.approx(residual, rel=0.05), name
        elif weight.ndim == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.05), name
    ids, labels = torch.randint(0, 500, (2, 4, 32)).unbind(0)
    loss = model(ids, labels=labels).loss
    assert loss.item() == pytest.approx(math.log(500), abs=0.1)  # starts from "I do not know"


@pytest.mark.parametrize("choices", CHOICES, ids=["gpt", "llama"])
@pytest.mark.parametrize(
    ("cls", "auto"),
    [
        (DomainTransformerModel, AutoModel),
        (DomainTransformerForCausalLM, AutoModelForCausalLM),
        (DomainTransformerForSequenceClassification, AutoModelForSequenceClassification),
    ],
)
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(cls, auto, choices, tmp_path):
    model = build(cls, **choices, position_encoding="learned")
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is cls
    (ids,) = histories(8)
    assert torch.equal(loaded(ids[None])[0], model(ids[None])[0])


def test_the_body_of_one_model_loads_into_another(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    (ids,) = histories(8)
    with torch.no_grad():
        expected = model.model(ids[None]).last_hidden_state
        assert torch.equal(body(ids[None]).last_hidden_state, expected)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert classifier.score.out_features == 3
    assert torch.equal(classifier.model.norm.weight, model.model.norm.weight)


def test_new_tokens_keep_the_tie(tmp_path):
    model = build()
    model.resize_token_embeddings(50, mean_resizing=False)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model(torch.tensor([[49]])).logits.shape == (1, 1, 50)


@pytest.mark.integration
def test_a_saved_folder_opens_where_domainformer_is_not_installed(tmp_path):
    (ids,) = histories(8)
    for cls in (DomainTransformerForCausalLM, DomainTransformerForSequenceClassification):
        model = build(cls, position_encoding="rope")
        model.save_pretrained(tmp_path / cls.__name__)
        with torch.no_grad():
            torch.save(model(ids[None]).logits, tmp_path / cls.__name__ / "logits.pt")
    script = f"""
        import importlib.abc, sys

        class Blocker(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "domainformer":
                    raise ModuleNotFoundError(f"No module named {{name!r}}")

        sys.meta_path.insert(0, Blocker())
        import torch
        from transformers import (
            AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
        )

        torch.set_grad_enabled(False)
        ids = torch.tensor([{ids.tolist()}])
        for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification):
            folder = auto.__name__.replace("AutoModel", "DomainTransformer")
            model = auto.from_pretrained(folder, trust_remote_code=True)
            assert torch.equal(model(ids).logits, torch.load(folder + "/logits.pt"))
            # The bare body and packed rows work there too, and it can be saved on.
            body = AutoModel.from_pretrained(folder, trust_remote_code=True)
            packed = body(ids, cu_seq_lens_q=torch.tensor([0, 3, 8])).last_hidden_state
            torch.testing.assert_close(packed[:, 3:], body(ids[:, 3:]).last_hidden_state)
            model.save_pretrained("again")
            again = auto.from_pretrained("again", trust_remote_code=True)
            assert torch.equal(again(ids).logits, model(ids).logits)
        assert not any(name.partition(".")[0] == "domainformer" for name in sys.modules)
        print("opened")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.endswith("opened\n"), result.stderr


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_classification_reads_the_last_real_token(side):
    model = build(DomainTransformerForSequenceClassification, num_labels=3)
    documents = histories(4, 10, 1)
    ids, mask = pad(documents, side)
    expected = torch.cat([model(document[None]).logits for document in documents])
    by_mask = model(ids, attention_mask=mask).logits
    by_pad_id = model(ids).logits
    torch.testing.assert_close(by_mask, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(by_pad_id, expected, atol=2e-5, rtol=1e-5)
    hidden = model.model(documents[0][None]).last_hidden_state[:, -1]
    torch.testing.assert_close(model.score(hidden), expected[:1])


@pytest.mark.parametrize(
    ("outputs", "problem", "labels"),
    [
        (3, "single_label_classification", torch.tensor([0, 2])),
        (1, "regression", torch.tensor([0.5, -1.0])),
        (3, "multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
    ],
)
def test_classification_losses(outputs, problem, labels):
    model = build(DomainTransformerForSequenceClassification, num_labels=outputs)
    output = model(torch.stack(histories(5, 5)), labels=labels)
    assert model.config.problem_type == problem
    logits = output.logits
    expected = {
        "single_label_classification": lambda: F.cross_entropy(logits, labels),
        "regression": lambda: F.mse_loss(logits[:, 0], labels),
        "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(logits, labels),
    }[problem]()
    torch.testing.assert_close(output.loss, expected)


def test_classification_refuses_packed_rows():
    model = build(DomainTransformerForSequenceClassification)
    with pytest.raises(ValueError, match="one history per row"):
        model(torch.full((1, 4), 5), cu_seq_lens_q=torch.tensor([0, 2, 4]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@torch.no_grad()
def test_half_precision_gives_nearly_the_same(encoding):
    model = build(position_encoding=encoding, initializer_range=0.02)
    ids, boundaries = torch.stack(histories(8, 8)), torch.tensor([0, 5, 8, 16])
    exact = model(ids, cu_seq_lens_q=boundaries).logits
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(ids, cu_seq_lens_q=boundaries).logits
    half = model.to(torch.bfloat16)(ids, cu_seq_lens_q=boundaries).logits
    assert mixed.dtype == half.dtype == torch.bfloat16
    for logits in (mixed, half):
        torch.testing.assert_close(logits.float(), exact, atol=2e-2, rtol=0)


def test_a_small_model_learns():
    """Sixty steps on a cycle of tokens: a smoke test of loss, gradient and initialisation."""
    model = build(initializer_range=0.02).train()
    ids = (torch.arange(24) % 6 + 3).repeat(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
