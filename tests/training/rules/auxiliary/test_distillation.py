"""A teacher: what is learned from it, and when it is refused."""

from __future__ import annotations

import copy
import io
import math
import shutil

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from domainformer.errors import FingerprintError, RegistryError, RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.registry import Registry
from domainformer.training.rules import attach
from domainformer.training.rules.auxiliary import Distillation

V = 11


def tiny(seed, vocab_size=V):
    torch.manual_seed(seed)
    config = DomainTransformerConfig.preset(
        "tiny",
        vocab_size=vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return DomainTransformerForCausalLM(config)


@pytest.fixture
def teacher(tmp_path):
    model = tiny(1)
    model.save_pretrained(tmp_path / "teacher")
    return model.eval(), tmp_path / "teacher"


IDS = torch.tensor([[1, 4, 2, 9, 3], [5, 5, 8, 0, 2]])
TARGETS = torch.tensor([[4, 2, 9, 3, -100], [5, -100, 0, 2, -100]])
INPUTS = {"input_ids": IDS, "labels": IDS}


def term(attached, model):
    return attached.add_auxiliary(torch.zeros(()), model(IDS).logits, TARGETS, INPUTS)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_is_the_divergence_of_the_slow_formula(teacher, temperature):
    model, folder = teacher
    student = tiny(0).train()
    rule = Distillation(teacher=str(folder), weight=0.5, temperature=temperature)
    with attach(rule, student) as attached:
        found = term(attached, student).item()
    slow, given, own = [], model(IDS).logits / temperature, student(IDS).logits / temperature

    def shares(logits):
        powers = [math.exp(number) for number in logits.tolist()]
        return [power / sum(powers) for power in powers]

    for row, i in (TARGETS != -100).nonzero().tolist():
        p, q = shares(given[row, i]), shares(own[row, i])
        slow.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    assert found == pytest.approx(0.5 * temperature**2 * sum(slow) / len(slow), rel=1e-4)
    assert found > 0.01


def test_a_student_that_is_the_teacher_has_nothing_to_learn(teacher):
    model, folder = teacher
    student = copy.deepcopy(model).train()
    with attach(Distillation(teacher=str(folder)), student) as attached:
        loss = term(attached, student)
        loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(float(weight.grad.abs().max()) < 1e-6 for weight in student.parameters())


def test_learns_from_a_teacher_of_another_family(tmp_path):
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=V, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0,
        eos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    student = tiny(0).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    with attach(Distillation(teacher=str(tmp_path / "gpt2")), student) as attached:
        attached.bind(optimizer)
        losses = []
        for _ in range(40):
            loss = term(attached, student)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 5
        assert attached.metrics() == {"rule_distillation_term": pytest.approx(losses[-1])}


def test_the_state_names_the_teacher_and_does_not_hold_it(teacher):
    _, folder = teacher
    student = tiny(0).train()
    with attach(Distillation(teacher=str(folder)), student) as attached:
        assert not any("teacher" in name for name, _ in student.named_modules())
        buffer = io.BytesIO()
        torch.save(attached.state_dict(), buffer)
    assert buffer.tell() < 4000


def test_a_run_does_not_go_on_with_another_teacher(teacher, tmp_path):
    _, folder = teacher
    student = tiny(0).train()
    rule = Distillation(teacher=str(folder))
    with attach(rule, student) as attached:
        term(attached, student)
        state = copy.deepcopy(attached.state_dict())
    shutil.move(folder, tmp_path / "moved")
    with attach(Distillation(teacher=str(tmp_path / "moved")), student) as attached:
        attached.load_state_dict(state)
        term(attached, student)  # the same files, elsewhere
    tiny(2).save_pretrained(folder)
    with attach(rule, student) as attached:
        attached.load_state_dict(state)
        with pytest.raises(FingerprintError, match="another teacher"):
            term(attached, student)


def test_refuses_what_is_no_teacher(teacher, tmp_path):
    _, folder = teacher
    with (
        pytest.raises(RuleError, match=r"11 tokens, the model 12"),
        attach(Distillation(teacher=str(folder)), tiny(0, vocab_size=12)),
    ):
        pass
    with (
        pytest.raises(RegistryError, match="nowhere"),
        attach(Distillation(teacher=str(tmp_path / "nowhere")), tiny(0)),
    ):
        pass
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with (
        pytest.raises(RegistryError, match="pytorch_model"),
        attach(Distillation(teacher=str(folder)), tiny(0)),
    ):
        pass
    with pytest.raises(RuleError, match="attached"):
        Distillation(teacher=str(folder))._teacher_of({})


def test_a_registered_teacher_is_named_and_verified(teacher, tmp_path):
    _, folder = teacher
    root = tmp_path / "models"
    Registry(root).publish(folder, "large")
    named = Distillation(teacher="large", registry=str(root))
    found = []
    for rule in (Distillation(teacher=str(folder)), named):
        student = tiny(0).train()
        with attach(rule, student) as attached:
            found.append(term(attached, student).item())
    assert found[0] == found[1]
    (root / "large" / "model.safetensors").write_bytes(b"other")
    with (
        pytest.raises(RegistryError, match="not those that were registered"),
        attach(named, student),
    ):
        pass
