"""The engine's loop: exact resuming with a sabotage twin per state, accumulation, evaluation."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from domainformer.errors import CheckpointError, ConfigError, DomainformerError, RuleError
from domainformer.training import checkpoints
from domainformer.training.plan import TrainPlan
from domainformer.training.rules import LearningRule, attach
from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import count_targets

# 37 rows in batches of 4, two per step: 5 steps per epoch, the last of them short; 13 steps end
# inside the third epoch.
PLAN = TrainPlan(
    steps=13, rows=4, accumulation=2, learning_rate=0.01, eval_every=5, save_every=3, log_every=2
)


def build(standin, root, plan=PLAN, rows=None, callbacks=(), **model):
    return EventTrainer(
        standin.make_model(plan.seed, **model),
        plan,
        train_rows=standin.StandinRows() if rows is None else rows,
        eval_rows=standin.StandinRows(9, seed=1),
        collate=standin.collate,
        checkpoint_root=root,
        callbacks=callbacks,
    )


@pytest.fixture
def make(standin, tmp_path):
    def make(plan=PLAN, root=None, **options):
        return build(standin, root or tmp_path / "checkpoints", plan, **options)

    return make


@pytest.fixture(scope="module")
def whole(standin, tmp_path_factory):
    """An uninterrupted run: its checkpoints and final weights."""
    trainer = build(standin, tmp_path_factory.mktemp("whole"))
    trainer.fit()
    return trainer.checkpoint_root, standin.weights(trainer.model)


class Killed(Exception):
    pass


def stop_at(trainer, step):
    """Let the process 'die' at the end of a step, before its checkpoint is written."""
    original = trainer._maybe_log_save_evaluate

    def die(*args, **kwargs):
        if trainer.state.global_step >= step:
            raise Killed
        return original(*args, **kwargs)

    trainer._maybe_log_save_evaluate = die
    with pytest.raises(Killed):
        trainer.fit()


@pytest.fixture(scope="module")
def killed_at_8(standin, tmp_path_factory):
    trainer = build(standin, tmp_path_factory.mktemp("killed"))
    stop_at(trainer, 8)
    return trainer.checkpoint_root


# Within an epoch, at the end of one, and before the very last checkpoint.
@pytest.mark.parametrize(("killed_at", "resumes_from"), [(4, 3), (6, 5), (13, 12)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    make, standin, whole, killed_at, resumes_from
):
    first = make()
    stop_at(first, killed_at)
    torch.rand(7)  # another process has other generators
    second = make()
    newest = checkpoints.newest_checkpoint(second.checkpoint_root)
    assert newest.step == resumes_from
    second.fit(newest)
    assert standin.same_weights(standin.weights(second.model), whole[1])
    assert second.state.global_step == 13


@pytest.mark.parametrize("drop", ["optimizer", "scheduler", "rng", "position", "weights", None])
def test_twin_without_one_state_the_weights_differ(
    make, standin, whole, killed_at_8, drop, monkeypatch
):
    """Each state is needed: where one is not restored, the equality above must fail."""
    second = make()
    if drop == "optimizer":
        monkeypatch.setattr(
            checkpoints,
            "load_training_state",
            lambda path, optimizer, scheduler: load_scheduler_only(path, scheduler),
        )
    elif drop == "scheduler":
        monkeypatch.setattr(
            checkpoints,
            "load_training_state",
            lambda path, optimizer, scheduler: load_optimizer_only(path, optimizer),
        )
    elif drop == "rng":
        monkeypatch.setattr(checkpoints, "load_rng", lambda path: None)
    elif drop == "weights":
        monkeypatch.setattr(checkpoints, "load_weights", lambda path, model: None)
    elif drop == "position":
        second.args.ignore_data_skip = True
    second.fit(checkpoints.newest_checkpoint(killed_at_8))
    assert standin.same_weights(standin.weights(second.model), whole[1]) == (drop is None)


def load_scheduler_only(path, scheduler):
    scheduler.load_state_dict(torch.load(path / checkpoints.SCHEDULER, weights_only=True))


def load_optimizer_only(path, optimizer):
    optimizer.load_state_dict(torch.load(path / checkpoints.OPTIMIZER, weights_only=True))


def test_a_finished_run_is_not_trained_further(make, standin, whole):
    again = make(root=whole[0])
    again.fit(checkpoints.newest_checkpoint(whole[0]))
    assert standin.same_weights(standin.weights(again.model), whole[1])
    assert again.state.global_step == 13


def test_other_batches_cannot_be_resumed(make, whole):
    other = make(replace(PLAN, rows=8, accumulation=1))
    with pytest.raises(CheckpointError, match="other data or batches"):
        other.fit(checkpoints.newest_checkpoint(whole[0]))


def test_accumulation_equals_one_large_batch(make, standin, tmp_path):
    whole = make(replace(PLAN, rows=8, accumulation=1), tmp_path / "a", dropout=0.0)
    parts = make(replace(PLAN, rows=2, accumulation=4), tmp_path / "b", dropout=0.0)
    whole.fit()
    parts.fit()
    for name, value in standin.weights(whole.model).items():
        torch.testing.assert_close(value, standin.weights(parts.model)[name], atol=1e-5, rtol=1e-4)


def test_training_equals_a_bare_loop(make, standin):
    """The engine against twenty obvious lines of PyTorch."""
    from domainformer.training.optimizer import adamw, make_schedule

    trainer = make(dropout=0.0)
    trainer.fit()

    model, rows = standin.make_model(dropout=0.0), standin.StandinRows()
    optimizer = adamw(model, learning_rate=0.01, weight_decay=0.1)
    schedule = make_schedule(optimizer, steps=13, warmup_ratio=0.05)
    step = 0
    for epoch in range(3):
        rows.set_epoch(epoch)
        for start in range(0, 37, 8):
            batch = standin.collate([rows[i] for i in range(start, min(start + 8, 37))])
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step == 13:
                break
    for name, value in standin.weights(model).items():
        torch.testing.assert_close(
            value, standin.weights(trainer.model)[name], atol=1e-5, rtol=1e-4
        )


def test_evaluation_is_the_mean_over_targets(make, standin):
    trainer = make()
    rows = standin.StandinRows(9, seed=1)
    batch = standin.collate([rows[i] for i in range(9)])
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**batch).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.evaluate()["eval_targets"] == 9 * (standin.LENGTH - 1)


def test_evaluating_more_often_changes_nothing(make, standin, whole):
    often = make(replace(PLAN, eval_every=2, save_every=13))
    often.fit()
    assert standin.same_weights(standin.weights(often.model), whole[1])


def test_best_and_last_checkpoints_are_kept(make):
    trainer = make(replace(PLAN, eval_every=2, save_every=1, keep=2))
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])

    def evaluate(**_):
        trainer.control.should_evaluate = False
        return {"eval_loss": next(losses)}

    trainer.evaluate = evaluate
    trainer.fit()
    assert [s for s, _ in checkpoints.find_checkpoints(trainer.checkpoint_root)] == [13, 12, 4]
    last = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert trainer.load_best() == 4
    assert any(not torch.equal(last[k], v) for k, v in trainer.model.state_dict().items())


def test_a_loss_that_is_not_finite_stops_the_run(make):
    trainer = make()
    with torch.no_grad():
        trainer.model.norm.weight.fill_(math.nan)
    with pytest.raises(DomainformerError, match="the loss is nan at step 2"):
        trainer.fit()


class BreaksLater(LearningRule):
    name: ClassVar[str] = "breaks_later"
    sites: tuple[str, ...] = ("blocks.*",)

    def spoil(self, value, moment):
        return value * math.nan if moment.step == 3 and moment.clock.micro == 1 else value


class BreaksValues(BreaksLater):
    def forward(self, value, at, state, moment):
        return self.spoil(value, moment), state


class BreaksGradients(BreaksLater):
    def backward(self, gradient, at, state, moment):
        return self.spoil(gradient, moment), state


class BreaksTheLoss(BreaksLater):
    def auxiliary_loss(self, seen, state, moment):
        return self.spoil(seen.logits.new_ones(()), moment), state


class BreaksWeights(LearningRule):
    name: ClassVar[str] = "breaks_weights"

    def after_step(self, parameters, state, moment):
        if moment.step == 3:
            for weight in parameters.values():
                weight.mul_(math.nan)
        return state


class Looks(LearningRule):
    name: ClassVar[str] = "looks"
    sites: tuple[str, ...] = ("blocks.*",)

    def forward(self, value, at, state, moment):
        return value, state


def fit_with(trainer, rule):
    with attach(rule, trainer.model) as trainer.rules:
        trainer.fit()


@pytest.mark.parametrize("rule", [BreaksValues(), BreaksGradients(), BreaksTheLoss()])
def test_a_rule_that_breaks_a_later_step_is_named(make, rule):
    trainer = make()
    with pytest.raises(RuleError, match=r"'breaks_later' made a [\s\S]* step 3"):
        fit_with(trainer, rule)
    # Nothing is lost: the weights are those before the step.
    assert all(bool(torch.isfinite(weight).all()) for weight in trainer.model.parameters())


def test_a_loss_that_no_rule_broke_says_so(make):
    trainer = make()
    original = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: original(*args, **kwargs) * math.inf
    with pytest.raises(DomainformerError, match=r"loss is inf at step 1[\s\S]*no learning rule"):
        fit_with(trainer, Looks())


def test_weights_that_an_update_broke_are_told(make):
    with pytest.raises(
        DomainformerError, match=r"loss is nan at step 5[\s\S]*last update[\s\S]*breaks_weights"
    ):
        fit_with(make(), BreaksWeights())


def test_nothing_to_train_on_is_an_error(make, standin):
    with pytest.raises(ConfigError, match="nothing to train on"):
        make(rows=standin.StandinRows(0))


def test_the_cache_setting_of_the_model_survives(make):
    trainer = make(replace(PLAN, steps=1))
    trainer._use_cache = True
    trainer.fit()
    assert trainer.model.config.use_cache is True


def test_state_file_holds_no_log_history(whole):
    path = checkpoints.newest_checkpoint(whole[0]).path
    assert json.loads((path / checkpoints.STATE).read_text())["log_history"] == []


def test_count_targets_leaves_out_the_first_column_and_the_ignored():
    labels = torch.tensor([[5, 6, -100, 7], [-100, 1, 2, 3]])
    assert count_targets(labels) == 5
    assert count_targets(torch.tensor([0, 1, -100])) == 2


def test_training_is_silent(make, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(replace(PLAN, steps=3)).fit()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
