"""Selectors beside each other: the same questions, model and budgets, and tokens really dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import VisionError
from domainformer.evaluation.vision.answers import Answers, answer
from domainformer.evaluation.vision.results import ALL, FULL, VisionCell, VisionResults
from domainformer.models.vision import (
    CompressionRequest,
    ImageTokens,
    RelevanceRealizer,
    Selection,
    TokenSelector,
    VisionBase,
    full_inputs,
    realize,
    resolve_budgets,
)
from domainformer.models.vision.baselines import AllTokens, Ranker
from domainformer.models.vision.towers import evaluating

Budget = int | float | None
Collate = Callable[[Sequence[VisionQuestion]], Mapping[str, Any]]


def evaluate_selectors(
    model: RelevanceRealizer | VisionBase | nn.Module,
    selectors: Mapping[str, TokenSelector],
    questions: Sequence[VisionQuestion],
    *,
    collate: Collate,
    budgets: Sequence[Budget],
    batch_size: int = 32,
    seed: int = 0,
) -> VisionResults:
    """Accuracy of each selector at each budget, with the dropped tokens gone.

    Images are encoded once per batch, and a ranking baseline scores them once for all budgets; the
    full model answers every question too, as the selector ``full``. An answer counts if every
    token of it is what greedy decoding would say. No query holds a token of an answer: those have
    labels. (A selector of your own that reads ``request.inputs`` must leave them out by itself.)

    Args:
        model: the realizer (its position policy holds), the opened base, or the model itself, which
            is frozen then, as a realizer freezes it.
        selectors: by the name that the tables show; learned ones and baselines alike.
        questions: with their kinds; what is relevant only where the oracle is asked.
        collate: turns questions into the model's inputs, the answer with ``labels`` behind each
            question (``VisionCollator``).
        budgets: tokens per image (int), shares of them (float up to 1), or None for the selector's
            own choice, which selectors that need a budget are not asked for.
        batch_size: questions at once.
        seed: of selectors that draw; each begins anew from it, on the CPU wherever the model is.

    Raises:
        VisionError: no questions or budgets; a selector called ``full`` or a kind called ``all``;
            a question without an answer; what a selector refuses.
    """
    _check(selectors, questions, budgets, batch_size)
    realizer = _realizer(model)
    contests = [
        Contest(name, selector, budget, torch.Generator().manual_seed(seed))
        for name, selector in selectors.items()
        for budget in budgets
        if budget is not None or not getattr(selector, "needs_budget", False)
    ]
    full = Contest(FULL, AllTokens(), None, None)
    with ExitStack() as stack, torch.no_grad():
        for selector in selectors.values():
            if isinstance(selector, nn.Module):
                stack.enter_context(evaluating(selector))
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            request = _request(realizer, collate, batch)
            kinds = [question.kind for question in batch]
            reference = answer(realizer.base, full_inputs(realizer.base, request))
            full.add(kinds, reference, reference, request, request.images.counts)
            for contest, selection in _selections(contests, request):
                compressed = realize(
                    realizer.base, request, selection, positions=realizer.positions
                )
                answers = answer(realizer.base, compressed)
                contest.add(kinds, answers, reference, request, selection.counts)
    order = list(dict.fromkeys(question.kind for question in questions))
    return VisionResults(
        tuple(cell for contest in (full, *contests) for cell in contest.cells(order)), seed
    )


@dataclass
class Contest:
    """One selector at one budget, counting as the questions go by.

    Args:
        name: of the selector.
        selector: the selector.
        budget: as the evaluation was given it.
        generator: the source of chance, its own.
        totals: per kind: questions, correct, agreeing, tokens kept, tokens of the images.
    """

    name: str
    selector: TokenSelector
    budget: Budget
    generator: torch.Generator | None
    totals: dict[str, list[int]] = field(default_factory=dict)

    def asked(self, request: CompressionRequest) -> CompressionRequest:
        """The request with this contest's budget and chance."""
        budgets = resolve_budgets(self.budget, request.images.counts)
        return replace(request, budgets=budgets, generator=self.generator)

    def add(
        self,
        kinds: Sequence[str],
        answers: Answers,
        reference: Answers,
        request: CompressionRequest,
        counts: Sequence[int],
    ) -> None:
        """Count a batch."""
        kept, tokens = [0] * len(kinds), [0] * len(kinds)
        for row, count, whole in zip(
            request.images.rows, counts, request.images.counts, strict=True
        ):
            kept[row] += count
            tokens[row] += whole
        correct, agreeing = answers.correct.tolist(), answers.agree(reference).tolist()
        for row, kind in enumerate(kinds):
            figures = (1, correct[row], agreeing[row], kept[row], tokens[row])
            for name in (kind, ALL):
                total = self.totals.setdefault(name, [0] * 5)
                self.totals[name] = [
                    old + int(new) for old, new in zip(total, figures, strict=True)
                ]

    def cells(self, kinds: Sequence[str]) -> Iterator[VisionCell]:
        """All questions first, then each kind (a single kind is all)."""
        budget = ALL if self.name == FULL else budget_name(self.budget)
        for kind in (ALL, *kinds) if len(kinds) > 1 else (ALL,):
            yield VisionCell(self.name, budget, kind, *self.totals[kind])


def budget_name(budget: Budget) -> str:
    """How a budget is called in tables.

    Example:
        >>> [budget_name(budget) for budget in (16, 1 / 9, 0.3, None)]
        ['16', '1/9', '30 %', 'dynamic']
    """
    if budget is None:
        return "dynamic"
    if isinstance(budget, int):
        return str(budget)
    inverse = round(1 / budget)
    return f"1/{inverse}" if abs(1 / budget - inverse) < 1e-6 else f"{100 * budget:.3g} %"


def _selections(
    contests: Sequence[Contest], request: CompressionRequest
) -> Iterator[tuple[Contest, Selection]]:
    """Selections of a batch; a ranker scores once for all of its budgets.

    The chance is that of its first budget then, which begins at the same seed as every other: what
    is drawn does not depend on which budgets are asked for.
    """
    scored: dict[int, tuple[Tensor, ...]] = {}
    for contest in contests:
        asked, selector = contest.asked(request), contest.selector
        if isinstance(selector, Ranker):
            if id(selector) not in scored:
                scored[id(selector)] = selector.scores(asked)
            yield contest, selector.cut(asked, scored[id(selector)])
        else:
            yield contest, selector.select(asked)


def _request(
    realizer: RelevanceRealizer, collate: Collate, batch: Sequence[VisionQuestion]
) -> CompressionRequest:
    inputs = dict(collate(batch))
    if "relevant" not in inputs and all(question.relevant is not None for question in batch):
        inputs["relevant"] = tuple(torch.as_tensor(question.relevant) for question in batch)
    if inputs.get("labels") is None:
        raise VisionError(
            "the collator gives no labels",
            where="collate",
            why="the answer to compare with is read from them",
            next_step="use VisionCollator(processor), with answers",
        )
    device = realizer.base.device
    moved = {name: _on_device(value, device) for name, value in inputs.items()}
    return realizer.request(**moved)


def _on_device(value: Any, device: torch.device) -> Any:
    """Tensors, tuples of them, and the kept features of images, where the model is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return tuple(_on_device(part, device) for part in value)
    if isinstance(value, ImageTokens):
        features, deepstack = (
            _on_device(part, device) for part in (value.features, value.deepstack)
        )
        return replace(value, features=features, deepstack=deepstack)
    return value


def _realizer(model: RelevanceRealizer | VisionBase | nn.Module) -> RelevanceRealizer:
    if isinstance(model, RelevanceRealizer):
        return model
    if isinstance(model, VisionBase):
        return RelevanceRealizer(model.model, AllTokens(), route=model.route)
    return RelevanceRealizer(model, AllTokens())


def _check(
    selectors: Mapping[str, TokenSelector],
    questions: Sequence[VisionQuestion],
    budgets: Sequence[Budget],
    batch_size: int,
) -> None:
    for budget in budgets:
        if budget is not None:
            resolve_budgets(budget, (1,))
    problems = {
        "there are no questions": not questions,
        "there are no budgets": bool(selectors) and not budgets,
        "two budgets have one name": len({budget_name(b) for b in budgets}) < len(budgets),
        f"a selector is called {FULL!r}, as the full model is": FULL in selectors,
        f"a kind of question is called {ALL!r}": any(one.kind == ALL for one in questions),
        f"a batch of {batch_size} questions": batch_size < 1,
    }
    for problem, found in problems.items():
        if found:
            raise VisionError(
                f"selectors cannot be compared: {problem}",
                where="evaluate_selectors",
                next_step="see its arguments",
            )
