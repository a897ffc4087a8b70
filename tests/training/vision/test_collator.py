"""Questions to inputs: ids as in use, labels at answers alone, padding that changes nothing."""

import numpy as np
import pytest
import torch

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError, VisionError
from domainformer.training.vision import ImageTextProcessor, VisionCollator, pixels_of

IMAGE, PAD, EOS = 5, 0, 2


@pytest.fixture
def collate(small):
    return VisionCollator(small.processor, prompt=small.prompt)


def test_a_row_is_the_prompt_and_the_answer(small, collate):
    question = small.questions(1)[0]
    batch = collate([question])
    words = small.tokenizer(question.question)["input_ids"]
    [answer] = small.tokenizer(question.answer)["input_ids"]
    expected = [3, *[IMAGE] * 12, 4, *words, answer, EOS]
    assert batch["input_ids"].tolist() == [expected]
    assert batch["labels"].tolist() == [[-100] * (len(expected) - 2) + [answer, EOS]]
    assert batch["mm_token_type_ids"].tolist() == [[int(one == IMAGE) for one in expected]]
    assert batch["image_grid_thw"].tolist() == [[1, 6, 8]]
    seen = small.images(images=[question.image], return_tensors="pt")
    assert torch.equal(batch["pixel_values"], seen["pixel_values"])
    assert [one.tolist() for one in batch["relevant"]] == [question.relevant.tolist()]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_its_rows_padded(small, side):
    collate = VisionCollator(small.processor, prompt=small.prompt, padding_side=side)
    questions = small.questions(5)
    batch, singles = collate(questions), [collate([one]) for one in questions]
    for index, single in enumerate(singles):
        mask = batch["attention_mask"][index].bool()
        assert mask[-1 if side == "left" else 0]
        for name, filler in (("input_ids", PAD), ("labels", -100), ("mm_token_type_ids", 0)):
            assert torch.equal(batch[name][index][mask], single[name][0])
            assert bool((batch[name][index][~mask] == filler).all())
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(batch[name], torch.cat([single[name] for single in singles]))


def test_prompts_for_generation_are_the_beginnings_of_training_rows(small, collate):
    prompts = VisionCollator(small.processor, prompt=small.prompt, answers=False)
    question = small.questions(1)[0]
    asked, learned = prompts([question]), collate([question])
    assert "labels" not in asked
    length = asked["input_ids"].shape[1]
    assert torch.equal(asked["input_ids"], learned["input_ids"][:, :length])
    assert learned["labels"][0, :length].eq(-100).all()


def test_the_end_belongs_to_the_answer_where_that_is_asked(small):
    bare = VisionCollator(small.processor, prompt=small.prompt, end_of_answer=False)
    batch = bare(small.questions(1))
    assert batch["labels"].ne(-100).sum() == 1
    assert EOS not in batch["input_ids"]


def test_braces_of_a_question_stay_text(small, collate):
    assert collate.ask("which { image } {image} ?") == (
        "<start> <image> <stop> which { image } {image} ?"
    )


def test_chat_templates_are_used_where_there_are_any(small):
    template = (
        "{% for m in messages %}{% for c in m.content %}"
        "{{ '<image> ' if c.type == 'image' else c.text + ' ' }}{% endfor %}{% endfor %}on"
    )
    processor = ImageTextProcessor(small.tokenizer, small.images, image_token="<image>")
    processor.chat_template = template
    processor.apply_chat_template = lambda messages, **options: small.tokenizer.apply_chat_template(
        messages, chat_template=template, **options
    )
    assert VisionCollator(processor).ask("which digit") == "<image> which digit on"
    assert VisionCollator(small.processor).ask("which digit") == "<image>which digit"


def test_relevance_is_told_only_where_all_know_it(small, collate):
    questions = small.questions(2)
    unknown = VisionQuestion(questions[0].image, "which digit", "1")
    assert "relevant" not in collate([questions[0], unknown])


@pytest.mark.parametrize(("question", "answer"), [("  ", "1"), ("which", ""), ("", "")])
def test_empty_texts_are_refused(small, collate, question, answer):
    with pytest.raises(VisionError, match="empty"):
        collate([VisionQuestion(small.questions(1)[0].image, question, answer)])


def test_pictures_are_checked(collate):
    bad = VisionQuestion(np.zeros((8, 8), np.uint8), "which", "1")
    with pytest.raises(ValueError, match="height, width, 3"):
        collate([bad])
    with pytest.raises(ValueError, match="height, width, 3"):
        pixels_of(bad)


def test_placeholders_must_fit_the_images(small):
    with pytest.raises(VisionError, match="2 placeholders for 1 images"):
        small.processor(images=[small.questions(1)[0].image], text=["<image> <image> which"])


def test_prompts_and_tokenizers_are_checked(small):
    with pytest.raises(ConfigError, match="a prompt has"):
        VisionCollator(small.processor, prompt="{question}")

    class Bare:
        eos_token_id = pad_token_id = None

    processor = ImageTextProcessor(small.tokenizer, small.images, image_token="<image>")
    processor.tokenizer = Bare()
    with pytest.raises(ConfigError, match="no token to pad"):
        VisionCollator(processor)
