"""Batches by (seed, epoch, number) alone, equal to the trainer's; batch sizes that pay."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from domainformer.data import SequenceBuilder
from domainformer.data.dataset import IGNORED
from domainformer.errors import ConfigError
from domainformer.training import Batcher, find_batch_size
from domainformer.training.sampler import EpochBatches

IDS = np.random.default_rng(0).permutation(500)


def windows(seed=0, context=7, stride=3):
    return SequenceBuilder(context, stride).build([IDS[:300], IDS[300:]], seed=seed)


def seen(batcher):
    return [batch["input_ids"].tolist() for batch in batcher]


# ── batches ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch_size", [1, 8, 50, 1000])
def test_batches_are_those_of_the_trainer(batch_size):
    rows = windows()
    batcher = Batcher(rows, batch_size)
    for epoch in range(6):
        rows.set_epoch(epoch)
        batcher.set_epoch(epoch)
        plan = EpochBatches(rows, batcher.rows, batch_size)
        assert len(batcher) == len(plan)
        for batch, numbers in zip(batcher, plan, strict=True):
            for key in ("input_ids", "labels"):
                assert batch[key].tolist() == [rows[number][key].tolist() for number in numbers]
                assert batch[key].dtype == torch.int64
    assert batcher.epoch == 5


def test_no_global_generator_moves_or_matters():
    batcher = Batcher(windows(), 8)
    expected = seen(batcher)
    numpy_state = np.random.mtrand._rand.get_state  # of the global generator
    before = torch.get_rng_state(), numpy_state()[1].copy(), random.getstate()
    batcher.set_epoch(1)
    seen(batcher)
    after = torch.get_rng_state(), numpy_state()[1], random.getstate()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    torch.manual_seed(5)
    random.seed(5)
    batcher.set_epoch(0)
    assert seen(batcher) == expected


def test_any_batch_is_found_without_those_before_it():
    batcher = Batcher(windows(), 8, seed=4, epoch=2)
    whole = seen(batcher)
    again = Batcher(windows(), 8, seed=4, epoch=2)
    for index in reversed(range(len(again))):
        assert again.batch(index)["input_ids"].tolist() == whole[index]
    assert whole == seen(Batcher(windows(seed=4), 8, epoch=2))
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}, {}):
        assert seen(Batcher(windows(), 8, **other)) != whole
    with pytest.raises(IndexError):
        again.batch(len(again))


def test_batchers_do_not_disturb_each_other():
    shared = windows()
    one = Batcher(shared, 8)
    expected = seen(one)
    Batcher(shared, 8, epoch=3)
    shared.set_epoch(2)
    assert seen(one) == expected
    assert shared.epoch == 2


def test_take_repeats_where_rows_are_too_few():
    batcher = Batcher(windows(), 8)
    batch = batcher.take(2 * len(windows()) + 1)["input_ids"]
    assert len(batch) == 2 * len(windows()) + 1
    assert torch.equal(batch[0], batch[-1])
    assert torch.equal(batch[:8], batcher.batch(0)["input_ids"])


def test_scoring_in_filled_batches_gives_the_loss_of_the_rows_alone():
    from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM

    torch.manual_seed(0)
    config = DomainTransformerConfig.preset("tiny", vocab_size=500)
    model = DomainTransformerForCausalLM(config).eval()
    documents = [IDS[:40], IDS[40:43], IDS[43:60]]
    scored = SequenceBuilder(8).build_scoring(documents)
    totals = []
    with torch.no_grad():
        for batch_size in (1, 4, 100):
            total = 0.0
            for batch in Batcher(scored, batch_size):
                count = int((batch["labels"][:, 1:] != IGNORED).sum())
                total += float(model(**batch).loss) * count
            totals.append(total / scored.n_targets)
        oracle = 0.0
        for document in documents:
            for place in range(1, len(document)):
                start = (place - 1) // 8 * 8  # what the grid lets it see
                ids = torch.from_numpy(document[start:place][None])
                logits = model(ids).logits[0, -1].log_softmax(-1)
                oracle -= float(logits[document[place]])
    assert totals == pytest.approx([oracle / scored.n_targets] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"epoch": -1}, "epoch must not be negative"),
        ({"device": "gpu"}, "no device 'gpu'"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Batcher(windows(), **({"batch_size": 2} | arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no cuda device"):
        Batcher(windows(), 2, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_processor():
    on_gpu, on_cpu = Batcher(windows(), 8, "cuda"), Batcher(windows(), 8)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert one["input_ids"].device.type == "cuda"
        assert torch.equal(one["input_ids"].cpu(), other["input_ids"])
        assert torch.equal(one["labels"].cpu(), other["labels"])


# ── batch size ────────────────────────────────────────────────────────────────────────────────


class Machine:
    """A step that takes ``seconds(rows)`` of a clock of its own, and notes what it was asked."""

    def __init__(self, seconds, room=10**9):
        self.now, self.asked, self._seconds, self._room = 0.0, [], seconds, room

    def step(self, rows):
        self.asked.append(rows)
        if rows > self._room:
            raise torch.OutOfMemoryError("full")
        warming = 1.0 if self.asked.count(rows) == 1 else 0.0
        self.now += self._seconds(rows) + warming

    def find(self, candidates=(4, 8, 16, 32, 64, 128), **arguments):
        return find_batch_size(self.step, candidates, clock=lambda: self.now, **arguments)


def flat_until(rows):
    return lambda asked: 0.01 * max(asked, rows) / rows


def test_the_smallest_size_that_is_as_fast_as_the_best_is_taken():
    machine = Machine(flat_until(32))
    choice = machine.find()
    assert choice.rows == 32
    assert [found.rows for found in choice.measured] == [4, 8, 16, 32, 64, 128]
    assert max(machine.asked) == 128
    throughputs = [found.rows_per_second for found in choice.measured[:4]]
    assert all(high == pytest.approx(2 * low) for low, high in pairwise(throughputs))
    assert choice.render().splitlines()[4].split() == ["32", "3,200", "◀"]


def test_the_search_ends_where_larger_sizes_bring_nothing():
    machine = Machine(flat_until(4))
    assert machine.find((64, 4, 8, 16, 32)).rows == 4
    assert max(machine.asked) == 16
    assert Machine(flat_until(40)).find(tolerance=0.3).rows == 32
    assert Machine(flat_until(40)).find().rows == 64


def test_the_search_ends_where_memory_ends():
    machine = Machine(flat_until(1000), room=20)
    choice = machine.find()
    assert choice.rows == 16
    assert choice.measured[-1].seconds is None
    assert machine.asked.count(32) == 1
    assert "no room" in choice.render()
    with pytest.raises(ConfigError, match="not even 4 rows"):
        Machine(flat_until(1), room=3).find()


def test_a_meter_keeps_steps_from_being_run_that_would_not_fit():
    class Meter:
        def bytes_for(self, rows):
            return rows * 2**20

    machine = Machine(flat_until(1000))
    choice = machine.find(meter=Meter(), budget=20 * 2**20)
    assert choice.rows == 16
    assert max(machine.asked) == 16
    assert choice.measured[-1].bytes == 32 * 2**20
    assert choice.render().splitlines()[3].split() == ["16", "1,600", "16", "◀"]


def test_other_errors_of_a_step_are_not_taken_for_memory():
    def broken(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        find_batch_size(broken, (1, 2))

    def full(rows):
        if rows > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    assert find_batch_size(full, (1, 2)).rows == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"candidates": ()},
        {"candidates": (0, 1)},
        {"repeats": 0},
        {"tolerance": 1.0},
        {"budget": 10.0},
    ],
)
def test_searches_that_make_no_sense_are_refused(arguments):
    machine = Machine(flat_until(4))
    with pytest.raises(ConfigError):
        machine.find(**arguments)
    assert not machine.asked
