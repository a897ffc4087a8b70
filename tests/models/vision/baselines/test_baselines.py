"""Every baseline keeps to the interface of selectors; each against a slow, obvious version."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision import CompressionRequest, ImageTokens, TokenSelector
from domainformer.models.vision.baselines import BASELINES, baseline
from domainformer.models.vision.baselines.diversity import farthest_points
from domainformer.models.vision.baselines.grids import placed, smaller_grid
from domainformer.models.vision.baselines.merging import match
from domainformer.models.vision.baselines.pooling import pooled

LOOKS_INSIDE = {"down_sampling", "attention_rank"}
ALONE = [name for name in BASELINES if name not in LOOKS_INSIDE]
CHANGES_FEATURES = {"average_pooling", "token_merging"}


def request_of(grids=((4, 3), (2, 4), (4, 3)), *, budgets=(4, 3, 12), seed=0, deepstack=True):
    draw = torch.Generator().manual_seed(seed)
    features = tuple(torch.randn(r * c, 6, generator=draw) for r, c in grids)
    layers = ((tuple(2 * feature for feature in features)),) if deepstack else ()
    relevant = tuple(torch.randperm(r * c, generator=draw)[:2] for r, c in grids)
    return CompressionRequest(
        ImageTokens(features, grids, tuple(range(len(grids))), layers),
        queries=tuple(torch.randn(3, 6, generator=draw) for _ in grids),
        budgets=budgets,
        relevant=relevant,
    )


def alone(request, index):
    """The same request with one image of it."""

    def one(parts):
        return None if parts is None else (parts[index],)

    images = request.images
    single = ImageTokens(
        one(images.features),
        one(images.grids),
        (0,),
        tuple(one(layer) for layer in images.deepstack),
    )
    return replace(
        request,
        images=single,
        queries=one(request.queries),
        budgets=one(request.budgets),
        relevant=one(request.relevant),
    )


@pytest.mark.parametrize("name", ALONE)
class TestEveryBaseline:
    def test_is_a_selector(self, name):
        assert isinstance(baseline(name), TokenSelector)

    def test_keeps_ascending_tokens_within_the_budget(self, name):
        request = request_of()
        selection = baseline(name).select(request)
        for kept, k, count in zip(
            selection.kept, request.budgets, request.images.counts, strict=True
        ):
            assert kept.dtype == torch.int64
            assert (kept.diff() > 0).all()
            assert kept.min() >= 0
            assert kept.max() < count
            if name == "average_pooling":
                assert 1 <= len(kept) <= k
            else:
                assert len(kept) == (count if name == "everything" else k)

    def test_features_come_with_the_kept_tokens(self, name):
        selection = baseline(name).select(request_of())
        if name not in CHANGES_FEATURES:
            assert selection.features is None
            assert selection.deepstack is None
            return
        for feature, layer, kept in zip(
            selection.features, selection.deepstack[0], selection.kept, strict=True
        ):
            assert feature.shape == (len(kept), 6)
            torch.testing.assert_close(layer, 2 * feature)

    def test_a_budget_beyond_the_image_keeps_all(self, name):
        request = request_of(budgets=(500, 500, 500))
        selection = baseline(name).select(request)
        assert selection.counts == request.images.counts
        if selection.features is not None:
            for changed, own in zip(selection.features, request.images.features, strict=True):
                torch.testing.assert_close(changed, own)

    def test_is_repeatable(self, name):
        first, second = (baseline(name).select(request_of()) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first.kept, second.kept, strict=True))

    def test_says_whether_it_needs_a_budget(self, name):
        selector = baseline(name)
        if selector.needs_budget:
            with pytest.raises(VisionError, match="how many"):
                selector.select(request_of(budgets=None))
        else:
            selector.select(request_of(budgets=None))


# Random draws the images in turn, so that an image's draw does depend on those before it.
@pytest.mark.parametrize("name", [name for name in ALONE if name != "random"])
def test_an_image_does_not_depend_on_its_batch_mates(name):
    request = request_of()
    together = baseline(name).select(request)
    for index in range(3):
        one = baseline(name).select(alone(request, index))
        assert torch.equal(one.kept[0], together.kept[index])
        if one.features is not None:
            torch.testing.assert_close(one.features[0], together.features[index])


# Keeping everything ignores a budget.
@pytest.mark.parametrize("name", [name for name in ALONE if name != "everything"])
@pytest.mark.parametrize("budgets", [(4, 3), (4, 0, 3)])
def test_wrong_budgets_are_refused(name, budgets):
    with pytest.raises(VisionError, match="budget"):
        baseline(name).select(request_of(budgets=budgets))


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ConfigError, match="no baseline"):
        baseline("fastv")
    with pytest.raises(ConfigError, match="options"):
        baseline("stride", step=2)
    with pytest.raises(ConfigError, match="words"):
        baseline("query_cosine", words="sum")
    with pytest.raises(ConfigError, match="placement"):
        baseline("average_pooling", place="middle")


def test_random_draws_every_subset_alike():
    request = request_of(((1, 4),), budgets=(2,))
    draw = replace(request, generator=torch.Generator().manual_seed(0))
    seen = [tuple(baseline("random").select(draw).kept[0].tolist()) for _ in range(1200)]
    for pair in itertools.combinations(range(4), 2):
        assert abs(seen.count(pair) - 200) < 60


def test_the_cosine_needs_a_question():
    request = request_of()
    with pytest.raises(VisionError, match="question"):
        baseline("query_cosine").select(replace(request, queries=(torch.zeros(0, 6),) * 3))


def test_the_nearest_word_is_the_highest_cosine():
    request = request_of()
    scores = baseline("query_cosine", words="max").scores(request)
    for score, tokens, words in zip(scores, request.images.features, request.queries, strict=True):
        slow = [
            max(torch.cosine_similarity(token, word, dim=0) for word in words) for token in tokens
        ]
        torch.testing.assert_close(score, torch.stack(slow))


class TestOracle:
    def test_keeps_what_is_relevant(self):
        request = request_of()
        selection = baseline("oracle").select(request)
        for kept, relevant in zip(selection.kept, request.relevant, strict=True):
            assert set(relevant.tolist()) <= set(kept.tolist())

    def test_without_a_budget_keeps_nothing_else(self):
        request = request_of(budgets=None)
        kept = baseline("oracle").select(request).kept
        assert [set(k.tolist()) for k in kept] == [set(r.tolist()) for r in request.relevant]

    def test_thins_out_what_does_not_fit(self):
        request = replace(request_of(((2, 4),), budgets=(2,)), relevant=(torch.arange(8),))
        assert baseline("oracle").select(request).kept[0].tolist() == [2, 6]

    def test_nothing_relevant_keeps_one(self):
        request = replace(request_of(((2, 4),), budgets=None), relevant=(torch.arange(0),))
        assert baseline("oracle").select(request).counts == (1,)

    def test_must_be_told(self):
        with pytest.raises(VisionError, match="not told"):
            baseline("oracle").select(replace(request_of(), relevant=None))
        with pytest.raises(VisionError, match="called relevant"):
            wrong = (torch.tensor([99]),) * 3
            baseline("oracle").select(replace(request_of(), relevant=wrong))


class TestGrids:
    @pytest.mark.parametrize("grid", [(8, 8), (5, 9), (1, 7)])
    def test_the_best_of_all_grids(self, grid):
        for budget in range(1, 70):
            best = max(
                (
                    round(math.log(r * c) - abs(math.log(r * grid[1] / (c * grid[0]))) / 2, 9),
                    r * c,
                )
                for r in range(1, grid[0] + 1)
                for c in range(1, grid[1] + 1)
                if r * c <= budget
            )
            r, c = smaller_grid(grid, budget)
            assert r * c <= budget
            assert best[1] == r * c

    def test_cells_stand_inside_what_they_cover(self):
        for cells in itertools.product(range(1, 6), range(1, 8)):
            spread = placed((5, 7), cells, "spread")
            assert (spread.diff() > 0).all()
            assert len(spread) == cells[0] * cells[1]
            corner = placed((5, 7), cells, "corner")
            assert corner.tolist() == [r * 7 + c for r in range(cells[0]) for c in range(cells[1])]

    def test_pooling_takes_means(self):
        tokens = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        image = tokens.reshape(4, 6, 3)
        slow = [
            image[2 * r : 2 * r + 2, 3 * c : 3 * c + 3].mean(dim=(0, 1))
            for r in range(2)
            for c in range(2)
        ]
        torch.testing.assert_close(pooled(tokens, (4, 6), (2, 2)), torch.stack(slow))


def slow_merging(tokens, k):
    """ToMe with explicit sizes: lists, loops, and the weighted mean of each pair."""
    nodes = [(index, token, 1) for index, token in enumerate(tokens)]
    while len(nodes) > k:
        a, b = nodes[0::2], nodes[1::2]
        edges = []
        for i, (_, left, _) in enumerate(a):
            similar = [float(torch.cosine_similarity(left, right, dim=0)) for _, right, _ in b]
            edges.append((max(similar), i, similar.index(max(similar))))
        edges = sorted(edges, reverse=True)[: min(len(nodes) // 2, len(nodes) - k)]
        for _, i, j in edges:
            (_, left, mine), (home, right, theirs) = a[i], b[j]
            b[j] = (home, (left * mine + right * theirs) / (mine + theirs), mine + theirs)
        gone = {i for _, i, _ in edges}
        nodes = sorted([node for i, node in enumerate(a) if i not in gone] + b, key=lambda n: n[0])
    return [node[0] for node in nodes], torch.stack([node[1] for node in nodes])


@pytest.mark.parametrize("count", [1, 2, 7, 16, 25])
def test_merging_is_size_weighted_bipartite_matching(count):
    tokens = torch.randn(count, 5, generator=torch.Generator().manual_seed(count))
    for k in range(1, count + 1):
        homes, slow = slow_merging(list(tokens), k)
        request = CompressionRequest(ImageTokens((tokens,), ((1, count),), (0,)), (), budgets=(k,))
        selection = baseline("token_merging").select(request)
        assert selection.kept[0].tolist() == homes
        torch.testing.assert_close(selection.features[0], slow)


def test_merging_stacked_is_merging_alone():
    tokens = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    homes, owner = match(tokens, 4)
    for index in range(3):
        one_home, one_owner = match(tokens[index : index + 1], 4)
        assert torch.equal(one_home[0], homes[index])
        assert torch.equal(one_owner[0], owner[index])


def slow_diversity(tokens, k):
    def distance(i, j):
        return 1 - float(torch.cosine_similarity(tokens[i], tokens[j], dim=0))

    every = range(len(tokens))
    chosen = [max(every, key=lambda i: min((distance(i, j) for j in every if j != i), default=0))]
    while len(chosen) < k:
        rest = [i for i in every if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(distance(i, j) for j in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("count", [1, 2, 6, 15])
def test_diversity_is_farthest_point_selection(count):
    tokens = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
    for k in range(1, count + 1):
        assert farthest_points(tokens[None], k)[0].tolist() == slow_diversity(tokens, k)


def test_equal_tokens_do_not_break_diversity():
    assert farthest_points(torch.ones(1, 5, 3), 3)[0].tolist() == [0, 1, 2]
