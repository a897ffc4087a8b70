"""Training a next-item model: the loss, the targets, what it learns, what is repeatable."""

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.config import build
from domainformer.data import EventTable
from domainformer.data.item_histories import ItemHistories
from domainformer.errors import ArtifactError, ConfigError, DataError, InputError
from domainformer.inference.items import ItemRecommender, best_of
from domainformer.models.item_transformer import ItemAttributes
from domainformer.training.items import fit_items, future_targets
from domainformer.training.items_config import ItemsConfig

SMALL = {"width": 16, "context": 8, "batch_users": 32, "warmup_steps": 5, "threads": 1}
RING = 12


def rings(users=150, seed=0, step=1):
    """Everyone walks round a ring of items: the next item is always the one ``step`` on."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 11, users)
    first = random.integers(RING, size=users)
    items = np.concatenate(
        [(a + step * np.arange(n)) % RING for a, n in zip(first, lengths, strict=True)]
    )
    return ItemHistories(items, np.concatenate([[0], np.cumsum(lengths)]), RING)


def config(**more):
    return ItemsConfig(**{**SMALL, "epochs": 15, "reach": 1, "learning_rate": 0.02} | more)


@pytest.mark.parametrize(
    "more",
    [{}, {"negatives": 6}, {"precision": "bf16"}, {"reach": 3, "gap_decay": 0.3, "epochs": 25}],
)
def test_a_rule_of_succession_is_learned(more):
    histories = rings()
    fit = fit_items(histories.without_last(1), config(**more))
    items, values = ItemRecommender([fit.model]).best(histories.without_last(1), 3)
    assert (items[:, 0] == histories.last(1)).mean() > 0.95
    assert (np.diff(values) <= 0).all()
    if more.get("reach") == 3:  # the second and third guess are the items after the next
        assert (items[:, 1] == (histories.last(1) + 1) % RING).mean() > 0.8


def test_validation_keeps_the_best_weights_and_patience_stops():
    histories = rings(60)
    judged = histories.without_last(1), histories.last(1)
    fit = fit_items(
        histories.without_last(1),
        config(epochs=40, evaluate_every=1, patience=2, learning_rate=0.05),
        validation=judged,
    )
    figures = [entry["ndcg@10"] for entry in fit.curve]
    assert fit.epoch == int(np.argmax(figures)) + 1
    assert len(fit.curve) < 40
    best, _ = ItemRecommender([fit.model]).best(judged[0], 10)
    _, rank = np.nonzero(best == judged[1][:, None])
    assert (1 / np.log2(rank + 2)).sum() / 60 == pytest.approx(max(figures))


def test_a_training_repeats_itself_and_leaves_the_generator_alone():
    histories = rings(40)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (fit_items(histories, config(epochs=2)).model for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    other = fit_items(histories, config(epochs=2, seed=1)).model
    assert torch.equal(first.item_table(), second.item_table())
    assert not torch.equal(first.item_table(), other.item_table())


def test_stop_after_follows_the_whole_schedule():
    histories = rings(40)
    whole = fit_items(histories, config(epochs=4))
    part = fit_items(histories, config(epochs=4), stop_after=2)
    assert part.epoch == 2
    assert [entry["loss"] for entry in part.curve] == [e["loss"] for e in whole.curve[:2]]


def test_targets_stop_at_the_end_of_the_history():
    items = np.array([1, 2, 3, 9, 9])
    targets, shares = future_targets(items, np.array([0, 1, 2]), np.full(3, 3), (1.0, 0.5, 0.25))
    assert targets[0].tolist() == [1, 2, 3]
    assert not (targets == 9).any()  # the next user's
    assert shares[1].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert shares[2].tolist() == [1, 0, 0]


def test_attributes_tell_about_an_item_that_was_never_seen():
    """Items of one kind are followed by item 0; one of that kind is not in the training."""
    random = np.random.default_rng(0)
    first = random.choice([2, 3, 4, 6, 7, 8], 200)
    after = np.where(first < 6, 0, 1)
    histories = ItemHistories(np.c_[first, after].ravel(), np.arange(0, 401, 2), 10)
    sets = [["zero"], ["one"], *[["a"]] * 4, *[["b"]] * 4]
    unseen = ItemHistories(np.array([5, 9]), np.array([0, 1, 2]), 10)
    fit = fit_items(histories, config(), attributes=ItemAttributes.of(sets))
    best, _ = ItemRecommender([fit.model]).best(unseen, 1)
    assert best.ravel().tolist() == [0, 1]
    blind = fit_items(histories, config())
    scores = ItemRecommender([blind.model]).log_probabilities(unseen)
    assert abs((scores[0, 0] - scores[0, 1]) - (scores[1, 0] - scores[1, 1])) < 1


def test_recommenders_read_tables_and_travel_as_a_folder(tmp_path):
    histories = rings(40)
    fits = [fit_items(histories, config(epochs=2, seed=seed)) for seed in (0, 1)]
    sets = [[f"kind {item % 3}"] for item in range(RING)]
    fits.append(fit_items(histories, config(epochs=1), attributes=ItemAttributes.of(sets)))
    catalogue = pl.Series("sku", [f"s{number:02d}" for number in range(RING)])
    models = [fit.model for fit in fits]
    recommender = ItemRecommender(models, catalogue, True, {"task": "rings"})
    frame = pl.DataFrame({"who": [1, 1, 2, 3], "sku": ["s03", "s04", "gone", "s05"]})
    table = EventTable.of(frame, entity="who")
    found = recommender.recommend(table, RING)
    assert found.group_by("who", maintain_order=True).len()["len"].to_list() == [10, 12, 11]
    assert not found.filter(pl.col("who") == 1)["sku"].is_in(["s03", "s04"]).any()
    alone = [ItemRecommender([m]).log_probabilities(histories) for m in models]
    mean = np.log(np.mean(np.exp(np.array(alone, np.float64)), axis=0))
    assert np.allclose(recommender.log_probabilities(histories), mean, atol=1e-5)
    again = ItemRecommender.load(recommender.save(tmp_path / "items"))
    assert again.recommend(table, RING).equals(found)
    assert again.record == {"task": "rings"}
    (tmp_path / "items" / "model-1.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        ItemRecommender.load(tmp_path / "items")


def test_best_of_is_a_stable_sort():
    scores = np.random.default_rng(0).integers(0, 6, (50, 30)).astype(float)
    scores[scores == 0] = -np.inf
    for k in (1, 7, 30):
        items, values = best_of(scores, k)
        oracle = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert (items == oracle).all()
        assert (values == np.take_along_axis(scores, oracle, 1)).all()


def test_bad_input_is_told():
    with pytest.raises(ConfigError, match="heads do not divide"):
        build(ItemsConfig, {"width": 10, "heads": 4})
    with pytest.raises(ConfigError, match="full softmax"):
        build(ItemsConfig, {"negatives": 5, "precision": "bf16"})
    with pytest.raises(DataError, match="nothing to learn from"):
        fit_items(ItemHistories(np.zeros(0, np.int64), np.zeros(3, np.int64), 4))
    with pytest.raises(DataError, match="no number"):
        fit_items(rings(), config(learning_rate=1e30, max_grad_norm=0.0))
    model = fit_items(rings(20), config(epochs=1)).model
    with pytest.raises(DataError, match="do not fit"):
        ItemRecommender([model], pl.Series("sku", ["a", "b"]))
    with pytest.raises(InputError, match="k is 13"):
        ItemRecommender([model]).best(rings(3), 13)
    table = EventTable.of(pl.DataFrame({"who": [1], "sku": [1]}), entity="who")
    with pytest.raises(DataError, match="no names"):
        ItemRecommender([model]).recommend(table)
    named = ItemRecommender([model], pl.Series("sku", [str(n) for n in range(RING)]))
    with pytest.raises(DataError, match="is Int64, the catalogue String"):
        named.recommend(table)


def test_a_catalogue_smaller_than_the_cutoff_has_a_validation():
    items = np.tile(np.arange(4), 30)
    histories = ItemHistories(items, np.arange(0, 121, 4), 4)
    judged = histories.without_last(1), histories.last(1)
    fit = fit_items(
        histories.without_last(1), config(epochs=2, evaluate_every=1), validation=judged
    )
    assert [entry["recall@10"] for entry in fit.curve] == [1.0, 1.0]
    nobody = histories.take(np.empty(0, np.int64)), np.empty(0, np.int64)
    with pytest.raises(DataError, match="nothing to stop by"):
        fit_items(histories, config(epochs=1), validation=nobody)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    fit_items(rings(10), config(epochs=1, threads=before + 1))
    assert torch.get_num_threads() == before


def test_a_catalogue_keeps_its_order():
    table = EventTable.of(pl.DataFrame({"who": [1, 1, 2], "item": ["a", "c", "b"]}), entity="who")
    histories = ItemHistories.of(table, "item", ["c", "b", "a"])
    assert histories.items.tolist() == [2, 0, 1]
    assert ItemHistories.of(table, "item").items.tolist() == [0, 2, 1]
