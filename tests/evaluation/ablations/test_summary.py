"""Differences are paired, told on what is common, and as sure as events and seeds allow."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from domainformer.config import build
from domainformer.evaluation.ablations import Ablation, Base, Variant
from domainformer.evaluation.ablations.differences import differ
from domainformer.evaluation.ablations.plan import Plan
from domainformer.evaluation.ablations.scores import HeldOut, SlotFacts
from domainformer.evaluation.ablations.summary import summarise
from domainformer.evaluation.ablations.trials import Trial
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.training.config import RunConfig

N = 200
KIND, EASY = SlotFacts("kind", "aa", density=False), SlotFacts("easy", "bb", density=False)
FEW, MANY = SlotFacts("amount", "b8", density=True), SlotFacts("amount", "b64", density=True)
BASE = Base(build(RunConfig, {}), DomainSchema("s", [FieldSpec("kind", "sign")]))


def trial(seed, slots, losses, *, events=None, downstream=None, whole=None):
    """A trial with the same loss at all events but for noise that base and variant share."""
    noise = np.random.default_rng(5).normal(size=(N, 1))
    events = np.arange(N) if events is None else events
    loss = (np.asarray(losses)[None] + noise)[events]
    joint = loss.sum(axis=1) if whole is None else np.full(len(loss), whole)
    held_out = HeldOut(events, loss, (loss < 1).astype(float), joint, tuple(slots))
    facts = {
        "tokens_per_event": float(len(slots)),
        "tokens": 1000,
        "seconds": 2.0,
        "seconds_in_all": 3.0,
        "parameters": 10,
        "eval_loss": float(np.mean(losses)),
        "downstream": downstream
        and {"measure": "auroc", "value": downstream, "higher_is_better": True},
    }
    return Trial(Path(), seed, facts, held_out)


def rows_of(base, **variants):
    """Rows and common slots of one axis ``a``."""
    plan = Plan(
        BASE, (Variant("base", "base"), *(Variant("a", name) for name in variants)), ("a",), ()
    )
    trials = {"base": base} | {f"a-{name}": found for name, found in variants.items()}
    rows, common = summarise(plan, trials, np.arange(N) // 4)
    return {row.variant: row for row in rows}, common["a"]


def test_a_field_that_is_easy_to_guess_helps_the_loss_per_token_and_not_ours():
    base = [trial(0, [KIND, EASY], [1.0, 0.0])]
    rows, common = rows_of(base, without=[trial(0, [KIND], [1.0])])
    assert rows["base"].eval_loss < rows["without"].eval_loss  # per token the base looks better
    assert common.loss == ("kind",)
    assert common.left_out == ("easy",)
    assert rows["without"].loss.difference.value == 0
    assert rows["without"].loss.difference.better is None


def test_bins_are_compared_as_densities_and_not_by_right_guesses():
    base = [trial(0, [KIND, FEW], [1.0, 2.0])]
    rows, common = rows_of(base, finer=[trial(0, [KIND, MANY], [1.0, 1.5])])
    assert common.loss == ("kind", "amount")
    assert common.accuracy == ("kind",)
    assert rows["finer"].loss.difference.value == pytest.approx(-0.5)
    assert rows["finer"].loss.difference.better is True


def test_whole_events_are_compared_where_all_have_the_same_fields():
    base = [trial(0, [KIND, FEW], [1.0, 2.0], whole=5.0)]
    rows, common = rows_of(base, finer=[trial(0, [KIND, MANY], [1.0, 1.5], whole=4.0)])
    assert common.joint
    assert rows["finer"].loss.difference.value == pytest.approx(-1)
    # What cannot be told of whole events, or not of the same ones, is told of fields.
    for other in (trial(0, [KIND, MANY], [1.0, 1.5], whole=np.nan), trial(0, [KIND], [1.0])):
        _, common = rows_of(base, other=[other])
        assert not common.joint


def test_pairing_sees_what_the_noise_of_events_would_hide():
    base = [trial(0, [KIND], [1.0])]
    rows, _ = rows_of(base, worse=[trial(0, [KIND], [1.01])])
    difference = rows["worse"].loss.difference
    assert difference.value == pytest.approx(0.01)
    assert difference.better is False  # the noise has a standard deviation of 1


def test_only_events_that_all_were_shown_count():
    shown = np.arange(0, N, 2)
    base = [trial(0, [KIND], [1.0])]
    rows, common = rows_of(base, half=[trial(0, [KIND], [1.0], events=shown)])
    assert common.events == len(shown)
    assert rows["half"].loss.difference.value == pytest.approx(0)
    assert rows["base"].loss.value == pytest.approx(rows["half"].loss.value)


def test_noise_of_seeds_widens_the_interval():
    base = [trial(seed, [KIND], [1.0]) for seed in range(3)]
    steady = [trial(seed, [KIND], [0.9]) for seed in range(3)]
    shaky = [trial(seed, [KIND], [0.9 + step]) for seed, step in enumerate((-0.3, 0, 0.3))]
    rows, _ = rows_of(base, steady=steady, shaky=shaky)
    assert rows["steady"].loss.difference.better is True
    assert rows["shaky"].loss.difference.value == pytest.approx(-0.1)
    assert rows["shaky"].loss.difference.better is None
    assert rows["shaky"].loss.difference.spread == pytest.approx(0.3)


def test_the_interval_is_that_of_student():
    found = differ({0: 1.0, 1: 2.0, 2: 3.0}, higher_is_better=True)
    assert found.value - found.low == pytest.approx(4.303 / 3**0.5)
    both = differ({0: 1.0, 1: 2.0, 2: 3.0}, drawn=1.0, higher_is_better=True)
    assert (both.value - both.low) ** 2 == pytest.approx(1 + 4.303**2 / 3)


def test_downstream_and_what_was_not_trained_to_tell_events():
    base = [trial(0, [KIND], [1.0], downstream=0.7)]
    silent = trial(0, [KIND], [9.0], downstream=0.8)
    rows, _ = rows_of(base, other=[Trial(Path(), 0, silent.facts, None)])
    assert rows["other"].loss is None
    assert rows["other"].downstream.difference.value == pytest.approx(0.1)
    assert rows["other"].downstream.difference.better is None  # one seed says nothing for sure
    found = Ablation(Path("x"), list(rows.values()), {}, {}, "auroc", ["a note"], 1.0)
    out = io.StringIO()
    Console(file=out, width=140).print(found.render())
    assert "+0.100" in out.getvalue()
    assert "a note" in out.getvalue()
