"""Gradual unfreezing and layer-wise rates in the engine: what steps when, and exact resuming."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from domainformer.errors import ConfigError
from domainformer.models import surgery
from domainformer.training import checkpoints
from domainformer.training.plan import TrainPlan
from domainformer.training.trainer import EventTrainer
from domainformer.training.unfreezing import GradualUnfreezing

PLAN = TrainPlan(
    steps=9, rows=4, accumulation=1, learning_rate=0.01, eval_every=9, save_every=3, log_every=3,
    warmup_ratio=0.0,
)  # fmt: skip
EVERY = 2  # so that the checkpoint of step 3 lies within a stage


def groups(model, rate, weight_decay):
    return surgery.layerwise_learning_rates(model, rate, 0.5, weight_decay=weight_decay)


class Forgetful(GradualUnfreezing):
    """The sabotage twin: it counts the steps of this process."""

    steps = 0

    def on_step_begin(self, args, state, control, **values):
        self.schedule.apply(values["model"], self.steps)
        self.steps += 1


def build(standin, root, kind=GradualUnfreezing, **options):
    model = standin.make_model(0, layers=3)
    callback = kind(surgery.unfreeze_gradually(model, every=EVERY))
    options = {"groups": groups, "callbacks": [callback], **options}
    return EventTrainer(
        model, PLAN, train_rows=standin.StandinRows(), eval_rows=None, collate=standin.collate,
        checkpoint_root=root, **options,
    )  # fmt: skip


class Killed(Exception):
    pass


def killed_after(trainer, step):
    original = trainer._save_checkpoint

    def save_and_die(*args, **kwargs):
        original(*args, **kwargs)
        if trainer.state.global_step >= step:
            raise Killed

    trainer._save_checkpoint = save_and_die
    with pytest.raises(Killed):
        trainer.fit()


@pytest.mark.parametrize(("kind", "same"), [(GradualUnfreezing, True), (Forgetful, False)])
def test_a_resumed_run_ends_bit_for_bit_the_same_and_the_twin_does_not(
    standin, tmp_path, kind, same
):
    whole = build(standin, tmp_path / "whole", kind)
    whole.fit()
    killed_after(build(standin, tmp_path / "cut", kind), 3)
    again = build(standin, tmp_path / "cut", kind)
    again.fit(checkpoints.newest_checkpoint(tmp_path / "cut"))
    one, other = standin.weights(whole.model), standin.weights(again.model)
    assert all(torch.equal(one[name], other[name]) for name in one) == same


def test_each_layer_begins_to_move_at_its_step(standin, tmp_path):
    seen = {}

    class Watch(GradualUnfreezing):
        def on_step_end(self, args, state, control, **values):
            seen[state.global_step] = standin.weights(values["model"])

    trainer = build(standin, tmp_path, Watch)
    seen[0] = standin.weights(trainer.model)
    trainer.fit()
    for stage in trainer.callback_handler.callbacks[-1].schedule.stages:
        for name in stage.names:
            moved = [s for s in range(1, 10) if not torch.equal(seen[s][name], seen[s - 1][name])]
            assert moved == list(range(stage.step + 1, 10)), (name, stage.step)


def test_rates_reach_the_optimizer_of_the_engine_and_keep_their_ratios(standin, tmp_path):
    trainer = build(standin, tmp_path)
    trainer.fit()
    rates = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates == {
        "head": 0.01, "layers.2": 0.005, "layers.1": 0.0025, "layers.0": 0.00125,
        "embeddings": 0.000625,
    }  # fmt: skip
    held = [weight for group in trainer.optimizer.param_groups for weight in group["params"]]
    assert (
        len(held) == len({id(weight) for weight in held}) == len(list(trainer.model.parameters()))
    )


def test_an_optimizer_that_lacks_later_weights_is_refused_in_the_hugging_face_trainer_too(
    standin, tmp_path
):
    model = standin.make_model(0)
    plan = surgery.unfreeze_gradually(model, every=1)
    rows = [{"input_ids": [3, 4, 5], "labels": [3, 4, 5]}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True,
        save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows, callbacks=[GradualUnfreezing(plan)]).train()
    plan.apply(model, 0)
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[GradualUnfreezing(plan)])
    with pytest.raises(ConfigError, match="the optimizer lacks weights"):
        trainer.train()
    assert isinstance(model, nn.Module)


def test_rates_and_a_rule_with_an_optimizer_exclude_each_other(standin, tmp_path):
    from domainformer.training.rules import attach, make_rules

    trainer = build(standin, tmp_path)
    with (
        attach(make_rules(["muon"]), trainer.model) as trainer.rules,
        pytest.raises(ConfigError, match="need the optimizer of the engine"),
    ):
        trainer.fit()
