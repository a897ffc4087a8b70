"""The source's entropies are those of long draws, and its counts those of a slow count."""

import math

import numpy as np
import pytest
import torch

from domainformer.errors import DataError
from domainformer.evaluation.checks.source import Counts, MarkovSource, TextWindows


def test_the_entropy_rate_is_that_of_long_draws():
    source = MarkovSource.for_vocabulary(40, seed=3)
    ids = source.draw(64, 400, seed=0)
    assert int(ids.min()) >= 4
    assert abs(float(source.nll(ids).mean()) - source.entropy_rate) < 0.02
    shares = torch.bincount(ids.flatten() - 4, minlength=24).double() / ids.numel()
    np.testing.assert_allclose(shares, source.stationary, atol=0.01)
    assert source.entropy_rate < source.unigram_entropy < math.log(24)


def test_the_entropy_of_a_chain_by_hand():
    source = MarkovSource(np.array([[0.5, 0.5], [1.0, 0.0]]))
    np.testing.assert_allclose(source.stationary, [2 / 3, 1 / 3])
    assert source.entropy_rate == pytest.approx(2 / 3 * math.log(2))


def test_draws_repeat_and_held_out_ones_are_others():
    source = MarkovSource.for_vocabulary(40)
    first = source.draw(2, 9, seed=1)
    assert torch.equal(first, source.draw(2, 9, seed=1))
    assert not torch.equal(first, source.draw(2, 9, seed=1, held_out=True))


def test_counts_equal_a_slow_count():
    rows = torch.tensor([[1, 2, 1], [2, 2, 5]])
    counts = Counts.of(rows, 7)
    single = [rows.flatten().tolist().count(i) + 0.5 for i in range(7)]
    backing = [one / sum(single) for one in single]
    scored = torch.tensor([[1, 2, 6]])
    expected = -(math.log(backing[2]) + math.log(backing[6])) / 2
    assert counts.unigram_loss(scored) == pytest.approx(expected)
    # 1 is followed once, by 2; 2 twice, by 1 and by 2 ... and by 5.
    pairs = [(1 + 2 * backing[2]) / (1 + 2), (0 + 2 * backing[6]) / (3 + 2)]
    assert counts.bigram_loss(scored) == pytest.approx(-sum(map(math.log, pairs)) / 2)


def test_what_is_held_out_is_never_drawn_for_training():
    windows = TextWindows(torch.arange(100), shortest=10)
    assert int(windows.draw(200, 8, seed=0).max()) < 80
    assert int(windows.draw(200, 8, seed=0, held_out=True).min()) >= 80
    with pytest.raises(DataError, match="the checks need 100"):
        TextWindows(torch.arange(50), shortest=20)
