"""Judging a compressor from its folder, and the page about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError
from domainformer.evaluation.vision import VisionResults, evaluate_selectors
from domainformer.models.vision import RelevanceRealizer, TokenSelector
from domainformer.models.vision.baselines import BASELINES, baseline
from domainformer.reports.vision import write_vision_report
from domainformer.reports.vision_looking import Budget, look
from domainformer.training.vision import VisionCollator
from domainformer.training.vision.opening import OpenedVision, adapter_of

COMPRESSOR = "compressor"
"""The name of the learned selector in tables."""

_EVERY, _WHOLE, _ORACLE, _ATTENTION = "all", "everything", "oracle", "attention_rank"
_PUBLISHED_LAYER = 2


def judge_vision(
    opened: OpenedVision,
    questions: Sequence[VisionQuestion],
    *,
    baselines: Sequence[str] = (),
    beside: Sequence[str | Path] = (),
    budgets: Sequence[Budget] = (None,),
    batch_size: int = 16,
    seed: int = 0,
) -> VisionResults:
    """Accuracy of a compressor and of others, with the dropped tokens gone.

    Args:
        opened: by :func:`~domainformer.training.vision.opening.open_vision`.
        questions: with their answers.
        baselines: names of :data:`~domainformer.models.vision.baselines.BASELINES`; ``all`` stands
            for each of them (the oracle where the questions know what is relevant).
        beside: folders of other compressors of the same model, named by their run.
        budgets: tokens, shares, or None: what a selector decides for itself.
        batch_size: questions at once.
        seed: of baselines that draw.

    Raises:
        ConfigError: An unknown baseline, or nothing to judge.
        FingerprintError: A compressor beside was trained upon another model.
        VisionError: What the questions or a selector refuse.
    """
    chosen: dict[str, TokenSelector] = {}
    if opened.learned:
        chosen[COMPRESSOR] = opened.realizer.selector
    for folder in map(Path, beside):
        adapter = adapter_of(folder)
        name = (adapter.parent if adapter.name == "adapter" else adapter).resolve().name
        if name in chosen or name in BASELINES:
            raise ConfigError(f"two selectors are called {name!r}", next_step="rename a folder")
        other = RelevanceRealizer.from_pretrained(adapter, model=opened.realizer.model)
        chosen[name] = other.eval().selector
    for name in _named(baselines, questions):
        chosen[name] = _made(name, opened)
    told = [name for name, one in chosen.items() if getattr(one, "needs_budget", False)]
    if told and all(budget is None for budget in budgets):
        raise ConfigError(
            f"{told[0]} has no dynamic budget, and no other is asked for",
            where="--budget",
            next_step="add a share or a number of tokens: --budget 1/9",
        )
    if not chosen:
        raise ConfigError(
            "there is nothing to judge", next_step="give a compressor's folder, or a baseline"
        )
    model = opened.config.model
    collate = VisionCollator(
        opened.processor, prompt=model.prompt, end_of_answer=model.end_of_answer
    )
    return evaluate_selectors(
        opened.realizer,
        chosen,
        questions,
        collate=collate,
        budgets=budgets,
        batch_size=batch_size,
        seed=seed,
    )


def vision_page(
    path: str | Path,
    opened: OpenedVision,
    questions: Sequence[VisionQuestion],
    figures: VisionResults,
    *,
    title: str,
    budgets: Sequence[Budget],
    pictures: int = 6,
    max_new_tokens: int = 16,
) -> Path:
    """Write the page of an evaluation, with pictures of some of its questions.

    Args:
        path: ``FILE.html``.
        opened: as for :func:`judge_vision`.
        questions: as there.
        figures: its answer.
        title: of the page.
        budgets: as there; pictures have a panel for each.
        pictures: how many questions are drawn, evenly spread.
        max_new_tokens: of an answer.

    Raises:
        ConfigError: The file has another ending.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    shown = spread(questions, pictures) if pictures and opened.learned else []
    sights = [
        look(
            opened.realizer,
            opened.processor,
            question,
            budgets=budgets,
            prompt=opened.config.model.prompt,
            max_new_tokens=max_new_tokens,
        )
        for question in shown
    ]
    about = {"model": opened.config.model.name, "questions": len(questions), "seed": figures.seed}
    return write_vision_report(path, title=title, sights=sights, figures=figures, about=about)


def spread(questions: Sequence[VisionQuestion], limit: int | None) -> list[VisionQuestion]:
    """At most ``limit`` questions, evenly spread and spread over kinds.

    Questions often come kind by kind or in turns; every kind gives its share, in its own order.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 1, 3), np.uint8)
        >>> asked = [VisionQuestion(image, str(i), "", "ab"[i % 2]) for i in range(8)]
        >>> [one.question for one in spread(asked, 4)]
        ['0', '1', '4', '5']
    """
    found = list(questions)
    if limit is None or limit >= len(found):
        return found
    by_kind: dict[str, list[int]] = {}
    for index, question in enumerate(found):
        by_kind.setdefault(question.kind, []).append(index)
    kinds = list(by_kind.values())
    shares = [len(range(place, limit, len(kinds))) for place in range(len(kinds))]
    chosen = [
        indices[step * len(indices) // share]
        for indices, share in zip(kinds, shares, strict=True)
        for step in range(min(share, len(indices)))
    ]
    return [found[index] for index in sorted(set(chosen))]


def _made(name: str, opened: OpenedVision) -> TokenSelector:
    """A baseline as the model allows it: the published layer, where it has that many."""
    if name != _ATTENTION:
        return baseline(name)
    text = getattr(opened.realizer.model.config, "text_config", opened.realizer.model.config)
    return baseline(name, layer=min(_PUBLISHED_LAYER, text.num_hidden_layers))


def _named(names: Sequence[str], questions: Sequence[VisionQuestion]) -> list[str]:
    if _EVERY not in names:
        return list(dict.fromkeys(names))
    known = all(question.relevant is not None for question in questions)
    left_out = {_WHOLE} if known else {_WHOLE, _ORACLE}
    return [name for name in BASELINES if name not in left_out]
