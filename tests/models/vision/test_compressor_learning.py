"""Can the compressor learn what a question names? Alone, from a direct loss, in seconds.

Sixty-four tokens, each the sum of a foreground code, a background code and noise; questions of
words whose embeddings have nothing in common with the codes. The language model is left out: what
fails here cannot be learned through one.
"""

import pytest
import torch

from domainformer.models.vision import (
    CompressionRequest,
    CompressorConfig,
    ImageTokens,
    RelevanceCompressor,
    TemperatureSchedule,
    threshold_gate,
)

SIDE, SIZE, COLOURS = 8, 32, 6
TOKENS = torch.arange(SIDE * SIDE)


class World:
    """Draws images and questions of one kind, with the tokens that the question is about."""

    def __init__(self):
        self.chance = torch.Generator().manual_seed(0)
        self.words = 0.05 * self.normal(40, SIZE)
        self.codes = self.normal(2, COLOURS, SIZE)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.chance)

    def integers(self, high, *shape):
        return torch.randint(high, shape, generator=self.chance)

    def draw(self, kind, count):
        colours = self.integers(COLOURS, 2, count, len(TOKENS))
        asked = self.integers(len(TOKENS), count)
        if kind == "neighbour":  # one token of the colour, and room on its right
            asked = asked - (asked % SIDE == SIDE - 1).long()
            front = colours[0].gather(1, asked[:, None])
            others = (front + 1 + self.integers(COLOURS - 1, *colours[0].shape)) % COLOURS
            colours[0] = others.scatter(1, asked[:, None], front)
        front, back = colours.gather(2, asked.expand(2, -1)[..., None]).squeeze(-1)
        row, column = asked // SIDE, asked % SIDE
        is_asked = asked[:, None] == TOKENS
        if kind == "colour":
            ids, relevant = [0, 1, 10 + front], colours[0] == front[:, None]
        elif kind == "colour on colour":
            ids = [10 + front, 2, 10 + back]
            relevant = (colours[0] == front[:, None]) & (colours[1] == back[:, None])
        elif kind == "row and column":
            ids, relevant = [3, 20 + row, 4, 20 + column], is_asked
        else:
            ids = [5, 6, 10 + front]
            relevant = is_asked | (asked[:, None] + 1 == TOKENS)
        ids = torch.stack([torch.as_tensor(word).expand(count) for word in ids], dim=1)
        features = self.codes[0][colours[0]] + self.codes[1][colours[1]]
        return features + 0.2 * self.normal(*features.shape), self.words[ids], relevant


def scores_of(model, features, queries):
    count = len(features)
    images = ImageTokens(tuple(features), ((SIDE, SIDE),) * count, tuple(range(count)))
    return torch.stack(model.score(CompressionRequest(images, tuple(queries))).scores)


def direct_loss(scores, relevant, _done):
    """Cross-entropy to the relevant tokens."""
    return -(scores.log_softmax(1) * relevant).sum(1).div(relevant.sum(1)).mean()


def gated_loss(scores, relevant, done):
    """A reader that looks for the relevant tokens behind an annealed gate, as a model would."""
    gate = threshold_gate(scores, 7, TemperatureSchedule(steps=100)(int(100 * done)))
    return -((4.0 * relevant + gate).softmax(1) * relevant).sum(1).log().mean()


def trained(kind, steps, loss_of, **changes):
    world = World()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RelevanceCompressor(
            CompressorConfig(SIZE, **{"width": 32, "heads": 4, "max_tokens": 64, **changes})
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        features, queries, relevant = world.draw(kind, 24)
        loss = loss_of(scores_of(model, features, queries), relevant, step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, world


@torch.no_grad()
def recall(model, world, kind, kept=None):
    """Share of relevant tokens among the best: as many as are relevant, or ``kept``."""
    features, queries, relevant = world.draw(kind, 100)
    place = scores_of(model, features, queries).argsort(1, descending=True).argsort(1)
    taken = relevant.sum(1, keepdim=True) if kept is None else kept
    return float(((place < taken) & relevant).sum() / relevant.sum())


KINDS = {"colour": 40, "colour on colour": 60, "row and column": 70, "neighbour": 70}


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_what_the_question_names(kind):
    model, world = trained(kind, KINDS[kind], direct_loss)
    assert recall(model, world, kind, kept=7 if kind != "colour" else None) > 0.95


def test_the_control_without_the_question_cannot():
    model, world = trained("colour", KINDS["colour"], direct_loss, use_query=False)
    assert recall(model, world, "colour") < 0.4


def test_it_learns_through_the_annealed_gate():
    model, world = trained("colour on colour", 80, gated_loss)
    assert recall(model, world, "colour on colour", kept=7) > 0.9
