"""What holds for every learning rule, over the table in ``cases.py``."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from pydantic import PrivateAttr
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from domainformer.config import dump_yaml, parse_yaml
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.rules import RULES, LearningRule, attach, chain, make_rules, rule_class

# Tests are no package (importlib mode): the table beside this file is loaded by its path.
_spec = importlib.util.spec_from_file_location("cases", Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
CASES, WEAK, REMEMBERS, SILENT = cases.CASES, cases.WEAK, cases.REMEMBERS, cases.SILENT

V = 11
STEPS = 4
STOP = 3


def tiny(seed=0):
    torch.manual_seed(seed)
    config = DomainTransformerConfig.preset(
        "tiny",
        vocab_size=V,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        position_encoding="rope",
        max_position_embeddings=16,
    )
    model = DomainTransformerForCausalLM(config)
    return enlarge(model)


def enlarge(model):
    """Weights with which attention and activations are far from linear."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.4)
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def plain(model):
    return train(chain(), model)


@pytest.fixture(scope="module")
def whole(model):
    """The run of each rule that was not interrupted; every test has the same one."""
    done = {}

    def of(name, rule):
        if name not in done:
            done[name] = train(rule, model)
        return done[name]

    return of


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tiny(seed=1).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def make(teacher):
    def filled(settings):
        return {k: teacher if v == "{teacher}" else v for k, v in settings.items()}

    return lambda name, table=CASES: make_rules([{name: filled(table[name])}])


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, V, (4, 12), generator=generator)


def train(rule, model, *, start=None, steps=STEPS, seed=5):
    """Losses, and everything that a checkpoint after these steps would hold."""
    model = copy.deepcopy(model).train()
    with attach(rule, model, seed=seed) as attached:
        optimizer = attached.make_optimizer(
            learning_rate=0.01, weight_decay=0.1
        ) or torch.optim.AdamW(model.parameters(), lr=0.01)
        attached.bind(optimizer)
        first = 0
        if start is not None:
            model.load_state_dict(start.model)
            optimizer.load_state_dict(start.optimizer)
            attached.load_state_dict(start.rules)
            first = start.steps
        losses = []
        for step in range(first, steps):
            ids = batch(step)
            output = model(input_ids=ids, labels=ids)
            loss = with_terms(attached, output.loss, output.logits, ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with attached.evaluating():
            evaluated = {n: w.clone() for n, w in model.state_dict().items()}
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rules": attached.state_dict(),
            "steps": steps,
        }
        return losses, SimpleNamespace(**through_disk(state)), evaluated


def with_terms(attached, loss, logits, ids):
    targets = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    return attached.add_auxiliary(loss, logits, targets, {"input_ids": ids})


def through_disk(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def footprint(model):
    return (
        [
            (path, sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks))
            for path, m in model.named_modules()
        ],
        [(name, id(weight), weight.requires_grad) for name, weight in model.named_parameters()],
        model.config._attn_implementation,
        sorted(AttentionInterface._global_mapping),
        sorted(AttentionMaskInterface._global_mapping),
        model.training,
    )


def test_the_table_has_every_rule():
    assert set(CASES) == set(RULES)
    assert set(WEAK) | REMEMBERS | SILENT <= set(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_builds_from_yaml(name, make):
    (rule,) = make(name).rules
    assert rule.name == name
    assert type(rule) is rule_class(name)
    text = dump_yaml({"rules": [{name: rule.model_dump(mode="json")}]})
    assert make_rules(parse_yaml(text)["rules"]).rules == (rule,)


@pytest.mark.parametrize("name", sorted(CASES))
def test_leaves_nothing_behind(name, make, model):
    check_no_residue(make(name), model)


def check_no_residue(rule, model):
    model = copy.deepcopy(model).train()
    before, weights = footprint(model), copy.deepcopy(model.state_dict())
    ids = batch(0)
    with attach(rule, model) as attached:
        output = model(input_ids=ids, labels=ids)
        with_terms(attached, output.loss, output.logits, ids).backward()
    assert footprint(model) == before
    assert same(weights, model.state_dict())


@pytest.mark.parametrize("name", sorted(CASES))
def test_does_something_or_is_silent(name, make, plain, whole):
    expected, end, evaluated = plain
    losses, changed, other = whole(name, make(name))
    if name in SILENT:
        assert losses == expected
        assert same(changed.model, end.model)
        assert same(evaluated, other)
    else:
        assert not same(evaluated, other)


@pytest.mark.parametrize("name", sorted(WEAK))
def test_its_weak_form_is_bit_identical_to_no_rule(name, make, model, plain):
    expected, end, _ = plain
    losses, weak, _ = train(make(name, WEAK), model)
    assert losses == expected
    assert same(end.model, weak.model)


@pytest.mark.parametrize("name", sorted(CASES))
def test_depends_on_its_seed_alone(name, make, model, whole):
    check_randomness(make(name), model, whole(name, make(name)))


def check_randomness(rule, model, run):
    losses, end, _ = run
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, same_end, _ = train(rule, model)
    assert torch.equal(before, torch.get_rng_state()), "it drew from the global generator"
    assert losses == again
    assert same(vars(end), vars(same_end))


@pytest.mark.parametrize("name", sorted(CASES))
def test_goes_on_from_its_state_bit_identically(name, make, model, whole):
    check_resume(lambda: make(name), model, whole(name, make(name)))


def check_resume(make, model, run):
    losses, end, evaluated = run
    first, stopped, _ = train(make(), model, steps=STOP)
    rest, resumed, other = train(make(), model, start=stopped)
    assert first + rest == losses
    assert same(vars(end), vars(resumed))
    assert same(evaluated, other)


@pytest.mark.parametrize("name", sorted(REMEMBERS))
def test_a_resume_that_loses_its_state_differs(name, make, model, whole):
    _, _, evaluated = whole(name, make(name))
    _, stopped, _ = train(make(name), model, steps=STOP)
    with attach(make(name), copy.deepcopy(model)) as fresh:
        stopped.rules["rules"] = through_disk(fresh.state_dict())["rules"]
    _, _, other = train(make(name), model, start=stopped)
    assert not same(evaluated, other)


@pytest.mark.parametrize("name", sorted(n for n in CASES if rule_class(n).exact_gradient))
def test_its_gradient_is_the_true_one(name, make, model):
    check_gradient(make(name), model)


def check_gradient(rule, model):
    model = copy.deepcopy(model).double().train()
    ids = batch(0)[:1, :4]
    start = model.model.embed_tokens(ids).detach().requires_grad_()
    with attach(rule, model, seed=5) as attached:

        def outcome(embeddings):
            logits = model(inputs_embeds=embeddings).logits
            return logits, with_terms(attached, logits.new_zeros(()), logits, ids)

        assert torch.autograd.gradcheck(outcome, (start,), raise_exception=False)


@pytest.mark.parametrize("name", sorted(CASES))
def test_changes_evaluation_only_where_it_says_so(name, make, model):
    check_evaluation(make(name).rules[0], model)


def check_evaluation(rule, model):
    model = copy.deepcopy(model).eval()
    ids = batch(0)
    plain = model(ids).logits
    with attach(rule, model):
        changed = model(ids).logits
    assert torch.equal(plain, changed) is not rule.changes_function


class DrawsGlobally(LearningRule):
    name: ClassVar[str] = "draws_globally"
    sites: tuple[str, ...] = ("blocks.*.mlp",)

    def forward(self, value, at, state, moment):
        return value + torch.randn_like(value), state


class ClaimsATrueGradient(LearningRule):
    name: ClassVar[str] = "claims_a_true_gradient"
    exact_gradient: ClassVar[bool] = True
    sites: tuple[str, ...] = ("blocks.*.mlp",)

    def backward(self, gradient, at, state, moment):
        return gradient.sign(), state


class LeavesAHook(LearningRule):
    name: ClassVar[str] = "leaves_a_hook"

    @contextlib.contextmanager
    def around(self, model, sites, slot, moment):
        model.register_forward_hook(lambda *_: None)
        yield


class RemembersAside(LearningRule):
    name: ClassVar[str] = "remembers_aside"
    _seen: list[int] = PrivateAttr(default_factory=list)

    def update(self, gradients, state, parameters, moment):
        self._seen.append(moment.step)
        return {n: g * len(self._seen) for n, g in gradients.items()}, state


class ChangesEvaluation(LearningRule):
    name: ClassVar[str] = "changes_evaluation"
    sites: tuple[str, ...] = ("blocks.*.mlp",)

    def replace(self, at, original, state, moment):
        return lambda x: original(x) / 2


def test_rules_that_break_their_word_are_caught(model):
    with pytest.raises(AssertionError, match="global generator"):
        check_randomness(DrawsGlobally(), model, train(DrawsGlobally(), model))
    with pytest.raises(AssertionError):
        check_gradient(ClaimsATrueGradient(), model)
    with pytest.raises(AssertionError):
        check_no_residue(LeavesAHook(), model)
    with pytest.raises(AssertionError):
        check_resume(RemembersAside, model, train(RemembersAside(), model))
    with pytest.raises(AssertionError):
        check_evaluation(ChangesEvaluation(), model)


FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=V, n_embd=8, n_layer=2, n_head=2, n_positions=16, bos_token_id=0,
            eos_token_id=0, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
        )
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_small())),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_small(), head_dim=4)),
}  # fmt: skip


def _small():
    return {
        "vocab_size": V,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 16,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


@pytest.fixture(scope="module")
def families():
    torch.manual_seed(3)
    models = {family: enlarge(build()) for family, build in FAMILIES.items()}
    return {f: (model, train(chain(), model, steps=3)) for f, model in models.items()}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", sorted(CASES))
def test_works_in_every_family_of_models(name, family, make, families):
    model, (_, _, plain) = families[family]
    losses, _, evaluated = train(make(name), model, steps=3)
    assert all(math.isfinite(loss) for loss in losses)
    assert same(evaluated, plain) is (name in SILENT)
