import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision import RelevanceRealizer, VisionBase, realizer
from domainformer.models.vision.queries import question_mask

from .oracles import LikeTheQuestion
from .tiny import BOS, EOS, FAMILIES, FIRST_WORD, IMAGE, PAD, VISION_END, VISION_START, tiny

SPECIAL = (PAD, BOS, EOS, IMAGE, VISION_START, VISION_END)


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    return tiny(request.param)


def by_loop(inputs):
    """Per row, the ids of the words that ask."""
    rows = []
    labels = inputs.get("labels", torch.full_like(inputs["input_ids"], -100))
    for ids, targets in zip(inputs["input_ids"].tolist(), labels.tolist(), strict=True):
        pairs = zip(ids, targets, strict=True)
        rows.append([i for i, target in pairs if i >= FIRST_WORD and target == -100])
    return rows


@pytest.mark.parametrize("answers", [None, (1, 2)])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_query_is_the_words_of_the_question(opened, padding, answers):
    model, maker = opened
    inputs = maker(padding=padding, answers=answers, images=[maker.grids(1)[0] * 2] * 2)
    request = RelevanceRealizer(model, LikeTheQuestion()).request(**inputs)
    words = by_loop(inputs)
    assert len(request.queries) == 4
    for query, row in zip(request.queries, request.images.rows, strict=True):
        assert torch.equal(query, model.get_input_embeddings().weight[words[row]])
        assert not query.requires_grad


def answered(maker, shift):
    """One batch, its answers changed by ``shift`` and nothing else."""
    inputs = maker(answers=(3, 2))
    answer = inputs["labels"] != -100
    for name in ("input_ids", "labels"):
        moved = (inputs[name][answer] - FIRST_WORD + shift) % (48 - FIRST_WORD) + FIRST_WORD
        inputs[name] = inputs[name].clone()
        inputs[name][answer] = moved
    return inputs


def selections(model, maker):
    """What is kept under six different answers."""
    opened = RelevanceRealizer(model, LikeTheQuestion())
    return [
        tuple(
            map(tuple, (k.tolist() for k in opened.compress(**answered(maker, s)).selection.kept))
        )
        for s in range(0, 36, 6)
    ]


def test_the_answer_never_changes_the_selection(opened):
    assert len(set(selections(*opened))) == 1


def test_an_answer_that_leaks_is_caught(opened, monkeypatch):
    def leaking(base, input_ids, attention_mask, labels=None, query_mask=None):
        return question_mask(base, input_ids, attention_mask, None, query_mask)

    monkeypatch.setattr(realizer, "question_mask", leaking)
    assert len(set(selections(*opened))) > 1


def test_a_query_mask_names_the_question(opened):
    model, maker = opened
    inputs = maker(answers=(1, 1))
    words = (inputs["input_ids"] >= FIRST_WORD) & (inputs["labels"] == -100)
    first = words & (words.cumsum(-1) == 1)
    request = RelevanceRealizer(model, LikeTheQuestion()).request(**inputs, query_mask=first)
    assert [len(query) for query in request.queries] == [1, 1]
    # A mask over everything but the answer asks no more than the text does.
    wide = inputs["labels"] == -100
    request = RelevanceRealizer(model, LikeTheQuestion()).request(**inputs, query_mask=wide)
    assert [len(query) for query in request.queries] == words.sum(-1).tolist()


def test_a_query_mask_with_the_answer_or_another_shape_is_refused(opened):
    model, maker = opened
    opened = RelevanceRealizer(model, LikeTheQuestion())
    inputs = maker(answers=(1, 1))
    with pytest.raises(VisionError, match="holds tokens of the answer"):
        opened.compress(**inputs, query_mask=torch.ones_like(inputs["input_ids"]).bool())
    with pytest.raises(VisionError, match="query_mask has the shape"):
        opened.compress(**inputs, query_mask=torch.ones(1, 2).bool())


def test_an_empty_question_is_refused_with_its_row(opened):
    model, maker = opened
    opened = RelevanceRealizer(model, LikeTheQuestion())
    for inputs in (maker(questions=(2, 0)), maker(questions=(2, 0), answers=(1, 2))):
        with pytest.raises(VisionError, match=r"image without a question[\s\S]*row 1"):
            opened.compress(**inputs)
    # A row without an image needs no question.
    alone = maker(questions=(2, 0), images=[*maker.grids(1), []])
    assert len(opened.compress(**alone).selection.kept) == 1


def test_special_tokens_are_those_of_the_configuration(opened):
    model, maker = opened
    special = set(VisionBase.probe(model).special_ids)
    assert {PAD, BOS, EOS, IMAGE} <= special
    if maker.mrope:
        assert set(SPECIAL) <= special
