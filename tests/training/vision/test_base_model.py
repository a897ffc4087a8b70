"""The experiment's base model: its patches, its packed questions, its stages."""

import json

import numpy as np
import pytest
import torch

from domainformer.data.tile_questions import KINDS, TileQuestions
from domainformer.errors import ConfigError
from domainformer.training.vision import packed_questions
from domainformer.training.vision.base_config import (
    build_image_processor,
    build_model,
    build_tokenizer,
    image_grid,
    patchify,
)
from domainformer.training.vision.base_model import (
    answer_accuracy,
    encode_images,
    looking_loss,
    train_base,
)
from domainformer.training.vision.base_rounds import BaseRound, BaseStage, RoundSteps, rounds_until
from domainformer.training.vision.packed_questions import IGNORED, PackedQuestions

small = {"hidden_size": 32, "layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, seed=0, **small).eval()


def test_patches_are_those_of_the_image_processor():
    images = [question.image for question in TileQuestions(2, rows=3, columns=5)]
    slow = build_image_processor()(images, return_tensors="pt")
    assert torch.equal(slow["pixel_values"], patchify(np.stack(images)))
    assert slow["image_grid_thw"].tolist() == image_grid(2, 3, 5).tolist()


def test_positions_are_those_of_the_model(model, tokenizer):
    scene = TileQuestions(1, rows=3, columns=5).group(0)
    batch = PackedQuestions(tokenizer)([scene])
    kinds = (batch["input_ids"] == model.config.image_token_id).int()
    wanted, _ = model.model.get_rope_index(
        batch["input_ids"], mm_token_type_ids=kinds, image_grid_thw=batch["image_grid_thw"]
    )
    assert torch.equal(wanted, batch["position_ids"])


def separate_losses(model, tokenizer, groups):
    """The slow, obvious way: every question in a row of its own, by the model's own positions."""
    collate = PackedQuestions(tokenizer)
    losses = []
    for scene, asked in groups:
        for question in asked:
            batch = collate([(scene, [question])])
            inputs = {key: batch[key] for key in ("input_ids", "pixel_values", "image_grid_thw")}
            kinds = (inputs["input_ids"] == collate.image).int()
            logits = model(**inputs, mm_token_type_ids=kinds).logits
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[0, :-1], batch["labels"][0, 1:], ignore_index=IGNORED
                )
            )
    return torch.stack(losses).mean()


def packed_loss(model, tokenizer, groups):
    batch = PackedQuestions(tokenizer)(groups)
    del batch["lookups"], batch["sums"]
    return model(**encode_images(model, batch)).loss


@torch.no_grad()
def test_packed_questions_cost_what_separate_ones_do(model, tokenizer, monkeypatch):
    questions = TileQuestions(11, rows=3, columns=4, questions_per_scene=6)
    groups = [questions.group(scene) for scene in range(2)]
    wanted = separate_losses(model, tokenizer, groups)
    assert torch.allclose(packed_loss(model, tokenizer, groups), wanted, atol=1e-5)
    # Sabotage: questions that see each other.
    causal = packed_questions._mask
    monkeypatch.setattr(packed_questions, "_mask", lambda block: causal(torch.zeros_like(block)))
    assert not torch.allclose(packed_loss(model, tokenizer, groups), wanted, atol=1e-3)


def test_attention_is_shown_the_tiles_of_the_answer(tokenizer):
    scene, asked = TileQuestions(12, rows=4, columns=4, questions_per_scene=12).group(0)
    batch = PackedQuestions(tokenizer)([(scene, asked)])
    labels = batch["labels"][0].tolist()
    said_from = [
        place - 1
        for place, label in enumerate(labels)
        if label != IGNORED and labels[place - 1] == IGNORED
    ]
    assert len(said_from) == len(asked)
    attention = torch.rand(1, len(labels), len(labels))
    slow = {"lookups": [], "sums": []}
    for question, place in zip(asked, said_from, strict=True):
        paid = attention[0, place]
        if question.kind == "count":
            shares = [paid[0], *(paid[1 + tile] for tile in question.relevant)]
            slow["sums"].append(-sum(torch.log(s + 1e-6) for s in shares) / len(shares))
        elif question.kind == "global":
            slow["sums"].append(-torch.log(paid[1:17] + 1e-6).mean())
        else:
            tile = int(question.relevant[-1])
            assert question.answer == str(scene.digits[tile])
            slow["lookups"].append(-torch.log(paid[1 + tile] + 1e-6))
    for name, losses in slow.items():
        fast = looking_loss(attention, batch["labels"], batch[name])
        assert torch.allclose(fast, torch.stack(losses).mean())


@torch.no_grad()
def test_two_heads_look_back_from_the_start(tokenizer):
    model = build_model(tokenizer, seed=1)
    model.set_attn_implementation("eager")
    ids = tokenizer("which digit is right of lime on navy", return_tensors="pt")["input_ids"]
    first = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, words_back in ((0, 2), (1, 1)):
        assert first[head].diagonal(-words_back)[2 - words_back :].mean() > 0.5


def test_stages_leave_their_models_and_a_stopped_run_goes_on(tmp_path, monkeypatch, tokenizer):
    first = (BaseStage(3, 2, scenes=2, questions=6), BaseStage(4, 2, scenes=1, questions=7))
    rounds = [
        BaseRound(first, KINDS, 1e-3, 1e-4),
        BaseRound((BaseStage(4, 2, 1, 12),), KINDS, 1e-3, 1e-4),
    ]
    from domainformer.training.vision import base_model

    build = base_model.build_model
    monkeypatch.setattr(
        base_model, "build_model", lambda tokenizer, seed: build(tokenizer, seed=seed, **small)
    )
    options = {"seed": 3, "tower_steps": 2, "save_every": 1}
    whole = train_base(tmp_path / "whole", rounds=rounds, **options)
    assert sorted(whole) == [3, 4]
    accuracy = json.loads((whole[4] / "accuracy.json").read_text())
    assert set(accuracy) == set(KINDS)

    class Stop(Exception):
        pass

    def stop(*_args, **_kwargs):
        raise Stop

    # Stopped at the end of the first stage, before its model is written.
    with monkeypatch.context() as patch:
        patch.setattr(base_model, "save_base", lambda m, t, folder: stop() if "grid" in folder.name
                      else m.save_pretrained(folder))  # fmt: skip
        with pytest.raises(Stop):
            train_base(tmp_path / "parts", rounds=rounds, **options)
    parts = train_base(tmp_path / "parts", rounds=rounds, **options)
    weights = [(folder[4] / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]


@torch.no_grad()
def test_accuracy_counts_answers_and_not_their_end(model, tokenizer):
    questions = TileQuestions(24, rows=3, columns=3, questions_per_scene=12)
    found = answer_accuracy(model, tokenizer, questions)
    assert set(found) == set(KINDS)
    assert all(0 <= share <= 1 for share in found.values())
    assert all(abs(share * 4 - round(share * 4)) < 1e-9 for share in found.values())


def test_the_curriculum_ends_with_the_images_that_are_asked_for():
    for tokens in (64, 144, 576):
        assert rounds_until(tokens)[-1].stages[-1].side ** 2 == tokens
    with pytest.raises(ConfigError, match="100"):
        rounds_until(100)


def test_a_strip_stands_and_lies_in_turn_and_words_stand_as_far_off_as_in_the_square(tokenizer):
    stages = (BaseStage(6, 2, scenes=1, questions=6, short=3, lead=0.4), BaseStage(6, 1, 1, 6))
    steps = list(RoundSteps(BaseRound(stages, KINDS, 1e-3, 1e-4), seed=0))
    assert [(one[0][0].rows, one[0][0].columns) for one in steps] == [(6, 3), (3, 6), (6, 6)]
    collate = PackedQuestions(tokenizer)
    firsts = []
    for step, tokens in zip(steps, (18, 18, 36), strict=True):
        positions = collate(step)["position_ids"]
        firsts.append(positions[:, 0, tokens + 2].tolist())
    assert firsts == [[8, 8, 8]] * 3  # vision start, six places of the image, vision end
    for (scene, _), *_ in steps[:2]:
        second, first = sorted(np.bincount(scene.dots, minlength=4))[-2:]
        assert first - second >= round(0.4 * 18)


def test_nothing_is_shown_where_no_question_asks_for_it():
    attention = torch.full((1, 4, 4), 0.25)
    labels = torch.tensor([[-100, -100, 5, 6]])
    assert looking_loss(attention, labels, torch.zeros(1, 3)) == 0.0
