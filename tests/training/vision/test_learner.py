"""One step: what it draws, what it costs, who learns; and the judge, against generation."""

import numpy as np
import pytest
import torch

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import VisionError
from domainformer.models.vision import RelevanceRealizer
from domainformer.models.vision.baselines import AttentionRank
from domainformer.training.vision import (
    DynamicConfig,
    GuidanceConfig,
    VisionCollator,
    VisionLearner,
    VisionTrainingConfig,
)
from domainformer.training.vision.judging import judge


@pytest.fixture(scope="module")
def collate(small):
    return VisionCollator(small.processor, prompt=small.prompt)


@pytest.fixture
def learner_of(small, realizer_of):
    def make(**training):
        values = {"steps": 10, "budgets": (0.25, 0.5), **training}
        return VisionLearner(realizer_of(small.model()), VisionTrainingConfig(**values))

    return make


def test_budgets_follow_from_seed_and_step(learner_of):
    one = learner_of(dynamic=DynamicConfig(target=0.1, probability=0.4), seed=3)
    other = learner_of(dynamic=DynamicConfig(target=0.1, probability=0.4), seed=4)
    drawn = [one.budget_at(step) for step in range(400)]
    assert drawn == [one.budget_at(step) for step in range(400)]
    assert drawn != [other.budget_at(step) for step in range(400)]
    assert set(drawn) == {None, 0.25, 0.5}
    assert 0.3 < sum(one is None for one in drawn) / 400 < 0.5


def test_the_temperature_ends_with_the_last_step(learner_of):
    learner = learner_of(steps=10)
    assert [learner.temperature(step) for step in (0, 9)] == [1.0, 0.05]
    assert learner_of(steps=1).temperature(0) == 1.0


def test_only_the_compressor_learns_and_only_it_is_saved(learner_of, collate, small):
    learner = learner_of(dynamic=DynamicConfig(target=0.1, probability=1.0), distillation=0.5)
    learner(step=5, **collate(small.questions(3))).backward()
    assert all(one.grad is None for one in learner.realizer.model.parameters())
    assert any(one.grad is not None and one.grad.abs().sum() for one in learner.parameters())
    own = {f"selector.{name}" for name in learner.selector.state_dict()}
    assert set(learner.state_dict()) == own | {"multiplier"}


def _queries(learner, batch, monkeypatch):
    """The questions that the compressor is asked in a step."""
    asked, score = [], learner.selector.score

    def spy(request):
        asked.append(request.queries)
        return score(request)

    monkeypatch.setattr(learner.selector, "score", spy)
    learner(step=0, **batch)
    return asked[0]


def test_the_answer_is_no_part_of_the_question(learner_of, collate, small, monkeypatch):
    picture = small.questions(1)[0].image
    batches = [collate([VisionQuestion(picture, "which digit", one)]) for one in ("1", "2")]
    first, second = (_queries(learner_of(), batch, monkeypatch) for batch in batches)
    assert torch.equal(first[0], second[0])


def test_an_answer_without_its_labels_would_leak(learner_of, collate, small, monkeypatch):
    # The sabotage twin: the realizer is not told which tokens are the answer.
    picture = small.questions(1)[0].image
    soft = RelevanceRealizer.soft_forward

    def forgetful(self, *, query_mask, **inputs):
        return soft(self, **inputs)

    monkeypatch.setattr(RelevanceRealizer, "soft_forward", forgetful)
    batches = [collate([VisionQuestion(picture, "which digit", one)]) for one in ("1", "2")]
    first, second = (_queries(learner_of(), batch, monkeypatch) for batch in batches)
    assert not torch.equal(first[0], second[0])


def test_kept_features_and_pixels_give_one_loss(learner_of, collate, small):
    learner, questions = learner_of(), small.questions(3)
    batch = collate(questions)
    images = learner.realizer.encode(**{k: batch[k] for k in batch if k != "labels"})
    kept = {**{k: v for k, v in batch.items() if k != "pixel_values"}, "images": images}
    torch.testing.assert_close(learner(step=0, **kept), learner(step=0, **batch))


def test_distillation_is_the_divergence_from_the_full_model(learner_of, collate, small):
    batch = collate(small.questions(2))
    labels = batch["labels"]
    losses = [learner_of(distillation=w)(step=0, **batch).item() for w in (0.0, 1.0, 0.25)]
    assert losses[2] == pytest.approx(0.75 * losses[0] + 0.25 * losses[1], rel=1e-5)

    learner = learner_of()
    given = {k: v for k, v in batch.items() if k != "relevant"}
    share = learner.budget_at(0)
    logits = [
        learner.realizer.soft_forward(
            **given, budgets=budget, temperature=1.0, straight=True
        ).logits
        for budget in (share, 1.0)
    ]
    plain = learner.realizer.model(**given).logits
    expected = []
    for row, column in (labels[:, 1:] != -100).nonzero().tolist():  # one position at a time
        gated = logits[0][row, column].log_softmax(-1)
        full = plain[row, column].log_softmax(-1)
        expected.append((full.exp() * (full - gated)).sum().item())
    assert losses[1] == pytest.approx(np.mean(expected), rel=1e-3)
    assert learner_of(budgets=(1.0,), distillation=1.0)(step=0, **batch).abs() < 1e-6


def test_the_multiplier_finds_the_price_of_a_target(learner_of, collate, small):
    batch = collate(small.questions(2))
    dear, cheap = (
        learner_of(dynamic=DynamicConfig(target=target, probability=1.0, rate=0.5))
        for target in (0.01, 1.0)
    )
    for learner, sign in ((dear, 1), (cheap, -1)):
        learner.eval()
        learner(step=0, **batch)
        assert float(learner.multiplier) == 1.0  # evaluation changes nothing
        learner.train()
        learner(step=0, **batch)
        assert sign * (float(learner.multiplier) - 1.0) > 0
    for _ in range(20):
        cheap(step=0, **batch)
    assert float(cheap.multiplier) == 0.0  # too few tokens are never paid for


@pytest.mark.parametrize("costs", [{"target": 0.01, "rate": 0.5}, {"price": 2.0}])
def test_dear_tokens_are_given_up(learner_of, collate, small, costs):
    dynamic = DynamicConfig(probability=1.0, **costs)
    learner = learner_of(dynamic=dynamic, steps=40)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    batch = collate(small.questions(2))
    before = learner.judge(batch, None).kept
    for step in range(40):
        optimizer.zero_grad()
        learner(step=step, **batch).backward()
        optimizer.step()
    assert learner.judge(batch, None).kept < before


def test_a_dynamic_step_is_the_expected_cost_of_the_budgets_that_were_tried(
    learner_of, collate, small
):
    """Oracle: every budget, one question at a time, by the realizer itself."""
    shares, price = (0.1, 0.3, 1.0), 0.01
    learner = learner_of(dynamic=DynamicConfig(probability=1.0, price=price, trials=shares))
    questions = small.questions(3)
    losses = []
    for question in questions:
        alone = {k: v for k, v in collate([question]).items() if k not in ("images", "relevant")}
        scores = learner.selector.score(learner.realizer.request(**alone)).scores[0]
        ranked, costs = scores.sort(descending=True).values, []
        tokens = [max(1, round(share * len(scores))) for share in shares]
        for budget in tokens:
            with torch.no_grad():
                costs.append(learner.realizer(**alone, budgets=(budget,)).loss + price * budget)
        losses.append(sum(
            ranked[tokens[t - 1] : tokens[t]].mean().sigmoid() * (costs[t] - costs[t - 1])
            for t in range(1, len(tokens))
        ))  # fmt: skip
    found = learner(step=0, **collate(questions))
    assert torch.allclose(found, torch.stack(losses).mean(), atol=1e-5)
    found.backward()
    assert all(one.grad is None for one in learner.realizer.model.parameters())


@pytest.mark.parametrize("share", [0.25, None, 1.0])
def test_the_judge_says_what_generation_would(learner_of, collate, small, share):
    learner = learner_of(dynamic=DynamicConfig(target=0.1))
    prompts = VisionCollator(small.processor, prompt=small.prompt, answers=False)
    bare = VisionCollator(small.processor, prompt=small.prompt, end_of_answer=False)

    def said(question):
        given = {k: v for k, v in prompts([question]).items() if k != "relevant"}
        [ids] = learner.realizer.generate(**given, budgets=share, options={"max_new_tokens": 1})
        return small.tokenizer.decode(ids)

    questions = small.questions(4)
    own = VisionQuestion(questions[0].image, "which digit", "1")
    questions[0] = VisionQuestion(own.image, own.question, said(own))
    expected = sum(said(question) == question.answer for question in questions)
    found = learner.judge(bare(questions), share)
    assert (found.correct, found.questions, found.targets) == (expected, 4, 4)
    assert 1 <= expected < 4
    assert found.tokens == 12 + 6 + 16 + 12
    if share == 1.0:
        assert found.kept == found.tokens


def test_a_longer_answer_must_be_right_as_a_whole(learner_of, collate, small):
    learner, question = learner_of(), small.questions(1)[0]
    bare = VisionCollator(small.processor, prompt=small.prompt, end_of_answer=False)
    prompts = VisionCollator(small.processor, prompt=small.prompt, answers=False)
    given = prompts([question])
    given.pop("relevant")
    [ids] = learner.realizer.generate(
        **given, budgets=0.5, options={"max_new_tokens": 3, "min_new_tokens": 3}
    )
    words = small.tokenizer.convert_ids_to_tokens(ids)
    right = VisionQuestion(question.image, question.question, " ".join(words))
    wrong = VisionQuestion(question.image, question.question, " ".join([*words[:2], "row"]))
    first, second = (learner.judge(bare([one]), 0.5) for one in (right, wrong))
    assert (first.targets, first.correct, second.correct) == (3, 1, 0)


def test_judging_names_every_budget(learner_of, collate, small):
    learner = learner_of(dynamic=DynamicConfig(target=0.1))
    batches = [collate(small.questions(2)), collate(small.questions(3, seed=1))]
    learner.train()
    told = judge(learner, batches, full=True)
    names = {"0.25", "0.5", "dynamic", "full"}
    expected = {f"{what}_{name}" for what in ("accuracy", "loss", "kept") for name in names}
    assert set(told) == expected | {"accuracy", "loss"}
    assert told["kept_full"] == 1.0
    assert told["loss"] == pytest.approx(
        np.mean([told[f"loss_{name}"] for name in ("0.25", "0.5", "dynamic")])
    )
    assert learner.training
    assert judge(learner, []) == {}


def test_selectors_without_weights_are_refused(small):
    class Fixed:
        def select(self, request):
            raise NotImplementedError

    with pytest.raises(VisionError, match="nothing to train"):
        VisionLearner(RelevanceRealizer(small.model(), Fixed()), VisionTrainingConfig())


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"])
def test_every_family_learns_and_is_judged(small, realizer_of, family, padding):
    model, make_inputs = small.tiny.tiny(family)
    training = VisionTrainingConfig(
        steps=4, budgets=(0.5,), dynamic=DynamicConfig(target=0.2), distillation=0.5
    )
    learner = VisionLearner(realizer_of(model), training)
    batch = make_inputs(answers=(2, 1), padding=padding)
    for step in range(4):
        learner(step=step, **batch).backward()
    assert all(one.grad is not None for one in learner.selector.scorers["coupling"].parameters())
    full = learner.judge(batch, 1.0)
    plain = model(**batch)
    assert full.targets == 3
    assert full.loss / full.targets == pytest.approx(plain.loss.item(), rel=1e-4)


def test_guidance_is_the_distance_to_what_the_model_looks_at(learner_of, collate, small):
    batch = collate(small.questions(3))
    guided = learner_of(guidance=GuidanceConfig(weight=2.0, alone=0.5, layers=(1, -1)), steps=10)
    assert [guided.guided_alone(step) for step in (0, 4, 5, 9)] == [True, True, False, False]
    # The gate begins warm where it begins.
    warmth = guided.training_config.temperature
    assert guided.temperature(5) == pytest.approx(warmth.start)
    assert guided.temperature(9) == pytest.approx(warmth.end)
    alone = guided(step=0, **batch)
    # The slow, obvious way: attention by the model itself, image by image.
    inputs = {name: value for name, value in batch.items() if name not in ("images", "relevant")}
    request = guided.realizer.request(**inputs)
    depth = len(guided.realizer.model.get_decoder().layers)
    paid = [AttentionRank(layer).scores(request) for layer in (1, depth)]
    scored = guided.selector.score(request).scores
    distances, shifts = [], []
    for image, score in enumerate(scored):
        p = sum(layer[image] / layer[image].sum() for layer in paid) / 2
        distances.append((p * (p.log() - score.softmax(0).log())).sum())
        shifts.append(score.mean() ** 2)
    distance, shift = torch.stack(distances).mean(), torch.stack(shifts).mean()
    assert torch.allclose(alone, 2.0 * (distance + shift), atol=1e-5)
    # Beside gates or trials the scores may lie where they will.
    gates = learner_of(steps=5)(step=0, **batch)
    assert torch.allclose(guided(step=5, **batch), gates + 2.0 * distance, atol=1e-5)
    alone.backward()
    assert all(one.grad is None for one in guided.realizer.model.parameters())


def test_guidance_never_sees_the_answer(learner_of, collate, small):
    picture = small.questions(1)[0].image
    batches = [collate([VisionQuestion(picture, "which digit", one)]) for one in ("1", "2")]
    learner = learner_of(guidance=GuidanceConfig(alone=1.0, layers=(1,)))
    first, second = (learner(step=0, **batch) for batch in batches)
    assert torch.equal(first, second)


def test_without_a_straight_gate_the_loss_is_another(learner_of, collate, small):
    batch = collate(small.questions(3))
    smooth, straight = (learner_of(gate=gate)(step=9, **batch) for gate in ("smooth", "straight"))
    assert not torch.equal(smooth, straight)
