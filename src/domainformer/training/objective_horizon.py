"""What comes within a horizon, told from the hidden state at the end of each event.

::

    BOS  e₁ e₁ e₁  e₂ e₂ e₂  e₃ e₃ e₃        within: how many events come in the next 30 days, which
               │         │         │                 values occur in them, what sizes sum up to
               ▼         ▼         ▼         steps:  the tokens of the event k events later
            what comes after e₁, e₂, e₃

Next tokens ask for the next moment; labels often hang on what comes over weeks. The states are
those of the rows themselves, so that the backbone runs no second time. Targets come from the store
(:mod:`domainformer.training.horizon_targets`), never from over the border of the rows' own part.

Source: for ``within``, Karpukhin et al., "HoTPP benchmark", arXiv 2406.14341 (generation event by
event can lose over long horizons to a histogram of the past); for ``steps``, Gloeckle et al.,
"Better and faster large language models via multi-token prediction", arXiv 2404.19737.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.data.dataset import IGNORED, DomainSequenceDataset
from domainformer.data.tokens import Ints, gather_ranges
from domainformer.errors import ConfigError
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.horizon_questions import Questions
from domainformer.training.horizon_targets import Ahead, look_ahead
from domainformer.training.objective_base import COUNT, STATES, Objective, Reader, Row
from domainformer.training.objective_config import HorizonConfig

Answer = Callable[[int, Ints], tuple[Ints, Ints]]
"""From a shard's number and some of its events to one row per term: its event's place, answers."""

_HARDLY_ANY = 0.001


class HorizonObjective(Objective):
    """What the events after each event hold; :func:`make_horizon` gives one of the two kinds.

    Args:
        config: The horizon.
        n_answers: Integers that make up one term's answer.
    """

    name = "horizon"
    reads_states: ClassVar[bool] = True

    def __init__(self, config: HorizonConfig, n_answers: int) -> None:
        super().__init__()
        self._config, self._n_answers = config, n_answers

    @abstractmethod
    def answers(self, dataset: DomainSequenceDataset, ahead: Sequence[Ahead]) -> Answer:
        """What finds the answers for events of a data set."""

    @abstractmethod
    def score(self, model: Any, states: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Sum over terms of −log of the answers' probabilities.

        Args:
            model: The language model.
            states: Hidden state at the end of each term's event [n, W].
            answers: [n, n_answers].
        """

    def reader(self, dataset: DomainSequenceDataset) -> Reader:
        """Where a row's events end whose horizon is known, and the answers."""
        ahead = look_ahead(dataset, self._config)
        answer = self.answers(dataset, ahead)

        def read(index: int, row: Row) -> Row:
            places = [np.empty(0, np.int64)]
            answers = [np.empty((0, self._n_answers), np.int64)]
            begin = 0
            for (number, events, ends), length in zip(
                dataset.events_of(index), row["segment_lengths"].tolist(), strict=True
            ):
                last = begin + ends - 1
                asked = ahead[number].asked[events] & (row["labels"][last] != IGNORED)
                if asked.any():
                    of_event, found = answer(number, events[asked])
                    places.append(last[asked][of_event])
                    answers.append(found)
                begin += length
            return {
                "horizon_places": np.concatenate(places),
                "horizon_answers": np.concatenate(answers),
            }

        return read

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """Row and place of each term's state, and its answer."""
        terms = [len(row["horizon_places"]) for row in rows]
        if not sum(terms):
            return {f"horizon{COUNT}": 0}
        return {
            f"horizon{COUNT}": sum(terms),
            "horizon_rows": torch.arange(len(rows)).repeat_interleave(torch.tensor(terms)),
            **{
                key: torch.from_numpy(np.concatenate([row[key] for row in rows]))
                for key in ("horizon_places", "horizon_answers")
            },
        }

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Sum over the terms, from the states of the rows."""
        states = batch[STATES][batch["horizon_rows"], batch["horizon_places"]]
        return self.score(model, states, batch["horizon_answers"])


class SpanObjective(HorizonObjective):
    """Sums up what comes within a span of time: one term per event that is asked.

    A term is the mean over the questions of −log of the answer's probability: the number of
    events, a bin; each sum, a bin; each field, yes or no for every value, their mean.

    Args:
        config: With ``within``.
        tokenizer: Whose ids the rows hold.
        rows: Training rows; commonest values and bins of sums are learned from their own events.
        width: Hidden size of the model.
        std: Standard deviation of new weights.

    Raises:
        ConfigError: There is no such field, or hardly an event is followed by a whole horizon.
    """

    def __init__(
        self,
        config: HorizonConfig,
        tokenizer: DomainTokenizer,
        rows: DomainSequenceDataset,
        *,
        width: int,
        std: float = 0.02,
    ) -> None:
        ahead = _look_ahead(rows, config)
        questions = Questions.learn(config, tokenizer, rows, ahead)
        super().__init__(config, sum(questions.fields) + 1 + len(questions.sizes))
        self.questions = questions
        self.head = _linear(width, questions.n_outputs, std)

    def answers(self, dataset: DomainSequenceDataset, ahead: Sequence[Ahead]) -> Answer:
        """Values, counts and sums."""
        return self.questions.answers(dataset, ahead)

    def score(self, model: Any, states: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """From one linear layer."""
        return self.questions.score(self.head(states), answers).sum()


class StepsObjective(HorizonObjective):
    """The tokens of the event so many events later: one term per token; texts are left out.

    Each token is asked for by itself: the state, with a vector of the token's place in an event,
    goes through a small MLP into the model's own output layer.

    Args:
        config: With ``steps``.
        tokenizer: Whose ids the rows hold.
        rows: Training rows.
        width: Hidden size of the model.
        std: Standard deviation of new weights.

    Raises:
        ConfigError: No event of the rows has another so many events later.
    """

    def __init__(
        self,
        config: HorizonConfig,
        tokenizer: DomainTokenizer,
        rows: DomainSequenceDataset,
        *,
        width: int,
        std: float = 0.02,
    ) -> None:
        _look_ahead(rows, config)
        super().__init__(config, 2)
        self._slot_of_id = tokenizer.layout.slot_of_id
        self.slot = nn.Embedding(len(tokenizer.slots), width)
        nn.init.normal_(self.slot.weight, std=std)
        self.mlp = nn.Sequential(
            _linear(width, width, width**-0.5), nn.GELU(), _linear(width, width, width**-0.5)
        )

    def answers(self, dataset: DomainSequenceDataset, ahead: Sequence[Ahead]) -> Answer:
        """Slot and id of each token of the event ahead that is no piece of a text."""

        def answer(number: int, events: Ints) -> tuple[Ints, Ints]:
            shard = dataset.shards[number]
            tokens, offsets = gather_ranges(shard.event_offsets, ahead[number].stop[events] - 1)
            ids = shard.ids[tokens].astype(np.int64)
            slots = self._slot_of_id[ids]
            of_event = np.repeat(np.arange(len(events)), np.diff(offsets))
            return of_event[slots >= 0], np.column_stack([slots, ids])[slots >= 0]

        return answer

    def score(self, model: Any, states: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """From the model's output layer."""
        asked = self.mlp(states + self.slot(answers[:, 0]).to(states.dtype))
        logits = model.get_output_embeddings()(asked)
        return F.cross_entropy(logits.float(), answers[:, 1], reduction="sum")


def make_horizon(
    config: HorizonConfig,
    tokenizer: DomainTokenizer,
    rows: DomainSequenceDataset,
    *,
    width: int,
    std: float = 0.02,
) -> HorizonObjective:
    """The objective that the configuration asks for; arguments as of its class."""
    kind = SpanObjective if config.ahead is None else StepsObjective
    return kind(config, tokenizer, rows, width=width, std=std)


def _linear(width: int, outputs: int, std: float) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def _look_ahead(rows: DomainSequenceDataset, config: HorizonConfig) -> list[Ahead]:
    """The horizons of training rows, if there is something to learn from them."""
    ahead = look_ahead(rows, config)
    asked = [np.flatnonzero(one.asked) for one in ahead]
    total = sum(map(len, asked))
    if not total:
        raise ConfigError(
            "no training event is followed by a whole horizon",
            where="training.horizon",
            why="steps is more than any history has left"
            if config.ahead is not None
            else f"within, {config.within}, is longer than what is observed after any event",
            next_step="shorten it; where times are numbers, within is a number, too",
        )
    full = sum(int((one.stop[e] > e + 1).sum()) for one, e in zip(ahead, asked, strict=True))
    if full < _HARDLY_ANY * total:
        raise ConfigError(
            f"of {total:,} horizons {full:,} hold an event",
            where="training.horizon.within",
            why=f"{config.within} is hardly ever as long as the time between two events",
            next_step="lengthen it; where times are dates, give it a unit, such as 30d",
        )
    return ahead


__all__ = ["HorizonObjective", "SpanObjective", "StepsObjective", "make_horizon"]
