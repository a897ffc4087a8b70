"""One call from run folders to a table that can be believed, or to a refusal that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainformer.errors import ComparisonError, nearest
from domainformer.evaluation.comparisons import guard
from domainformer.evaluation.comparisons.curves import curves_of
from domainformer.evaluation.comparisons.groups import judge, name_groups
from domainformer.evaluation.comparisons.result import RunComparison
from domainformer.evaluation.comparisons.runs import RunEntry, matches, read_entries

# The figure that is compared where nobody says which: the first that all runs have.
USUAL_METRICS = ("nats", "eval_loss", "test_auroc", "test_accuracy")
_HIGHER = ("accuracy", "auroc", "auprc", "f1", "recall", "ndcg", "mrr", "per_second")
# Per token: with other tokens these are figures of something else.
_PER_TOKEN = ("loss", "nats", "perplexity")


def compare(
    runs: Sequence[str | Path],
    vary: Sequence[str] = (),
    *,
    allow: Sequence[str] = (),
    mark: bool = False,
    metric: str | None = None,
    higher_is_better: bool | None = None,
) -> RunComparison:
    """Set runs beside each other, provided that they differ in nothing but what is compared.

    Runs that differ in their seeds alone are repetitions; they make a group, which has a mean and a
    standard error. The first run's group is the base, with which the others are compared: by a
    paired test where both have the same seeds, else by Welch's (see
    :mod:`~domainformer.evaluation.comparisons.statistics`), corrected for the number of groups.

    Args:
        runs: Run folders, the base first.
        vary: What is compared: dotted keys of the configuration, sections of it, or the parts
            ``rules``, ``code``, ``data``, ``tokenizer``, ``environment``, ``plan``, ``kind``.
            Empty: all runs are repetitions of one experiment.
        allow: What else may differ, without being compared; each is told in a note.
        mark: Mark what nobody named instead of refusing; runs without a result are left out.
        metric: A figure of the results; None takes the validation loss.
        higher_is_better: Its direction; None knows it by the name.

    Raises:
        ComparisonError: Something differs that nobody named, a run has no result or no such
            figure, or two runs are one experiment done twice.
        ArtifactError: A folder is no run.

    Example:
        >>> import tempfile
        >>> from domainformer.run import start_run
        >>> root, folders = tempfile.mkdtemp(), []
        >>> for rate, seed, loss in [(1, 0, 2.0), (1, 1, 2.2), (3, 0, 1.5), (3, 1, 1.8)]:
        ...     config = {"training": {"learning_rate": rate, "seed": seed}}
        ...     run = start_run(root, f"{rate}-{seed}", kind="pretrain", config=config)
        ...     run.finish({"eval_loss": loss})
        ...     folders.append(run.directory)
        >>> found = compare(folders, ["training.learning_rate"])
        >>> [(group.name, round(group.mean, 2)) for group in found.groups]
        [('learning_rate=1', 2.1), ('learning_rate=3', 1.65)]
        >>> found.groups[1].against.test.kind, found.groups[1].against.verdict
        ('paired', 'even')
        >>> compare(folders)
        Traceback (most recent call last):
        ...
        domainformer.errors.ComparisonError: these runs differ in more than what is compared
          why:   training.learning_rate: 1 in 1-0, 1-1; 3 in 3-0, 3-1
          next:  name what shall be compared (--vary training.learning_rate), let the rest differ \
(--allow NAME), or see it marked (--mark)
    """
    entries, notes = _with_results(read_entries(runs), mark=mark)
    found = guard.find_differences(entries, vary, allow)
    groups = guard.groups_of(entries, found.named)
    unnamed = (*found.unnamed, *guard.split_within(groups, found.implied))
    if unnamed and not mark:
        guard.refuse(entries, unnamed, vary)
    groups = guard.groups_of(entries, (*found.named, *unnamed))
    guard.check_repetitions(groups)
    name = _metric(entries, metric)
    higher = _is_higher(name) if higher_is_better is None else higher_is_better
    names = name_groups(groups, found.named, unnamed)
    pairs = zip(names, groups, strict=True)
    return RunComparison(
        metric=name,
        higher_is_better=higher,
        vary=tuple(vary),
        groups=judge(groups, names, found.named, unnamed, metric=name, higher_is_better=higher),
        curves=tuple(curve for label, group in pairs for curve in curves_of(label, group)),
        notes=(*notes, *_notes(entries, groups, found, unnamed, name)),
    )


def _with_results(
    entries: Sequence[RunEntry], *, mark: bool
) -> tuple[list[RunEntry], tuple[str, ...]]:
    """Runs that have a result, and a note on those that have none."""
    without = [entry for entry in entries if not entry.finished]
    told = ", ".join(f"{entry.folder.name} ({entry.record.status})" for entry in without)
    kept = [entry for entry in entries if entry.finished]
    if without and not mark:
        raise ComparisonError(
            "not all of these runs are finished",
            why=told,
            next_step="continue them with training.resume=true, or leave them out",
        )
    if len(kept) < 2:
        raise ComparisonError("there is nothing to compare", why=f"without a result: {told}")
    return kept, (f"left out, as they have no result: {told}",) if without else ()


def _metric(entries: Sequence[RunEntry], wanted: str | None) -> str:
    common = [key for key in entries[0].results if all(key in one.results for one in entries)]
    if wanted is None:
        wanted = next((name for name in USUAL_METRICS if name in common), None)
        if wanted is None:
            raise ComparisonError(
                "these runs have no validation loss in common",
                next_step=f"name a figure (--metric): {', '.join(common) or 'none is in all'}",
            )
    if wanted not in common:
        lacking = [entry.folder.name for entry in entries if wanted not in entry.results]
        raise ComparisonError(
            f"not all runs have a figure {wanted!r}",
            why=f"it is missing in {', '.join(lacking[:3])}",
            next_step=nearest(wanted, common),
        )
    return wanted


def _is_higher(metric: str) -> bool:
    return metric.endswith(_HIGHER)


def _notes(
    entries: Sequence[RunEntry],
    groups: Sequence[Sequence[RunEntry]],
    found: guard.Differences,
    unnamed: Sequence[str],
    metric: str,
) -> list[str]:
    notes = [f"marked, nobody named it: {guard.describe(entries, key)}" for key in unnamed]
    notes += [f"allowed to differ: {guard.describe(entries, key)}" for key in found.allowed]
    notes += [f"{name} is the same in all runs" for name in found.same]
    tokens = any(matches("tokenizer", key) for key in (*found.named, *found.implied, *unnamed))
    if tokens and metric.endswith(_PER_TOKEN):
        notes.append(
            f"the tokenizers differ, and {metric} is told per token: a tokenizer with more tokens "
            "that are easy to guess has a lower one; compare bits_per_character, or use ablate"
        )
    threads = {entry.record.resolved.get("threads") for entry in entries}
    if len(threads) > 1:
        notes.append("the numbers of threads differ, so that sums were rounded differently")
    if len(groups) > 1 and any(len(group) == 1 for group in groups):
        notes.append(
            "one seed says nothing of the noise of training: give three seeds or more before you "
            "believe a difference"
        )
    if len({tuple(sorted(str(run.seed) for run in group)) for group in groups}) > 1:
        notes.append("not all settings were trained with the same seeds")
    return notes
