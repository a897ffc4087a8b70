"""Documents of whatever a user has texts in: a path, a list, a data set of Hugging Face.

::

    path (file, folder, pattern)   list, iterator   Dataset   IterableDataset   DatasetDict
                                    └─▶ training documents, and those of validation where told
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domainformer.data.text import Document, read_texts
from domainformer.errors import DataError, nearest


def parts_of(source: Any, column: str) -> tuple[list[Document], list[Document] | None]:
    """Training texts, and validation texts where the source brings some.

    Raises:
        DataError: As `documents_of`, or a mapping has no part ``train``.
    """
    if isinstance(source, Mapping):
        if "train" not in source:
            raise DataError(
                "the data set has no part 'train'", why=f"it has {', '.join(map(str, source))}"
            )
        validation = source.get("validation")
        given = None if validation is None else documents_of(validation, column)
        return documents_of(source["train"], column), given
    return documents_of(source, column), None


def documents_of(source: Any, column: str) -> list[Document]:
    """The texts of a path, a list or a data set of Hugging Face.

    Args:
        source: Any of these.
        column: Of a data set: that which holds the texts.

    Raises:
        DataError: There are no texts, or something is none.

    Example:
        >>> documents_of([{"text": "to be"}, "or not"], "text")[0]
        Document(name='text 0', text='to be', start=0)
    """
    if isinstance(source, str | Path):
        return read_texts(source)
    columns = getattr(source, "column_names", None)
    if columns is not None:
        if column not in columns:
            raise DataError(
                f"the data set has no column {column!r}",
                next_step=nearest(column, columns) or "set text_column",
            )
        source = source[column]
    if not isinstance(source, Iterable):
        raise DataError(
            f"{type(source).__name__} is no source of texts",
            next_step="give a path, a list of texts, or a data set of Hugging Face",
        )
    documents = []
    for number, item in enumerate(source):
        # A streamed data set gives rows, and has no columns to ask for.
        text = item.get(column) if isinstance(item, Mapping) else item
        if isinstance(text, Document):
            documents.append(text)
        elif isinstance(text, str):
            documents.append(Document(f"text {number}", text))
        else:
            raise DataError(f"text {number} is {type(text).__name__}", next_step="give texts")
    if not documents:
        raise DataError("there are no texts", next_step="check the source")
    return documents
