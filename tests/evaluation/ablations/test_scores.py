"""The loss that is compared is the same for tokenizations that know the same."""

import math

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ArtifactError
from domainformer.evaluation.ablations.scores import (
    RESOLUTION,
    HeldOut,
    SlotFacts,
    _log_widths,
    magnitude_limits,
    slot_facts,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer


def tokenizer_of(table, n_bins):
    spec = FieldSpec("amount", "numerical_continuous", n_bins=n_bins, binning="log")
    return DomainTokenizer(DomainSchema("s", [FieldSpec("kind", "text"), spec])).fit(table)


def table_of(amounts):
    n = len(amounts)
    frame = pl.DataFrame({"who": [0] * n, "at": range(n), "kind": ["a"] * n, "amount": amounts})
    return EventTable.of(frame, entity="who", time="at")


def density_loss(table, n_bins):
    """The loss of who knows that ln |x| is uniform, told through bins: −log(1 / bins) + width."""
    tokenizer = tokenizer_of(table, n_bins)
    limits = magnitude_limits(tokenizer.schema, table)
    slot = tokenizer.slots[-1]
    values = np.full((slot.width, 2), -1, np.int32)
    values[:, 1] = np.arange(slot.width)  # missing, zero, and each bin once
    widths = _log_widths(tokenizer, limits, values)
    assert not widths[:, 0].any()
    assert not widths[:2].any()
    return math.log(n_bins - 1) + widths[2:, 1]


@pytest.mark.parametrize("n_bins", [3, 9, 65])
def test_a_density_does_not_depend_on_the_number_of_bins(n_bins):
    table = table_of(np.exp(np.linspace(0, 6, 1001)))
    loss = density_loss(table, n_bins)
    assert np.allclose(loss, math.log(6), atol=1e-6)


def test_sabotage_without_widths_more_bins_would_look_worse():
    assert math.log(64) > math.log(8)
    table = table_of(np.exp(np.linspace(0, 6, 1001)))
    assert density_loss(table, 9).mean() == pytest.approx(density_loss(table, 65).mean())


def test_a_value_that_is_always_the_same_is_not_infinitely_good():
    table = table_of([5.0] * 20)
    tokenizer = tokenizer_of(table, 4)
    limits = magnitude_limits(tokenizer.schema, table)
    width = tokenizer.slots[-1].width
    values = np.stack([np.full(width, -1), np.arange(width)], axis=1).astype(np.int32)
    widths = _log_widths(tokenizer, limits, values)
    assert widths.min() >= math.log(RESOLUTION) - 1e-9


def test_slots_are_the_same_where_their_tokens_are():
    table = table_of(np.exp(np.linspace(0, 6, 200)))
    few, many = slot_facts(tokenizer_of(table, 5)), slot_facts(tokenizer_of(table, 9))
    assert few[0] == many[0]
    assert few[1].density
    assert few[1].tokens != many[1].tokens
    # As many bins, but elsewhere: the tokens read the same and mean something else.
    other = table_of(np.exp(np.linspace(0, 7, 200)))
    assert slot_facts(tokenizer_of(other, 5))[1].tokens != few[1].tokens


def test_what_was_said_is_kept(tmp_path):
    slots = (SlotFacts("kind", "f00d", density=False),)
    said = HeldOut(
        np.array([3, 5]),
        np.array([[0.5], [np.nan]]),
        np.array([[1.0], [np.nan]]),
        np.array([2.0, np.nan]),
        slots,
    )
    path = tmp_path / "heldout.npz"
    said.save(path)
    back = HeldOut.load(path, [vars(slots[0])])
    assert back.slots == slots
    assert np.array_equal(back.loss, said.loss, equal_nan=True)
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"no numbers")
    with pytest.raises(ArtifactError, match="cannot be read"):
        HeldOut.load(path, [])
