"""Short trainings with settings that optuna proposes: how well can it do in so many steps?

Source: Akiba et al. 2019, "Optuna" (arXiv 1907.10902); the sampler is TPE with the check's seed.
"""

from __future__ import annotations

import math
import time
from typing import Any

from domainformer.errors import MissingExtraError
from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.evaluation.checks.tier3.contender import FALL, Settings, run, score
from domainformer.evaluation.checks.training import Trained, default_rate
from domainformer.models.universal.verdict import CheckResult

_FACTOR = 10.0


def check_short_training(context: Context) -> CheckResult:
    """The best of a few short trainings beats what is known without reading: the counts of tokens.

    Trials end early where their time, ``trials`` times ``seconds``, is over.
    """
    first = Settings(context.notes.get("learning_rate", default_rate(context.subject)))
    trials = _trials(context, first)
    losses = [loss for _, loss, _ in trials]
    settings, loss, found = min(trials, key=lambda trial: trial[1])
    told = (
        f"best of {len(trials)}: {loss:.3f} nats after {found.how} ({settings}); "
        f"the first had {losses[0]:.3f}"
    )
    if not math.isfinite(loss):
        why = f"all of {len(trials)} trainings diverged"
        return CheckResult("short_training", "fail", why, "see the check of learning rates")
    context.notes["contender"] = found
    context.notes["settings"] = settings
    limit = _limit(context, found)
    if loss < limit:
        return CheckResult("short_training", "pass", told, None, loss, limit)
    learned = loss < FALL * found.losses[0]
    return CheckResult(
        "short_training",
        "warn" if learned else "fail",
        f"{told}: no better than without reading ({limit:.3f})"
        if learned
        else f"{told}: no better than at its start ({found.losses[0]:.3f})",
        "give it more steps (steps=…) and time (seconds=…)"
        if learned
        else "see the checks of gradients and of overfitting",
        loss,
        limit,
    )


def _trials(context: Context, first: Settings) -> list[tuple[Settings, float, Trained]]:
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(seed=context.seed, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    rate = first.learning_rate
    usual = min(max(default_rate(context.subject), rate / _FACTOR), rate * _FACTOR)
    for each in dict.fromkeys([rate, usual]):
        study.enqueue_trial(
            {"learning_rate": each, "weight_decay": first.weight_decay, "warmup": first.warmup}
        )
    found: list[tuple[Settings, float, Trained]] = []
    begun = time.perf_counter()
    for _ in range(context.trials):
        trial = study.ask()
        settings = Settings(
            trial.suggest_float("learning_rate", rate / _FACTOR, rate * _FACTOR, log=True),
            trial.suggest_float("weight_decay", 0.0, 0.1),
            trial.suggest_float("warmup", 0.0, 0.3),
        )
        trained = run(context, settings)
        loss = score(context, trained)
        found.append((settings, loss, trained))
        study.tell(trial, loss if math.isfinite(loss) else 1e9)
        # The copies of models that did worse would fill the memory.
        best = min(range(len(found)), key=lambda i: found[i][1])
        found = [(s, x, t if i == best else found[best][2]) for i, (s, x, t) in enumerate(found)]
        if time.perf_counter() - begun > context.trials * context.seconds:
            break
    return found


def _limit(context: Context, found: Trained) -> float:
    if not context.subject.causal:
        # Counts of next tokens are no measure of masked ones, or of classes.
        return FALL * found.losses[0]
    if context.text is None:
        return context.markov.unigram_entropy
    from domainformer.evaluation.checks.tier3.baselines import counted

    return counted(context)[0]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        missing = MissingExtraError("optuna", extra="tune", purpose="the hyper-parameter probe")
        raise Unanswerable(f"{missing.what}: {missing.next_step}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
