"""What an event is made of: fields, schemas, presets, and a schema proposed from a table.

Start at :mod:`~domainformer.schema.fields` (one field and its token names), go on to
:mod:`~domainformer.schema.schema` (a whole event), :mod:`~domainformer.schema.presets`, and
:mod:`~domainformer.schema.infer` (a schema proposed from a table, with its evidence).

May import: config, artifacts, errors, polars and rich; nothing above.
"""

from domainformer.schema.evidence import ColumnEvidence, InferredSchema
from domainformer.schema.fields import (
    CALENDAR_PARTS,
    GENERIC_SPECIALS,
    CalendarPart,
    FieldSpec,
    FieldType,
)
from domainformer.schema.infer import infer_schema
from domainformer.schema.presets import ECOMMERCE_SCHEMA, FINANCE_SCHEMA, HEALTH_SCHEMA, PRESETS
from domainformer.schema.schema import DomainSchema
from domainformer.schema.sources import Source

__all__ = [
    "FieldType",
    "FieldSpec",
    "DomainSchema",
    "Source",
    "infer_schema",
    "InferredSchema",
    "ColumnEvidence",
    "FINANCE_SCHEMA",
    "ECOMMERCE_SCHEMA",
    "HEALTH_SCHEMA",
    "PRESETS",
    "CALENDAR_PARTS",
    "CalendarPart",
    "GENERIC_SPECIALS",
]
