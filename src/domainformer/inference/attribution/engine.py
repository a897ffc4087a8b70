"""Running a score over many variants of some rows, in batches of like length.

What is computed for a row never depends on the rows beside it: padding stands on the right, where
causal attention does not look, and gradients of a sum over rows are those of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from domainformer.data.tabular import TabularArrays
from domainformer.inference.attribution.baselines import Baseline
from domainformer.inference.attribution.rows import Ints, Row, RowReader
from domainformer.inference.attribution.scores import Batch, Score

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
_LEAST = 8  # a row without a history still costs something


@dataclass(frozen=True, eq=False)
class Variant:
    """One changed row.

    Args:
        example: Whose choice and features it has.
        ids: Its ids; None: the example's own.
        numbers: Its tabular numbers; None: the example's own.
        codes: Its tabular codes; None: the example's own.
    """

    example: int
    ids: Ints | None = None
    numbers: Floats | None = None
    codes: Ints | None = None


@dataclass(frozen=True, eq=False)
class Engine:
    """Examples, and the score that is asked about them.

    Args:
        score: The score.
        rows: The history of each example.
        reader: Of the tokenizer; None where no events are read.
        tabular: The features of each example; None without.
        batch_tokens: Tokens per pass, padding included.
        pad_id: Fills short rows up.
    """

    score: Score
    rows: Sequence[Row]
    reader: RowReader | None
    tabular: TabularArrays | None
    batch_tokens: int
    pad_id: int = 0

    @property
    def n_features(self) -> int:
        """Tabular features."""
        if self.tabular is None:
            return 0
        return self.tabular.numbers.shape[1] + self.tabular.codes.shape[1]

    def values(
        self,
        variants: Sequence[Variant],
        choice: Ints | None = None,
        *,
        progress: Progress | None = None,
    ) -> Floats:
        """The score of every variant: [n] of the chosen output, or [n, choices]."""
        found: Floats | None = None
        done = 0
        for chosen in self._batches(variants):
            with torch.no_grad():
                outputs = self.score(self._batch([variants[i] for i in chosen]))
            values = outputs.double().cpu().numpy()
            if choice is not None:
                values = values[np.arange(len(chosen)), self._choices(variants, chosen, choice)]
            if found is None:
                found = np.zeros((len(variants), *values.shape[1:]))
            found[chosen] = values
            done += len(chosen)
            if progress is not None:
                progress(done, len(variants))
        return np.zeros(0) if found is None else found

    def slopes(
        self,
        variants: Sequence[Variant],
        levels: Floats,
        choice: Ints,
        baseline: Baseline,
    ) -> Iterator[tuple[int, Floats, Floats, float]]:
        """Gradients along the gates, with all gates of a variant at one level.

        Args:
            variants: Unchanged examples.
            levels: The level of each variant's gates [n].
            choice: The chosen output of each example.
            baseline: What stands behind the gates.

        Yields:
            (number of the variant, slopes of its tokens [n], slopes of its features, score).
        """
        for chosen in self._batches(variants):
            batch = self._batch([variants[i] for i in chosen])
            level = torch.from_numpy(levels[chosen]).float().to(batch.ids.device)[:, None]
            free = torch.zeros(batch.ids.shape, dtype=torch.bool, device=level.device)
            for line, i in enumerate(chosen):
                row = self.rows[variants[i].example]
                free[line, : len(row.ids)] = torch.from_numpy(row.free)
            gates = torch.where(free, level, torch.ones_like(level)).requires_grad_()
            features = level.expand(-1, self.n_features).clone().requires_grad_()
            open_features = features if self.n_features else None
            gated = replace(batch, gates=gates, feature_gates=open_features, baseline=baseline)
            with torch.enable_grad():  # whoever asks may have switched gradients off
                outputs = self.score(gated)
                picks = torch.from_numpy(self._choices(variants, chosen, choice))
                values = outputs.gather(1, picks.to(outputs.device)[:, None])[:, 0]
                of_tokens, of_features = torch.autograd.grad(
                    values.sum(), [gates, features], allow_unused=True, materialize_grads=True
                )
            answers = values.detach().double().cpu().numpy()
            token_slopes = (of_tokens * free).double().cpu().numpy()
            feature_slopes = of_features.double().cpu().numpy()
            for line, i in enumerate(chosen):
                length = len(self.rows[variants[i].example].ids)
                yield (
                    int(i),
                    token_slopes[line, :length],
                    feature_slopes[line],
                    float(answers[line]),
                )

    def _batches(self, variants: Sequence[Variant]) -> Iterator[Ints]:
        lengths = np.array([max(_LEAST, len(self._ids(v))) for v in variants], np.int64)
        order, start = np.argsort(-lengths, kind="stable"), 0
        while start < len(order):
            rows = max(1, self.batch_tokens // int(lengths[order[start]]))
            yield order[start : start + rows]
            start += rows

    def _ids(self, variant: Variant) -> Ints:
        return self.rows[variant.example].ids if variant.ids is None else variant.ids

    @staticmethod
    def _choices(variants: Sequence[Variant], chosen: Ints, choice: Ints) -> Ints:
        return choice[[variants[i].example for i in chosen]]

    def _batch(self, variants: Sequence[Variant]) -> Batch:
        device = self.score.model.device
        lengths = [len(self._ids(v)) for v in variants]
        ids = np.full((len(variants), max(1, *lengths)), self.pad_id, np.int64)
        missing = np.full_like(ids, self.pad_id)
        for line, variant in enumerate(variants):
            ids[line, : lengths[line]] = self._ids(variant)
            if variant.ids is None and self.reader is not None:  # changed rows have no gates
                row = self.rows[variant.example]
                missing[line, : lengths[line]] = self.reader.missing(row)
        mask = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
        scored = np.array([self.rows[v.example].scored for v in variants], np.int64)
        numbers, codes = self._features(variants)
        return Batch(
            ids=torch.from_numpy(ids).to(device),
            mask=torch.from_numpy(mask).to(device),
            missing=torch.from_numpy(missing).to(device),
            scored=torch.from_numpy(scored).to(device),
            numbers=None if numbers is None else torch.from_numpy(numbers).to(device),
            codes=None if codes is None else torch.from_numpy(codes).to(device),
        )

    def _features(self, variants: Sequence[Variant]) -> tuple[Floats | None, Ints | None]:
        if self.tabular is None:
            return None, None
        own = self.tabular
        numbers = [own.numbers[v.example] if v.numbers is None else v.numbers for v in variants]
        codes = [own.codes[v.example] if v.codes is None else v.codes for v in variants]
        return np.stack(numbers), np.stack(codes)
