"""What a contest is made of: a task, the models, the seeds and folds. One YAML file.

::

    task:    {table: cards.parquet, entity: card, time: date, cuts: {train: [2017-05-01], …}}
    models:  {lightgbm: {}, joint: {ensemble: 3}, small: {contestant: sequence}}
    seeds:   [0, 1]
    output:  contests/cards
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from domainformer.config import StrictConfig
from domainformer.training.config import Cut


def _as_text(value: Any) -> Any:
    # YAML reads an unquoted 2017-02-01 as a date; cuts are ISO text, or whole numbers.
    return value if isinstance(value, int) else str(value)


Moment = Annotated[str | int, BeforeValidator(_as_text)]


class SimulatedConfig(StrictConfig):
    """The simulated task whose label only order and timing tell, in a size of one's own.

    Args:
        entities: Number of clients.
        events_per_entity: Mean length of a history.
        folds: Folds by client.
        seed: Of the simulation and the folds.
    """

    entities: int = Field(3000, ge=20)
    events_per_entity: float = Field(60, ge=16)
    folds: int = Field(5, ge=2)
    seed: int = 0


class LabelConfig(StrictConfig):
    """One label per entity, judged in folds by entity.

    Args:
        column: The label's column, of the table (it is taken out of the events) or of ``table``.
        table: File with one row per entity: the entity column, the label, and static columns.
        static: Its columns that models may read; None: all but entity and label.
        kind: ``binary`` takes any two values (the later in sorted order is 1).
        folds: Number of folds, stratified by label.
        seed: Of the folds.
        cut: Show events before it only.
    """

    column: str
    table: str | None = None
    static: tuple[str, ...] | None = None
    kind: Literal["binary", "multiclass", "regression"] = "binary"
    folds: int = Field(5, ge=2)
    seed: int = 0
    cut: Cut = None


class CutsConfig(StrictConfig):
    """What happens in ``[cut, cut + horizon)``: trained on earlier cuts, tested at the last.

    Args:
        train: Training cuts.
        test: The cut that is judged.
        horizon: Days (or units of an integer time) after a cut in which the label looks.
        observed: Only entities whose last event is at most so long before the cut.
        label: ``no_event`` (churn, dormancy), ``any_event``, or what is made of ``column``.
        column: The number that ``sum``, ``mean`` or ``max`` reads; the task is a regression.
        known_until: Up to when the table is complete; events after it are an error.
        static: File with one row per entity: columns known before every cut.
    """

    train: tuple[Moment, ...] = Field(min_length=1)
    test: Moment
    horizon: int = Field(gt=0)
    observed: int | None = Field(None, gt=0)
    label: Literal["no_event", "any_event", "sum", "mean", "max"] = "no_event"
    column: str | None = None
    known_until: Cut = None
    static: str | None = None

    @model_validator(mode="after")
    def _column_where_it_is_read(self) -> CutsConfig:
        if (self.column is None) != (self.label in ("no_event", "any_event")):
            raise ValueError("column belongs to label: sum, mean or max, and these need it")
        return self


class NextValueConfig(StrictConfig):
    """A column of the next event, from all events before it.

    Args:
        column: The column that is foretold.
        test_from: First time of the tested events.
        validation_from: First time of the validation events; None: cut from the training part.
        kind: ``multiclass`` or ``regression``.
    """

    column: str
    test_from: Moment
    validation_from: Cut = None
    kind: Literal["multiclass", "regression"] = "multiclass"


class TaskConfig(StrictConfig):
    """The task: a public one, the simulated one, or your own table with one kind of label.

    Args:
        public: Name of a public task (see docs/protocols.md).
        folder: Folder of the public tables; None: ``DOMAINFORMER_DATA``.
        simulated: The simulated task in a size of one's own.
        table: Your events: Parquet, CSV, Arrow, MEDS.
        entity: Column that names whose event it is.
        time: Column of the event's time.
        columns: Columns to read; None reads all.
        name: What results call the task; None: the public name, or the table's file name.
        label: One label per entity, or
        cuts: what happens after a cut, or
        next_value: a column of the next event, or
        next_item: the column of items, whose next value is ranked among all (leave-last-out).
    """

    public: str | None = None
    folder: str | None = None
    simulated: SimulatedConfig | None = None
    table: str | None = None
    entity: str = "entity"
    time: str | None = None
    columns: tuple[str, ...] | None = None
    name: str | None = None
    label: LabelConfig | None = None
    cuts: CutsConfig | None = None
    next_value: NextValueConfig | None = None
    next_item: str | None = None

    @model_validator(mode="after")
    def _one_source_and_one_label(self) -> TaskConfig:
        sources = [name for name in ("public", "simulated", "table") if getattr(self, name)]
        if len(sources) != 1:
            raise ValueError("give one of public, simulated and table")
        asked = ("label", "cuts", "next_value", "next_item")
        labels = [name for name in asked if getattr(self, name) is not None]
        if self.table is not None and len(labels) != 1:
            raise ValueError("a table needs one of label, cuts, next_value and next_item")
        if self.table is None and labels:
            raise ValueError(f"{labels[0]} belongs to a table of your own")
        return self


class ContestConfig(StrictConfig):
    """Everything that decides a contest.

    Args:
        task: What is foretold.
        models: Contestants by the name that results call them; ``contestant`` says which one, where
            the name is another. None: lightgbm, sequence, joint, late and blend; for next values
            and next items the counts, networks and rankers that answer these.
        baselines: Names of the models to beat; None: those that are known as baselines.
        seeds: One run of every model for each.
        folds: Folds that are run; None: all.
        samples: Draws of the paired bootstrap.
        check_leaks: Look for features that know the label before anything is fitted.
        output: Folder of predictions and results.

    Example:
        >>> from domainformer.config import build
        >>> build(ContestConfig, {"task": {"public": "credit_default"}, "seeds": [0, 1]}).seeds
        (0, 1)
        >>> build(ContestConfig, {"task": {"table": "cards.parquet"}})
        Traceback (most recent call last):
        ...
        domainformer.errors.ConfigError: the configuration has 1 error
          why:   task: ... a table needs one of label, cuts, next_value and next_item ...
    """

    task: TaskConfig
    models: dict[str, dict[str, Any] | None] | None = None
    baselines: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    folds: tuple[int, ...] | None = None
    samples: int = Field(1000, ge=10)
    check_leaks: bool = True
    output: str = "contest"

    @model_validator(mode="after")
    def _names_once(self) -> ContestConfig:
        for name in self.models or {}:
            if not name or not all(char.isalnum() or char in "-_." for char in name):
                raise ValueError(
                    f"the model name {name!r} has characters other than letters, digits, -, _ and ."
                )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        return self
