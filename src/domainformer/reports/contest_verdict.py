"""What a comparison says, in words: who is ahead, by how much, how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["ahead", "even", "behind"]

# metric → (name, what it says)
METRICS: dict[str, tuple[str, str]] = {
    "auroc": (
        "AUROC",
        "the chance that a positive example is ranked above a negative one: 0.5 is guessing, 1 is "
        "perfect",
    ),
    "auprc": (
        "AUPRC",
        "precision averaged over all recalls: guessing gives the share of positives",
    ),
    "log_loss": ("log-loss", "surprise at the true label in nats: lower is better"),
    "brier": ("Brier", "mean squared error of the probability: lower is better"),
    "calibration_error": (
        "ECE",
        "how far probabilities are from observed shares: lower is better",
    ),
    "lift@10%": ("lift, top 10 %", "positives among the tenth ranked highest, against the average"),
    "accuracy": ("accuracy", "share of right first guesses"),
    "rmse": ("RMSE", "typical error, large ones count more: lower is better"),
    "mae": ("MAE", "mean absolute error: lower is better"),
    "r_squared": ("R²", "share of the variance that is explained"),
    "recall@10": ("Recall@10", "how often the right item is among the first ten"),
    "ndcg@10": ("NDCG@10", "the same, counting more the higher it stands"),
    "recall@5": ("Recall@5", "how often the right item is among the first five"),
    "ndcg@5": ("NDCG@5", "the same, counting more the higher it stands"),
}
_LOWER = {"log_loss", "brier", "calibration_error", "rmse", "mae"}
_SURE = 0.05


def metric_name(name: str) -> str:
    """A metric as people call it."""
    return METRICS[name][0] if name in METRICS else name


def pretty(value: float, *, signed: bool = False) -> str:
    """Four figures behind the point, fewer for large numbers.

    Example:
        >>> pretty(0.86664), pretty(1234.5), pretty(-0.01, signed=True)
        ('0.8666', '1,234', '−0.0100')
    """
    sign = "+" if signed else ""
    text = f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4f}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Found:
    """A results file, with what the page asks of it.

    Args:
        plain: What stands in ``comparison.json``.
    """

    plain: dict[str, Any]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.plain["task"])

    @property
    def primary(self) -> str:
        """The metric that decides."""
        return str(self.plain["primary"])

    @property
    def figures(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Contestant → metric → mean and error."""
        return dict(self.plain["figures"])

    @property
    def differences(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Contestant → metric → difference from the best baseline."""
        return dict(self.plain["differences"])

    @property
    def metrics(self) -> list[str]:
        """All metrics."""
        return list(next(iter(self.figures.values())))

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines."""
        return list(self.plain["baselines"])

    @property
    def best_baseline(self) -> str | None:
        """The baseline to beat."""
        best = self.plain["best_baseline"]
        return None if best is None else str(best)

    @property
    def record(self) -> dict[str, Any]:
        """Examples, folds, seeds."""
        return dict(self.plain["record"])

    @property
    def identity(self) -> dict[str, Any]:
        """Configuration, task, versions."""
        return dict(self.plain["identity"])

    @property
    def contestants(self) -> dict[str, dict[str, str]]:
        """Which contestant each name is."""
        return dict(self.identity.get("contestants", {}))

    @property
    def ranked(self) -> list[str]:
        """Names, best first."""
        sign = 1 if self.primary in _LOWER else -1
        return sorted(
            self.figures, key=lambda name: sign * self.figures[name][self.primary]["mean"]
        )

    @property
    def others(self) -> list[str]:
        """Names that are no baselines, best first."""
        return [name for name in self.ranked if name not in self.baselines]

    @property
    def best_of_ours(self) -> str | None:
        """The best that is no baseline."""
        return next(iter(self.others), None)

    @property
    def positives(self) -> float | None:
        """Share of positive test labels; None where the task is not binary."""
        value = self.identity["task"].get("positive")
        return None if value is None else float(value)

    @property
    def positive_class(self) -> str:
        """What a positive example is, as ``status is gone``; empty where the task says it."""
        task = self.identity["task"]
        value, label = task.get("positive_class"), task.get("record", {}).get("label")
        return f"{label} is {value}" if value is not None and label else ""

    def figure(self, name: str) -> str:
        """The primary figure of a contestant."""
        return pretty(self.figures[name][self.primary]["mean"])

    def leaders(self, metric: str) -> list[str]:
        """Who is best by a metric, equals together."""
        sign = -1 if metric in _LOWER else 1
        values = {name: sign * row[metric]["mean"] for name, row in self.figures.items()}
        return [name for name, value in values.items() if value == max(values.values())]


def outcome(found: Found, name: str, metric: str) -> Outcome:
    """Whether a contestant is ahead of the best baseline, behind it, or neither is shown."""
    one = found.differences[name][metric]
    if one["p_value"] >= _SURE:
        return "even"
    return "ahead" if one["better"] else "behind"


def answer(found: Found) -> tuple[Outcome, str]:
    """The page's first sentence."""
    best, base = found.best_of_ours, found.best_baseline
    metric = metric_name(found.primary)
    if best is None or base is None:
        leader = found.ranked[0]
        alone = "there is no baseline" if base is None else "all contestants are baselines"
        return "even", f"{leader} leads with {metric} {found.figure(leader)}; {alone}."
    one = found.differences[best].get(found.primary)
    if one is None:
        return "even", f"{best} has {metric} {found.figure(best)}, {base} {found.figure(base)}."
    what = outcome(found, best, found.primary)
    interval = (
        f"95 % interval {pretty(one['low'], signed=True)} to {pretty(one['high'], signed=True)}"
    )
    numbers = (
        f"{metric} {found.figure(best)} against {found.figure(base)}, a difference of "
        f"{pretty(one['value'], signed=True)} ({interval}, p {one['p_value']:.3f})."
    )
    words = {
        "ahead": f"{best} is better than {base}, the best baseline, on this task: ",
        "behind": f"{best} is worse than {base}, the best baseline, on this task: ",
        "even": f"No difference between {best} and {base}, the best baseline, is shown: ",
    }
    return what, words[what] + numbers
