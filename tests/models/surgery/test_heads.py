"""Heads: another task of the family, or another layer at a path, and what config.json says."""

from __future__ import annotations

import pytest
import torch
from surgery_cases import IDS, KINDS, VOCAB, Plain, Wrapper, logits, make
from transformers import AutoModelForSequenceClassification

from domainformer.errors import SurgeryError
from domainformer.models.surgery import freeze, replace_head

FAMILIES = ("gpt2", "bert", "qwen3", "llama", "t5", "own")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_language_model_becomes_a_classifier_that_auto_classes_read(kind, tmp_path):
    model = make(kind)
    freeze(model, "*.1.*")
    before = logits(model)
    made = replace_head(model, ["no", "perhaps", "yes"], pad_token_id=0)
    assert torch.equal(logits(model), before)  # the given model is as it was
    config = made.config
    assert (config.num_labels, config.problem_type) == (3, "single_label_classification")
    assert config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    assert config.label2id == {"no": 0, "perhaps": 1, "yes": 2}
    body = dict(made.base_model.named_parameters())
    shared = 0
    for name, weight in model.base_model.named_parameters():
        if name in body:
            shared += 1
            assert torch.equal(body[name], weight)
            assert body[name].requires_grad == weight.requires_grad
            assert body[name] is not weight
    assert shared > 10
    ids = torch.cat(
        [IDS[:, :-1], torch.full((2, 1), config.get_text_config().eos_token_id or 2)], 1
    )
    output = made(input_ids=ids, labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    output.loss.backward()
    made.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is type(made)
    assert torch.equal(again(input_ids=ids).logits, made.eval()(input_ids=ids).logits)


def test_back_to_a_language_model_and_other_tasks():
    model = make("gpt2")
    classifier = replace_head(model, 1, pad_token_id=0)
    assert classifier.config.problem_type == "regression"
    again = replace_head(classifier, task="causal-lm")
    # Its head is tied to the embedding, so nothing was lost.
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(logits(again), logits(model))
    tagger = replace_head(make("bert"), 5, task="token-classification")
    assert tagger(IDS).logits.shape == (2, 6, 5)
    assert tagger.config.problem_type is None
    several = replace_head(model, 4, problem_type="multi_label_classification", pad_token_id=0)
    assert several(IDS, labels=torch.ones(2, 4)).loss.isfinite()


def test_new_weights_depend_on_the_seed_alone():
    made = [replace_head(make("own"), 2, seed=seed).score.weight for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("wrap", [Wrapper, lambda model: model])
def test_a_plain_module_gets_a_layer_at_its_path(wrap):
    model = wrap(Plain())
    body = getattr(model, "module", model)
    body.num_classes = VOCAB
    assert replace_head(model, 3, path="head") is model
    assert model(IDS).shape == (2, 6, 3)
    assert body.num_classes == 3
    assert body.head.weight is not body.embed.weight  # no longer tied, and the table is whole
    assert body.embed.weight.shape[0] == VOCAB
    assert body.head.bias is None


def test_a_path_does_for_hugging_face_too():
    model = replace_head(make("own"), 2)
    replace_head(model, ["a", "b", "c", "d"], path="score")
    assert model.config.id2label[3] == "d"
    assert model(IDS).logits.shape == (2, 4)


@pytest.mark.parametrize(
    ("kind", "labels", "more", "match"),
    [
        ("gpt2", 2, {"task": "sequence-classifcation"}, "did you mean 'sequence-classification'"),
        ("gpt2", None, {"task": "masked-lm"}, "no head for masked-lm"),
        ("gpt2", None, {}, "needs labels"),
        ("gpt2", ["a", "a"], {}, "different names"),
        ("gpt2", 2, {"task": "causal-lm"}, "has no labels"),
        ("gpt2", 2, {"path": "lm_heads"}, "did you mean 'lm_head'"),
        ("plain", 2, {}, "name its last layer"),
    ],
)
def test_what_cannot_be_done_is_told(kind, labels, more, match):
    with pytest.raises(SurgeryError, match=match):
        replace_head(make(kind), labels, **more)


def test_a_tied_output_layer_at_a_path_is_refused_where_it_could_not_be_saved():
    model = make("gpt2")
    with pytest.raises(SurgeryError, match="would build another one"):
        replace_head(model, 3, path="lm_head")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert KINDS


def test_an_encoder_that_becomes_a_causal_model_does_not_look_ahead():
    made = replace_head(make("bert"), task="causal-lm").eval()
    other = IDS.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCAB
    assert torch.equal(made(IDS).logits[:, :-1], made(other).logits[:, :-1])
    back = replace_head(made, task="masked-lm").eval()
    assert not torch.equal(back(IDS).logits[:, :-1], back(other).logits[:, :-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": True}, "different names"),
        ({"labels": {0: "no", 1: "yes"}}, "different names"),
        ({"labels": [0, 1]}, "different names"),
        ({"labels": 2, "problem_type": "multi_label"}, "multi_label_classification"),
        ({"task": "masked-lm"}, "task='sequence-classification'"),
    ],
)
def test_what_would_only_seem_to_work_is_refused(options, message):
    with pytest.raises(SurgeryError, match=message):
        replace_head(make("gpt2"), **options)
