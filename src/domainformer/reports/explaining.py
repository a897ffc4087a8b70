"""Explaining a model from its folder, and a run for its report, within seconds."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.artifacts import write_json
from domainformer.data import EventTable
from domainformer.data.readers import scan
from domainformer.errors import InputError
from domainformer.inference import Bundle, FusionPredictor, load_bundle
from domainformer.inference.attribution import (
    Explanation,
    IntegratedGradients,
    Occlusion,
    attention_map,
    explain,
    linear_head,
    permutation_check,
    summarise,
)
from domainformer.inference.attribution.methods import BaselineName
from domainformer.inference.fusion import FUSION_FILE
from domainformer.reports.collect import EXPLANATION_FILE
from domainformer.reports.explanations import tell
from domainformer.training.targets import auroc

_STEPS, _FEWEST, _MOST = 32, 2, 48  # with 8 steps, next-event scores missed 40 %
_CONTEXT = 128  # of a run's report: what older events add costs more than a first look is worth
_MOST_CLASSES = 20
_HELD_OUT = 0.3
_LEAST = 20  # labelled entities; a head fitted on fewer says nothing
_WEAK = 0.6  # AUROC of a head whose reasons are not worth telling


def explain_model(
    folder: str | Path,
    events: EventTable,
    *,
    frame: str | Path | pl.DataFrame | None = None,
    keys: Sequence[Any] | None = None,
    examples: int = 32,
    method: str = "integrated-gradients",
    steps: int = 32,
    baseline: BaselineName = "missing",
    attention: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **question: Any,
) -> tuple[dict[str, Any], Explanation]:
    """Explain scores of a saved model, sum them up, and check them by permutation.

    Args:
        folder: A bundle, or a fusion model.
        events: The histories.
        frame: Of a fusion model: the examples with their features.
        keys: Only these entities; None: ``examples`` drawn at random.
        examples: How many are drawn.
        method: ``integrated-gradients`` or ``occlusion``.
        steps: Of integrated gradients.
        baseline: Of integrated gradients.
        attention: Add the attention map of the first example, labelled as no explanation.
        seed: Of the draw, and of the check.
        progress: Called with (passes done, in all).
        **question: ``target``, ``choice``, ``field`` of
            :func:`~domainformer.inference.attribution.explain`.

    Returns:
        What a page tells (see :func:`~domainformer.reports.explanations.tell`), and all of it.

    Raises:
        InputError: An option does not belong to the model, or an entity is not known.
    """
    folder = Path(folder)
    way = Occlusion() if method == Occlusion.name else IntegratedGradients(steps, baseline)
    source: FusionPredictor | Bundle
    chosen: pl.DataFrame | pl.Series
    if (folder / FUSION_FILE).is_file():
        source = FusionPredictor.load(folder)
        chosen = _rows(source, frame, keys, examples, seed)
    else:
        if frame is not None:
            raise InputError("frame means nothing for this model", next_step="leave it out")
        source = load_bundle(folder)
        chosen = _keys(events, keys, examples, seed)
    explanation = explain(source, chosen, events, method=way, progress=progress, **question)
    permuted = None
    if explanation.examples.height > 1:
        permuted = permutation_check(source, chosen, events, seed=seed, **question)
    shown = None
    if attention:
        if isinstance(source, FusionPredictor):
            raise InputError(
                "attention maps are of bundles", next_step="leave out attention for fusion models"
            )
        key = explanation.examples["key"][0]
        shown = (key, attention_map(source, key, events))
    told = tell(explanation, summary=summarise(explanation), permuted=permuted, attention=shown)
    return told, explanation


def explain_run(
    run_dir: str | Path,
    bundle: Bundle,
    table: EventTable,
    *,
    labels: pl.DataFrame | None = None,
    embeddings: pl.DataFrame | None = None,
    seconds: float = 4.0,
    seed: int = 0,
) -> Path | None:
    """Explain some scores of a pretrained model within seconds, for its report.

    With classes and embeddings: a linear head on the frozen model, fitted on seven tenths of the
    entities, explained on others. Otherwise, or where that head is hardly better than chance: the
    newest value of the first field that names something. As many examples are explained as the
    time allows, 2 to 48 of them, over their newest 128 tokens.

    Args:
        run_dir: The run folder, which gets ``explanation.json``.
        bundle: Its model.
        table: Its events.
        labels: Entity column and label column, one row per entity.
        embeddings: As ``embed`` gave them, for the labels.
        seconds: What it may take, about.
        seed: Of the examples, the division and the check.

    Returns:
        The file; None where the model reads merged tokens, which cannot be told apart.
    """
    if bundle.merges is not None:
        return None
    start = clock.perf_counter()
    subject, keys, truth, sentence = _subject(bundle, table, labels, embeddings, seed)
    method, context = IntegratedGradients(steps=_STEPS), min(_CONTEXT, bundle.context)
    begin = clock.perf_counter()
    explain(subject, keys[:1], table, method=method, context=context)
    each = clock.perf_counter() - begin
    left = seconds - (clock.perf_counter() - start)
    # The check costs a fraction of the explanation: one pass forward a field.
    chosen = int(np.clip(left / (1.4 * each), _FEWEST, _MOST))
    keys, truth = keys[:chosen], None if truth is None else truth[:chosen]
    explanation = explain(subject, keys, table, method=method, context=context)
    permuted = None
    if len(keys) > 1:
        permuted = permutation_check(
            subject, keys, table, labels=truth, repeats=1, seed=seed, context=context
        )
    if context < bundle.context:
        explanation.notes.append(f"histories are cut to their newest {context} tokens here")
    told = tell(explanation, summary=summarise(explanation), permuted=permuted, model=sentence)
    path = Path(run_dir) / EXPLANATION_FILE
    write_json(path, told)
    return path


def _keys(events: EventTable, keys: Sequence[Any] | None, examples: int, seed: int) -> pl.Series:
    """The entities that were named, or some that have a past."""
    if keys is not None:
        found = pl.Series(events.entity, list(keys)).cast(events.entity_ids.dtype, strict=False)
        if found.null_count():
            unknown = list(keys)[found.is_null().arg_true()[0]]
            raise InputError(f"there is no entity {unknown!r}", next_step="check the --key")
        return found
    drawn = np.random.default_rng(seed).permutation(_with_a_past(events))[:examples]
    return events.entity_ids.gather(drawn)


def _with_a_past(events: EventTable) -> npt.NDArray[np.int64]:
    """Places of the entities with two events or more; where nobody has them, of those with one."""
    counts = np.diff(events.offsets)
    return np.flatnonzero(counts >= min(2, counts.max()))


def _rows(
    source: FusionPredictor,
    frame: str | Path | pl.DataFrame | None,
    keys: Sequence[Any] | None,
    examples: int,
    seed: int,
) -> pl.DataFrame:
    """The examples of a fusion model."""
    if frame is None:
        raise InputError(
            "a fusion model reads features beside events",
            next_step="give the table of examples: frame=…, or --frame FILE",
        )
    if isinstance(frame, pl.DataFrame):
        rows = frame
    else:
        rows, _ = scan(frame).collect(None)
    if keys is not None:
        rows = rows.filter(pl.col(source.key).cast(pl.String).is_in([str(key) for key in keys]))
        if not rows.height:
            raise InputError("no example has one of the keys", where=f"column {source.key!r}")
        return rows
    drawn = np.random.default_rng(seed).permutation(rows.height)[:examples]
    some: pl.DataFrame = rows[drawn.tolist()]
    return some


def _subject(
    bundle: Bundle,
    table: EventTable,
    labels: pl.DataFrame | None,
    embeddings: pl.DataFrame | None,
    seed: int,
) -> tuple[Bundle, pl.Series, pl.Series | None, str]:
    """What is explained, whose scores, the truth where it is known, and a sentence about it."""
    generator = np.random.default_rng(seed)
    sentence = "It is the pretrained model itself."
    known = None if labels is None else _labelled(table, labels, embeddings)
    if known is not None and labels is not None:
        label = known.columns[1]
        mixed = known[generator.permutation(known.height).tolist()]
        cut = int(_HELD_OUT * mixed.height)
        held_out, fitted = mixed[:cut], mixed[cut:]
        head = linear_head(
            bundle, fitted["embedding"].to_numpy(), fitted[label].to_list(), name=label
        )
        weak, figure = _worth(head, held_out, label)
        others = f"{figure} on {cut:,} others"
        if not weak:
            sentence = (
                "The model is the pretrained one, frozen, with a linear head fitted on "
                f"{fitted.height:,} entities ({others}, from whom the examples are)."
            )
            return head, held_out[table.entity], held_out[label], sentence
        sentence += f" (A linear head on it hardly tells {label}: {others}.)"
    keys = table.entity_ids.gather(generator.permutation(_with_a_past(table))[:_MOST])
    return bundle, keys, None, sentence


def _labelled(
    table: EventTable, labels: pl.DataFrame, embeddings: pl.DataFrame | None
) -> pl.DataFrame | None:
    """Entity, class and embedding; None where there are too few, or too many classes."""
    label = next(name for name in labels.columns if name != table.entity)
    if embeddings is None or label in embeddings.columns:
        return None
    known = labels.select(table.entity, label).drop_nulls(label)
    known = known.join(embeddings, on=table.entity, how="inner")
    usable = known.height >= _LEAST and 2 <= known[label].n_unique() <= _MOST_CLASSES
    return known if usable else None


def _worth(head: Bundle, held_out: pl.DataFrame, label: str) -> tuple[bool, str]:
    """Whether the head is hardly better than chance on others than it was fitted on."""
    weight = head.model.score.weight.detach().double().cpu().numpy()
    bias = head.model.score.bias.detach().double().cpu().numpy()
    logits = held_out["embedding"].to_numpy().astype(np.float64) @ weight.T + bias
    names = np.array(head.record["task"]["classes"])
    truth = np.array([str(value) for value in held_out[label].to_list()])
    if len(names) == 2 and 0 < (truth == names[1]).sum() < len(truth):
        value = auroc(logits[:, 1] - logits[:, 0], truth == names[1])
        positives = int((truth == names[1]).sum())
        # What chance alone reaches: two standard errors of the rank-sum statistic.
        spread = np.sqrt((len(truth) + 1) / (12 * positives * (len(truth) - positives)))
        return value < max(_WEAK, 0.5 + 2 * spread), f"AUROC {value:.3f}"
    right = float((names[logits.argmax(axis=1)] == truth).mean())
    most = max(float((truth == name).mean()) for name in names)
    return right <= most, f"accuracy {right:.3f}, the commonest class has {most:.3f}"
