"""The contestants by name, imported when they are asked for, and built from plain settings.

A new contestant is a frozen dataclass with ``fit`` (a
:class:`~domainformer.evaluation.tasks.Model`) and one line in ``_CLASSES``; its fields are what
YAML may set, its docstring says what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from domainformer.errors import ConfigError, nearest
from domainformer.evaluation.tasks import POSITION, Model, Task

_PACKAGE = "domainformer.evaluation."
# name → "module below evaluation:class"
_CLASSES: Mapping[str, str] = {
    "lightgbm": "contest.boosting:LightGBM",
    "sequence": "contest.neural:SequenceModel",
    "joint": "contest.neural:JointModel",
    "tabular": "contest.tabular:TabularNetwork",
    "late": "contest.late:LateFusion",
    "blend": "contest.blend:Blend",
    "popular": "sequence_baselines.counts:Popular",
    "repeat_last": "sequence_baselines.counts:RepeatLast",
    "counts": "sequence_baselines.counts:Counts",
    "ranker": "sequence_baselines.ranker:Ranker",
    "gru": "sequence_baselines.gru:GRU",
    "text": "sequence_baselines.text:TextSerialisation",
    "popular_items": "item_contestants:PopularItems",
    "transitions": "item_contestants:TransitionItems",
    "ease": "item_contestants:EaseItems",
    "items": "item_network:NextItems",
    "items_and_counts": "item_network:NetworkAndCounts",
}

# What the others are to be better than: the best of those that run is the one to beat.
BASELINES = frozenset(
    {
        "lightgbm",
        "gru",
        "text",
        "popular",
        "repeat_last",
        "counts",
        "ranker",
        "popular_items",
        "transitions",
        "ease",
    }
)


USUAL = ("lightgbm", "sequence", "joint", "late", "blend")
# Questions after every event: what copies a history for each of them would not fit into memory.
USUAL_NEXT_VALUE = ("popular", "repeat_last", "counts", "ranker", "gru")
USUAL_NEXT_ITEM = ("popular_items", "transitions", "ease", "items", "items_and_counts")


class _Contestants(Mapping[str, Callable[..., Model]]):
    """Classes by name; a module is imported when its class is looked up."""

    def __getitem__(self, name: str) -> Callable[..., Model]:
        module, _, attribute = _CLASSES[name].partition(":")
        found: Callable[..., Model] = getattr(import_module(_PACKAGE + module), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES  # without importing it

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


CONTESTANTS: Mapping[str, Callable[..., Model]] = _Contestants()


def usual_models(task: Task | None) -> tuple[str, ...]:
    """Who takes part where nobody is named.

    Args:
        task: The task; None: one of labels.
    """
    if task is not None and task.kind == "next_item":
        return USUAL_NEXT_ITEM
    if task is not None and POSITION in task.examples.columns:
        return USUAL_NEXT_VALUE
    return USUAL


def build_contestant(
    name: str, settings: Mapping[str, Any] | None = None, *, where: str | None = None
) -> Model:
    """A contestant from plain settings, as YAML gives them.

    Args:
        name: One of :data:`CONTESTANTS`.
        settings: Values of its fields; mappings become the dataclasses that the fields ask for.
        where: What errors call the settings; None: the name.

    Raises:
        ConfigError: There is no such contestant or setting, or a value does not fit.

    Example:
        >>> build_contestant("lightgbm", {"boosting": {"budget": 2}}).boosting.budget
        2
        >>> build_contestant("lightgbm", {"boosting": {"bugdet": 2}})
        Traceback (most recent call last):
        ...
        domainformer.errors.ConfigError: there is no setting 'bugdet'
          where: lightgbm.boosting
          next:  did you mean 'budget'?
    """
    if name not in CONTESTANTS:
        raise ConfigError(
            f"there is no contestant {name!r}",
            where=where,
            next_step=nearest(name, CONTESTANTS),
        )
    cls: Any = CONTESTANTS[name]
    where = where or name
    values = dict(settings or {})
    _refuse_unknown(cls, values, where)
    try:
        built: Model = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        ]
        raise ConfigError(
            "the settings do not fit", where=where, why="\n         ".join(lines)
        ) from None
    return built


def _refuse_unknown(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Name a setting that is no field, here or in a nested dataclass, and the nearest that is."""
    if is_dataclass(cls):
        known = {one.name for one in fields(cls) if one.init}
    else:
        known = set(cls.model_fields)
    hints = get_type_hints(cls)
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"there is no setting {key!r}", where=where, next_step=nearest(key, known)
            )
        if isinstance(value, Mapping):
            hint = hints[key]
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner) or (
                    isinstance(inner, type) and issubclass(inner, BaseModel)
                ):
                    _refuse_unknown(inner, value, f"{where}.{key}")
