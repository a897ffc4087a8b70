"""Which column is the entity, which the time, which the label: read from names and shapes."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from domainformer.errors import SchemaError, nearest
from domainformer.schema.profile import kind_of, words_of


def _words(text: str) -> frozenset[str]:
    """A set of words, written as one string."""
    return frozenset(text.split())


#: Whoever or whatever has a history.
_ENTITY_NOUNS = _words(
    "customer client user patient subject card cardholder account member person individual "
    "household holder consumer buyer shopper visitor subscriber player student employee driver "
    "vehicle machine device sensor policy policyholder stay encounter record case entity uid "
    "cust acct msisdn"
)
_ID_WORDS = _words("id ids no nr num number key code ref uuid guid hash")
#: Things that happen to, or are bought by, an entity: their ids are not entities.
_EVENT_NOUNS = _words(
    "event transaction txn trans invoice order basket receipt item product article sku stock "
    "merchant shop store code session row line index message visit page unit expense "
    "parameter category"
)
_TIME_WORDS = _words("timestamp time datetime date moment ts")
_TIME_UNITS = _words(
    "second seconds minute minutes hour hours day days week weeks month months epoch step "
    "position seq sequence tick offset t"
)
#: A column with more different values than this share of the rows holds no histories.
MOST_ENTITIES = 0.8
#: Numbers that are names.
_NUMBERED = _words("id ids no nr key code ref uuid guid sku mcc zip zipcode postcode isbn ean asin")
_LABEL_NAMES = _words("label labels target targets outcome y")


def is_identifier_name(name: str) -> bool:
    """Whether a name says that numbers are labels: ``item_id``, ``StockCode``, ``sku``.

    Example:
        >>> is_identifier_name("item_id"), is_identifier_name("num_items")
        (True, False)
    """
    words = words_of(name)
    last = words[-1] if words else ""
    return last in _NUMBERED or (len(words) == 1 and last in _EVENT_NOUNS | _ENTITY_NOUNS)


def guess_entity(frame: pl.DataFrame) -> str:
    """The one column that plainly names who has a history.

    Raises:
        SchemaError: No column, or more than one, does.
    """
    scores = {name: _entity_score(frame[name]) for name in frame.columns}
    best = max(scores.values(), default=0)
    winners = [name for name, score in scores.items() if score == best and score > 0]
    if len(winners) == 1:
        return winners[0]
    unique = [
        name
        for name in frame.columns
        if _entity_name_score(name) >= 2
        and kind_of(frame[name].dtype) != "other"
        and frame[name].n_unique() > MOST_ENTITIES * frame.height
    ]
    if unique and not winners:
        raise SchemaError(
            f"the column {unique[0]!r} has another value in (almost) every row",
            why="an entity has a history only where several events share its value",
            next_step="give a table of events, not of entities, or name another column: "
            "entity='COLUMN' (--entity COLUMN)",
        )
    raise _ask("entity", winners, "whose history an event belongs to", frame.columns)


def guess_time(frame: pl.DataFrame, entity: str) -> str:
    """The one column that plainly tells when an event happened.

    Raises:
        SchemaError: No column, or more than one, does.
    """
    scores = {name: _time_score(frame[name]) for name in frame.columns if name != entity}
    best = max(scores.values(), default=0)
    winners = [name for name, score in scores.items() if score == best and score > 0]
    if len(winners) == 1:
        return winners[0]
    texts = [
        name
        for name in scores
        if kind_of(frame[name].dtype) == "string" and _TIME_WORDS & set(words_of(name))
    ]
    if texts and not winners:
        raise time_is_text(texts[0])
    raise _ask("time", winners, "when an event happened", frame.columns)


def guess_label(frame: pl.DataFrame, static: Sequence[str]) -> str | None:
    """A column called label, target or the like that never changes within an entity."""
    for name in static:
        if "".join(words_of(name)) in _LABEL_NAMES and frame[name].n_unique() <= 50:
            return name
    return None


def required(frame: pl.DataFrame, name: str, role: str) -> str:
    """A column that the caller named, which must exist.

    Raises:
        SchemaError: It does not.
    """
    if name in frame.columns:
        return name
    raise SchemaError(
        f"the table has no column {name!r}, which was given as the {role}",
        next_step=nearest(name, frame.columns),
    )


def time_is_text(name: str) -> SchemaError:
    """The error for a time that is stored as text."""
    return SchemaError(
        f"the column {name!r} holds times as text",
        why="only dates, datetimes and whole numbers can be ordered safely",
        next_step=f"convert it first, for example pl.col({name!r}).str.to_datetime()",
    )


def _entity_score(series: pl.Series) -> int:
    """0: no; the clearer the name, the higher. The shape must allow histories."""
    score = _entity_name_score(series.name)
    if not score or series.null_count() > 0.5 * len(series):
        return 0
    kind, values = kind_of(series.dtype), series.drop_nulls()
    # Ids with gaps often arrive as floats, because pandas has no other null for numbers.
    if kind == "float" and not (values.cast(pl.Float64) % 1 == 0).all():
        return 0
    if kind not in ("integer", "string", "float"):
        return 0
    return score if 2 <= values.n_unique() <= MOST_ENTITIES * len(series) else 0


def _entity_name_score(name: str) -> int:
    words = words_of(name)
    if not words:
        return 0
    noun, marked = bool(_ENTITY_NOUNS & set(words)), words[-1] in _ID_WORDS
    if noun:
        return 3 if marked else 2 if len(words) == 1 else 0
    return 1 if marked and not _EVENT_NOUNS & set(words) else 0


def _time_score(series: pl.Series) -> int:
    kind, words = kind_of(series.dtype), words_of(series.name)
    if series.null_count() > 0.5 * len(series) or not words:
        return 0
    if kind in ("date", "datetime"):
        plain = len(words) == 1 and bool((_TIME_WORDS | _TIME_UNITS) & set(words))
        named = bool(_TIME_WORDS & set(words))
        return 4 + 2 * plain + (named and not plain)
    if kind == "integer" and words[-1] in _TIME_WORDS | _TIME_UNITS:
        return 2 if len(words) == 1 else 1
    return 0


def _ask(role: str, winners: Sequence[str], meaning: str, columns: Sequence[str]) -> SchemaError:
    found = (
        f"these could all be it: {', '.join(winners)}"
        if winners
        else f"no name and shape make it plain among: {', '.join(columns[:20])}"
    )
    step = f"pass {role}='COLUMN' (--{role} COLUMN), the column that tells {meaning}"
    if role == "time":
        step += "; a table whose order alone counts is EventTable.of(…, entity=…, time=None)"
    return SchemaError(f"which column is the {role}?", why=found, next_step=step)
