"""The tasks on public tables that results are quoted on, and one that is simulated.

The files are not part of the project: ``DOMAINFORMER_DATA`` names their folder. Protocols are those
of the literature, or fixed once in docs/protocols.md, so that figures can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from domainformer.data import EventTable, simulate
from domainformer.errors import ArtifactError, DataError, nearest
from domainformer.evaluation.next_tasks import next_item_task, next_value_task
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.evaluation.tasks import EXAMPLE, FOLD, TRAIN_ONLY, Task

DATA_VARIABLE = "DOMAINFORMER_DATA"
MONTHLY_CUTS = (
    *(f"2016-{month:02d}-01" for month in range(6, 13)),
    *(f"2017-{month:02d}-01" for month in range(1, 6)),
)
"""Twelve training cuts for dormancy; the last one's 90 days end before the test cut."""
CHURN_CUTS = ("2011-05-10", "2011-06-10")
FORTNIGHTLY_CUTS = (
    "2011-03-04",
    "2011-03-18",
    "2011-04-01",
    "2011-04-15",
    "2011-04-29",
    "2011-05-13",
    "2011-05-27",
    "2011-06-10",
)
"""Eight cuts whose 91 days are over at 2011-09-09."""


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of the public tables: the argument, else ``DOMAINFORMER_DATA``.

    Raises:
        ArtifactError: Neither names a folder.
    """
    given = folder or os.environ.get(DATA_VARIABLE)
    if not given or not Path(given).is_dir():
        raise ArtifactError(
            "the folder of the public tables was not found",
            where=str(given) if given else None,
            next_step=f"set {DATA_VARIABLE} to it",
        )
    return Path(given)


def physionet_death(folder: str | Path | None = None, *, folds: int = 5, seed: int = 0) -> Task:
    """In-hospital death after the first 48 hours in intensive care, folds by stay.

    4,000 stays, 13.85 % positive; three stays have no events (Silva et al. 2012, set a).
    """
    path = data_folder(folder) / "health"
    events = EventTable.read(
        path / "physionet2012_a_events.parquet", entity="record_id", time="minute"
    )
    stays = pl.read_parquet(path / "physionet2012_a_stays.parquet")
    return _from_clients(
        "physionet_death", events, stays, "in_hospital_death", folds=folds, seed=seed
    )


def credit_default(folder: str | Path | None = None, *, folds: int = 5, seed: int = 0) -> Task:
    """Default in the month after six months of statements; 30,000 clients, 22.12 % positive."""
    path = data_folder(folder) / "finance"
    events = EventTable.read(
        path / "credit_default_events.parquet", entity="client_id", time="month"
    )
    clients = pl.read_parquet(path / "credit_default_clients.parquet")
    return _from_clients(
        "credit_default", events, clients, "default_next_month", folds=folds, seed=seed
    )


def online_retail_churn(
    folder: str | Path | None = None, *, train_cuts: tuple[str, ...] = CHURN_CUTS
) -> Task:
    """No event in the next 91 days at 2011-09-09: 3,404 customers, 42.5 % positive.

    Rows without a customer are left out.

    Args:
        folder: Folder of the tables.
        train_cuts: Cuts to train on; :data:`FORTNIGHTLY_CUTS` are eight.
    """
    path = data_folder(folder) / "commerce" / "online_retail.parquet"
    table = EventTable.read(path, entity="customer_id", time="timestamp")
    name = "online_retail_churn" + ("" if train_cuts == CHURN_CUTS else f"_{len(train_cuts)}_cuts")
    return task_at_cuts(name, table, train_cuts, "2011-09-09", horizon=91)


def birmingham_dormancy(
    folder: str | Path | None = None,
    *,
    artefact: bool = True,
    train_cuts: tuple[str, ...] = MONTHLY_CUTS,
) -> Task:
    """Cards active in the last 180 days that have no event in the next 90, at 2017-08-01.

    937 cards, 28.4 % positive.

    Args:
        folder: Folder of the tables.
        artefact: False tests without the 98 cards whose last ``directorate`` is null (839 cards,
            20.1 % positive): that null comes from how spring 2017 was published, and tells which
            cards stopped. The training examples are the same.
        train_cuts: Cuts to train on.
    """
    task = task_at_cuts(
        "birmingham_dormancy",
        _birmingham(folder),
        train_cuts,
        "2017-08-01",
        horizon=90,
        observed=180,
    )
    if artefact:
        return task
    rows = task.examples
    last = task.history(rows.filter(pl.col(FOLD) == 0), last=1).frame
    untold = last.filter(pl.col("directorate").is_null())[EXAMPLE]
    kept = rows.filter((pl.col(FOLD) == TRAIN_ONLY) | ~pl.col(EXAMPLE).is_in(untold.implode()))
    return Task(
        "birmingham_dormancy_without_artefact",
        task.table,
        kept,
        task.kind,
        split="time",
        record={**task.record, "left_out": "test cards whose last directorate is null"},
    )


def birmingham_next_expense(folder: str | Path | None = None) -> Task:
    """Expense kind of a card's next event; trained before 2017-02-01, tested after (49,359 events).

    Events without an expense kind are no targets, but are shown.
    """
    return next_value_task(
        "birmingham_next_expense", _birmingham(folder), "expense", test_from="2017-02-01"
    )


def beauty_next_item(folder: str | Path | None = None) -> Task:
    """Next item among all 12,101, leave-last-out, of 22,363 users (Amazon 2014 Beauty, 5-core)."""
    path = data_folder(folder) / "commerce" / "beauty_events.parquet"
    table = EventTable.read(path, entity="user_id", time="position")
    return next_item_task("beauty_next_item", table, "item_id")


def simulated_order(
    entities: int = 3000, *, events_per_entity: float = 60, folds: int = 5, seed: int = 0
) -> Task:
    """A simulated finance label that only order and timing tell (see ``data/simulation``).

    The same kinds of events occur in both classes, so counts, sums and recency know nothing.
    """
    table = simulate("finance", entities=entities, events_per_entity=events_per_entity, seed=seed)
    return task_from_labels("simulated_order", table, label="label", folds=folds, seed=seed)


PUBLIC_TASKS: dict[str, Callable[[str | Path | None], Task]] = {
    "physionet_death": physionet_death,
    "credit_default": credit_default,
    "online_retail_churn": online_retail_churn,
    "online_retail_churn_8_cuts": lambda folder: online_retail_churn(
        folder, train_cuts=FORTNIGHTLY_CUTS
    ),
    "birmingham_dormancy": birmingham_dormancy,
    "birmingham_dormancy_without_artefact": lambda folder: birmingham_dormancy(
        folder, artefact=False
    ),
    "birmingham_next_expense": birmingham_next_expense,
    "beauty_next_item": beauty_next_item,
    "simulated_order": lambda _: simulated_order(),
}


def public_task(name: str, folder: str | Path | None = None) -> Task:
    """A task by name, with its usual settings.

    Raises:
        DataError: There is no such task.
        ArtifactError: The folder of the tables was not found.

    Example:
        >>> public_task("credit_defualt")
        Traceback (most recent call last):
        ...
        domainformer.errors.DataError: there is no public task 'credit_defualt'
          next:  did you mean 'credit_default'?
    """
    if name not in PUBLIC_TASKS:
        raise DataError(f"there is no public task {name!r}", next_step=nearest(name, PUBLIC_TASKS))
    return PUBLIC_TASKS[name](folder)


def _birmingham(folder: str | Path | None) -> EventTable:
    path = data_folder(folder) / "finance" / "birmingham_cards_2014_2018.parquet"
    return EventTable.read(path, entity="card", time="date")


def _from_clients(
    name: str, events: EventTable, clients: pl.DataFrame, label: str, *, folds: int, seed: int
) -> Task:
    """A task whose labels and static columns stand in one table, entity first."""
    entity = clients.columns[0]
    return task_from_labels(
        name,
        events,
        clients.select(entity, label),
        label=label,
        static=clients.drop(label),
        folds=folds,
        seed=seed,
    )
