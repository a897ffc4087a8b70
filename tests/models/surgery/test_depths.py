"""Depths, rates and plans: each weight exactly once, whatever the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery_cases import KINDS, Plain, make
from torch import nn
from transformers import Trainer, TrainingArguments

from domainformer.errors import SurgeryError
from domainformer.models.surgery import (
    UnfreezeSchedule,
    depth_groups,
    freeze,
    layerwise_learning_rates,
    unfreeze_gradually,
)

MODELS = {kind: make(kind) for kind in KINDS}
MODELS["no blocks"] = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
MODELS["one weight"] = nn.Linear(3, 1)


def is_a_partition(parts, whole) -> bool:
    """Whether some lists of tensors hold each tensor of another exactly once (by identity)."""
    flat = [id(weight) for part in parts for weight in part]
    return len(flat) == len(set(flat)) and set(flat) == {id(weight) for weight in whole}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(MODELS)))
def test_no_weight_is_lost_or_doubled_whatever_is_frozen(data, kind):
    model = MODELS[kind]
    weights = list(model.parameters())
    learns = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    for weight, on in zip(weights, learns, strict=True):
        weight.requires_grad_(on)
    wanted = [weight for weight in weights if weight.requires_grad]
    decay = data.draw(st.floats(0.1, 1.0))
    assert is_a_partition([[w.parameter for w in g.weights] for g in depth_groups(model)], weights)
    if not wanted:
        with pytest.raises(SurgeryError, match="nothing in"):
            layerwise_learning_rates(model, 1.0, decay)
        return
    groups = layerwise_learning_rates(model, 1.0, decay, weight_decay=0.1)
    assert is_a_partition([group["params"] for group in groups], wanted)
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates, reverse=True)
    plan = unfreeze_gradually(model, every=3)
    named = dict(model.named_parameters())
    assert is_a_partition([[named[n] for n in stage.names] for stage in plan.stages], wanted)
    torch.optim.AdamW(groups)  # refuses a weight that is in two groups
    for weight in weights:
        weight.requires_grad_(True)


def test_the_check_of_partitions_would_notice():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    assert is_a_partition([[a], [b]], [a, b])
    assert not is_a_partition([[a]], [a, b])
    assert not is_a_partition([[a, b], [a]], [a, b])


@pytest.mark.parametrize(
    ("kind", "name", "depth", "top"),
    [
        ("gpt2", "transformer.wte.weight", 0, 4),
        ("gpt2", "transformer.wpe.weight", 0, 4),
        ("gpt2", "transformer.h.1.attn.c_attn.weight", 2, 4),
        ("gpt2", "transformer.ln_f.weight", 4, 4),
        ("llama", "lm_head.weight", 4, 4),
        ("bert", "bert.embeddings.LayerNorm.weight", 0, 4),
        ("bert", "cls.predictions.transform.dense.weight", 4, 4),
        ("t5", "shared.weight", 0, 6),
        ("t5", "encoder.block.2.layer.0.SelfAttention.q.weight", 3, 6),
        ("t5", "encoder.final_layer_norm.weight", 3, 6),
        ("t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 1, 6),
        ("t5", "decoder.block.0.layer.1.EncDecAttention.q.weight", 4, 6),
        ("t5", "decoder.final_layer_norm.weight", 6, 6),
        ("plain", "position", 0, 4),
        ("plain", "norm.weight", 4, 4),
        ("wrapped", "module.blocks.2.mix.weight", 3, 4),
    ],
)  # fmt: skip
def test_depths_are_those_that_a_reader_would_name(kind, name, depth, top):
    groups = depth_groups(MODELS[kind])
    assert len(groups) == top + 1
    assert name in {one for weight in groups[depth].weights for one in weight.names}


def test_rates_fall_by_the_ratio_and_only_matrices_decay():
    model = Plain()
    groups = layerwise_learning_rates(model, 1.0, 0.5, weight_decay=0.1)
    rate = {id(w): (g["lr"], g["weight_decay"]) for g in groups for w in g["params"]}
    assert rate[id(model.norm.weight)] == (1.0, 0.0)
    assert rate[id(model.blocks[2].mix.weight)] == (0.5, 0.1)
    assert rate[id(model.blocks[0].mix.bias)] == (0.125, 0.0)
    assert rate[id(model.head.weight)] == (0.0625, 0.0)  # tied: an embedding, at its lowest place


def test_an_order_of_ones_own_must_take_each_weight_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    groups = depth_groups(model, ["1", "re:^[02]"])
    assert [len(group.weights) for group in groups] == [2, 4]
    with pytest.raises(SurgeryError, match="no pattern of the order takes 2 of 6"):
        depth_groups(model, ["0", "1"])
    with pytest.raises(SurgeryError, match="two patterns of the order take 2 of 6"):
        depth_groups(model, ["0", "1", "2", "*.weight", "2.bias"][:3] + ["re:^0"])
    with pytest.raises(SurgeryError, match="decay"):
        layerwise_learning_rates(model, 1.0, 1.5)


def test_the_plan_grows_from_the_head_down_and_survives_json():
    model = make("gpt2")
    freeze(model, "transformer.h.1")
    plan = unfreeze_gradually(model, every=10)
    assert [stage.part for stage in plan.stages] == [
        "head", "transformer.h.2", "transformer.h.0", "embeddings",
    ]  # fmt: skip
    assert [stage.step for stage in plan.stages] == [0, 10, 20, 30]
    again = UnfreezeSchedule.from_json(plan.to_json())
    assert again == plan
    for step in (0, 9, 10, 25, 30, 99, 0):
        again.apply(model, step)
        assert {n for n, w in model.named_parameters() if w.requires_grad} == plan.learning_at(step)
    with pytest.raises(SurgeryError, match="made for another model"):
        plan.apply(make("llama"), 0)
    with pytest.raises(SurgeryError, match="number of steps"):
        unfreeze_gradually(model, every=0)


def test_rates_reach_the_optimizer_of_the_hugging_face_trainer(tmp_path):
    model = make("gpt2")
    groups = layerwise_learning_rates(model, 0.01, 0.5)
    rows = [{"input_ids": [3, 4, 5], "labels": [3, 4, 5]}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True,
        lr_scheduler_type="constant", per_device_train_batch_size=2, save_strategy="no",
        logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=rows, optimizers=(torch.optim.AdamW(groups), None)
    )
    trainer.train()
    rates = {g["name"]: g["lr"] for g in trainer.optimizer.param_groups}
    assert rates["head"] == 0.01
    assert rates["transformer.h.2"] == 0.005
    assert rates["embeddings"] == 0.01 * 0.5**4


@pytest.mark.parametrize("numbers", [(float("nan"), 0.5, 0.0), (1.0, 0.5, -1.0), (0.0, 0.5, 0.0)])
def test_numbers_that_make_no_rates(numbers):
    rate, decay, weight_decay = numbers
    with pytest.raises(SurgeryError, match="make no rates"):
        layerwise_learning_rates(make("gpt2"), rate, decay, weight_decay=weight_decay)
