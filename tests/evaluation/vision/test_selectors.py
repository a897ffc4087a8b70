"""Selectors beside each other, against one question at a time, generated greedily."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.vision.tiny import (
    BOS,
    FAMILIES,
    IMAGE,
    MERGE,
    PAD,
    PATCH,
    VISION_END,
    VISION_START,
    tiny,
)

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import VisionError
from domainformer.evaluation.vision import evaluate_selectors
from domainformer.evaluation.vision.answers import answer
from domainformer.models.vision import (
    CompressorConfig,
    RelevanceCompressor,
    RelevanceRealizer,
    VisionBase,
    full_inputs,
)
from domainformer.models.vision.baselines import BASELINES, AllTokens, FeatureNorm, baseline

GRID = (3, 4)
KINDS = ("colour", "count")


def questions_of(count=9, seed=0):
    draw = np.random.default_rng(seed)
    side = PATCH * MERGE
    shape = (GRID[0] * side, GRID[1] * side, 3)
    return [
        VisionQuestion(
            image=draw.integers(0, 256, shape, dtype=np.uint8),
            question=" ".join(map(str, draw.integers(8, 48, 2 + index % 3))),
            answer=" ".join(map(str, draw.integers(8, 48, 1 + index % 2))),
            kind=KINDS[index % 2],
            relevant=draw.choice(12, 3, replace=False),
        )
        for index in range(count)
    ]


def collate(questions):
    """Words are ids; an image is 3 × 4 tokens of a Qwen2-VL; padded on the left."""
    rows, labels, pixels = [], [], []
    for one in questions:
        words, answers = ([int(w) for w in text.split()] for text in (one.question, one.answer))
        prompt = [BOS, VISION_START, *[IMAGE] * 12, VISION_END, *words]
        rows.append(prompt + answers)
        labels.append([-100] * len(prompt) + answers)
        image = torch.from_numpy(one.image).float().div(64).sub(2)
        blocks = image.view(GRID[0], MERGE, PATCH, GRID[1], MERGE, PATCH, 3)
        patches = blocks.permute(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
        pixels.append(patches.expand(-1, -1, -1, -1, -1, 2, -1, -1).reshape(12 * MERGE**2, -1))
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "labels": torch.tensor([[-100] * (longest - len(row)) + row for row in labels]),
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.tensor([[1, GRID[0] * MERGE, GRID[1] * MERGE]] * len(rows)),
    }


def greedy(realizer, question, length, budgets):
    """What is generated for one question alone; its answer is not among the inputs."""
    asked = collate([replace(question, answer="")])
    del asked["labels"]
    if question.relevant is not None:
        asked["relevant"] = [torch.as_tensor(question.relevant)]
    options = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False}
    return realizer.generate(**asked, budgets=budgets, options=options)[0].tolist()


@pytest.fixture(scope="module")
def model():
    return tiny("qwen2_vl", attention="sdpa")[0]


@pytest.fixture(scope="module")
def questions(model):
    """Half of the answers are what the full model says, so that there is something to get right."""
    realizer = RelevanceRealizer(model, AllTokens())
    made = []
    for index, one in enumerate(questions_of()):
        length = len(one.answer.split())
        said = " ".join(map(str, greedy(realizer, one, length, None)))
        made.append(replace(one, answer=said) if index % 3 else one)
    return made


def learned():
    torch.manual_seed(3)
    return RelevanceCompressor(CompressorConfig(feature_size=32, width=16, heads=2, min_tokens=2))


SELECTORS = ("stride", "feature_norm", "average_pooling", "attention_rank", "oracle")


def test_one_forward_says_what_generate_says(model, questions):
    with torch.random.fork_rng():
        selectors = {"learned": learned()}
    selectors |= {name: baseline(name) for name in SELECTORS}
    results = evaluate_selectors(
        model, selectors, questions, collate=collate, budgets=(4, 0.5), batch_size=4
    )
    differ = 0
    for name, selector in selectors.items():
        for label, budget in (("4", 4), ("1/2", 0.5)):
            realizer = RelevanceRealizer(model, selector)
            for kind in KINDS:
                chosen = [one for one in questions if one.kind == kind]
                truths = [[int(word) for word in one.answer.split()] for one in chosen]
                correct = sum(
                    greedy(realizer, one, len(truth), budget) == truth
                    for one, truth in zip(chosen, truths, strict=True)
                )
                cell = results.cell(name, label, kind)
                assert (cell.correct, cell.questions) == (correct, len(chosen))
                differ += correct != results.cell("full", "all", kind).correct
    assert differ  # the comparison is not of constants
    assert 0 < results.cell("full").correct < len(questions)


def test_everything_is_the_full_model(model, questions):
    results = evaluate_selectors(
        model, {"everything": AllTokens()}, questions, collate=collate, budgets=(None,)
    )
    every, full = results.cell("everything", "dynamic"), results.cell("full")
    assert every.correct == full.correct
    assert every.agreement == full.agreement == 1.0
    assert every.mean_kept == full.mean_kept == 12.0


def test_figures_do_not_depend_on_batches_or_order(model, questions):
    def run(names, batch_size, budgets=(3, 6)):
        chosen = {name: baseline(name) for name in names}
        return evaluate_selectors(
            model, chosen, questions, collate=collate, budgets=budgets, batch_size=batch_size
        )

    first = run(("random", "stride"), 32)
    second = run(("stride", "random"), 2)
    third = run(("random",), 5, budgets=(6,))
    for name in ("random", "stride"):
        for budget in ("3", "6"):
            assert first.cell(name, budget) == second.cell(name, budget)
    assert first.cell("random", "6") == third.cell("random", "6")


def test_images_are_encoded_and_scored_once_per_batch(model, questions):
    seen = {"tower": 0, "scores": 0}

    class Counted(FeatureNorm):
        def scores(self, request):
            seen["scores"] += 1
            return super().scores(request)

    def count(*_):
        seen["tower"] += 1

    hook = model.model.visual.register_forward_hook(count)
    try:
        selectors = {"norm": Counted(), "stride": baseline("stride")}
        evaluate_selectors(
            model, selectors, questions, collate=collate, budgets=(2, 4, 8), batch_size=3
        )
    finally:
        hook.remove()
    assert seen == {"tower": 3, "scores": 3}


def test_selectors_that_need_a_budget_are_not_asked_for_their_own(model, questions):
    with torch.random.fork_rng():
        compressor = learned().train()
    selectors = {"learned": compressor, "stride": baseline("stride"), "oracle": baseline("oracle")}
    results = evaluate_selectors(model, selectors, questions, collate=collate, budgets=(None, 3))
    found = {(cell.selector, cell.budget) for cell in results.cells}
    assert ("stride", "dynamic") not in found
    assert {("learned", "dynamic"), ("oracle", "dynamic"), ("stride", "3")} <= found
    assert results.cell("oracle", "dynamic").mean_kept == 3.0
    assert compressor.training  # as it was


def test_a_selector_cannot_learn_the_answer(model, questions):
    """What is selected with the answer in the batch is what is selected without it."""
    with torch.random.fork_rng():
        selectors = [learned(), baseline("attention_rank"), baseline("query_cosine")]
    others = [replace(one, answer=one.answer.replace("1", "2")) for one in questions]
    assert [one.answer for one in others] != [one.answer for one in questions]
    for selector in selectors:
        realizer = RelevanceRealizer(model, selector)
        kept = [
            selector.select(realizer.request(**collate(batch), budgets=4)).kept
            for batch in (questions, others)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))


def test_positions_of_the_realizer_hold(model, questions):
    def figures(positions):
        realizer = RelevanceRealizer(model, AllTokens(), positions=positions)
        chosen = {"stride": baseline("stride"), "norm": FeatureNorm()}
        cells = evaluate_selectors(
            realizer, chosen, questions, collate=collate, budgets=(1, 2, 3, 4, 6)
        ).cells
        return [cell.kept for cell in cells], [(cell.correct, cell.agreeing) for cell in cells]

    original, compact = figures("original"), figures("compact")
    assert original[0] == compact[0]
    assert original[1] != compact[1]


def test_right_padding_and_answers_of_many_lengths(model):
    _, make_inputs = tiny("qwen2_vl")
    said = []
    for padding in ("left", "right"):
        inputs = make_inputs(answers=(3, 1), padding=padding)
        realizer = RelevanceRealizer(model, AllTokens())
        said.append(answer(realizer.base, full_inputs(realizer.base, realizer.request(**inputs))))
    assert torch.equal(said[0].tokens, said[1].tokens)
    assert said[0].agree(said[1]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_baseline_on_every_family(family):
    """A budget that holds everything is the full model, also where features are made anew."""
    model, make_inputs = tiny(family, attention="sdpa")
    grids = make_inputs.grids(2)

    def ready(questions):
        assert len(questions) == 2
        return make_inputs(answers=(2, 1))

    asked = [
        replace(one, relevant=np.arange(rows * columns))
        for one, ((rows, columns),) in zip(questions_of(2), grids, strict=True)
    ]
    chosen = {name: baseline(name) for name in BASELINES}
    results = evaluate_selectors(model, chosen, asked, collate=ready, budgets=(2, 1.0))
    full = results.cell("full")
    for name in BASELINES:
        whole, few = results.cell(name, "1/1"), results.cell(name, "2")
        assert (whole.correct, whole.agreeing) == (full.correct, 2)
        assert whole.kept == full.tokens
        assert few.kept <= 4 or name == "everything"


def test_features_that_were_kept_are_used(model, questions):
    """A collator may bring the tower's features; the tower is not asked then."""
    base = VisionBase.probe(model)

    def remembered(chosen):
        batch = collate(chosen)
        pixels, grids = batch.pop("pixel_values"), batch["image_grid_thw"]
        return {**batch, "images": base.encode(pixels, grids, batch["input_ids"])}

    runs = [
        evaluate_selectors(
            base, {"norm": FeatureNorm()}, questions, collate=maker, budgets=(3,), batch_size=4
        )
        for maker in (collate, remembered)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": []}, "no questions"),
        ({"budgets": ()}, "no budgets"),
        ({"budgets": (0,)}, "no budget"),
        ({"budgets": (4, 4)}, "one name"),
        ({"selectors": {"full": AllTokens()}}, "called 'full'"),
        ({"batch_size": 0}, "batch of 0"),
    ],
)
def test_what_it_refuses(model, changes, message):
    wishes = {
        "selectors": {"stride": baseline("stride")},
        "questions": questions_of(2),
        "budgets": (4,),
        "collate": collate,
        **changes,
    }
    with pytest.raises(VisionError, match=message):
        evaluate_selectors(model, **wishes)


def test_answers_must_be_known(model):
    def without(questions):
        batch = collate(questions)
        del batch["labels"]
        return batch

    def empty(questions):
        batch = collate(questions)
        return {**batch, "labels": torch.full_like(batch["labels"], -100)}

    for broken, message in ((without, "no labels"), (empty, "without an answer")):
        with pytest.raises(VisionError, match=message):
            evaluate_selectors(model, {}, questions_of(2), collate=broken, budgets=())
    with pytest.raises(VisionError, match="called 'all'"):
        evaluate_selectors(
            model, {}, [replace(questions_of(1)[0], kind="all")], collate=collate, budgets=()
        )
