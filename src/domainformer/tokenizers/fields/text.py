"""Free text within an event, as a marker and a few byte-level BPE tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import polars as pl

from domainformer.errors import TokenizerError
from domainformer.schema.fields import missing_token, text_token
from domainformer.tokenizers.base import MISSING, FieldTokenizer, Int32Array, Ragged
from domainformer.tokenizers.fields.bytepair import BytePairModel, train_bpe
from domainformer.tokenizers.fields.columns import canonical_text, dictionary
from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.statistics import Limits, TextSketch

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

MARKER = 1
FIRST_PIECE = 2
"""Local id of the shared BPE model's id 0."""

# Texts remembered between calls, and the longest text worth remembering.
_MOST_REMEMBERED = 1 << 17
_LONGEST_REMEMBERED = 256
_TABLES = 4


class TextCodes(NamedTuple):
    """A column of texts as codes into its distinct texts' rows of local ids."""

    codes: Int32Array
    table: Ragged


class TextTokenizer(FieldTokenizer):
    """A text becomes its field's marker and at most ``max_tokens`` BPE tokens.

    ::

        null           [MERCHANT_MISSING]
        ""             [MERCHANT]
        "corner shop"  [MERCHANT] cor ner Ġshop

    Local ids are 0 for missing, 1 for the marker, and 2 + i for token i of the byte-level BPE
    model that all text fields of a table share. `vocab` lists the two tokens of the field itself
    (known before any fit); those of the model are ``bpe.tokens``. A column is encoded by its
    *distinct* texts. Longer texts are truncated (`truncate`); numbers and other scalars are read
    by their canonical text.

    The model is `bind`-ed, or trained by `fit` on the field's own column.

    Args:
        spec: A field of type TEXT.
        bpe_vocab_size: Bytes and merges of a model that `fit` trains.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> names = pl.Series(["low", None, ""])
        >>> text = TextTokenizer(FieldSpec("name", "text"), bpe_vocab_size=258).fit(names)
        >>> text.vocab, text.bpe.tokens[-2:]
        (['[NAME_MISSING]', '[NAME]'], ['lo', 'low'])
        >>> text.encode(names).rows()
        [[1, 259], [0], [1]]
    """

    kind: ClassVar[str] = "text"
    width: int | None = None

    def __init__(self, spec: FieldSpec, *, bpe_vocab_size: int = 4096) -> None:
        super().__init__(spec)
        self.bpe_vocab_size = bpe_vocab_size
        self.bpe: BytePairModel | None = None
        self._vocab = [missing_token(spec.name), text_token(spec.name)]
        self._remembered: dict[str, list[int]] = {}  # BPE's own ids
        # Tables of distinct texts that the encoder has made lately (`tokenizers.spans`).
        self.tables: deque[Any] = deque(maxlen=_TABLES)

    @property
    def fitted(self) -> bool:
        """Whether a BPE model is bound."""
        return self.bpe is not None

    def bind(self, bpe: BytePairModel) -> Self:
        """Use a BPE model that is trained already."""
        self.bpe = bpe
        self._remembered = {}
        self.tables.clear()
        return self

    def new_statistics(self, limits: Limits) -> TextSketch:
        """A sketch of the texts; the text fields of a table may share one."""
        return TextSketch(limits)

    def observe(self, sketch: TextSketch, column: pl.Series) -> None:
        """Add the texts of a column."""
        sketch.add(count_texts(column, field=self.spec.name))

    def fit_statistics(self, sketch: TextSketch) -> Self:
        """Train a BPE model on texts, unless one is bound; then there is nothing to learn."""
        if self.bpe is not None:
            return self
        counts = sketch.counts()
        sizes = list(counts.values())
        trained = train_bpe(list(counts), sizes, self.bpe_vocab_size, self.vocab)
        return self.bind(BytePairModel(trained))

    def codes(self, column: pl.Series) -> TextCodes:
        """Codes of the column's distinct texts, and the local ids of each."""
        codes, distinct = dictionary(column, field=self.spec.name)
        rows = map(_local, self.pieces([canonical_text(value) for value in distinct]))
        return TextCodes(codes, Ragged.of(list(rows)))

    def encode(self, column: pl.Series) -> Ragged:
        """Local ids of a column, one ragged row per event."""
        codes, table = self.codes(column)
        return table.take(codes)

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local ids of one text."""
        text = value if type(value) is str else canonical_text(value)
        known = self._remembered.get(text) if text is not None else None
        return tuple(_local(self.pieces([_valid(text)])[0] if known is None else known))

    def pieces(self, texts: Sequence[str | None]) -> list[list[int] | None]:
        """The BPE model's own ids of distinct texts; None for None.

        They are remembered between calls, as far as there is room: the same shops come again.
        """
        bpe, remembered = self._model(), self._remembered
        if len(remembered) >= _MOST_REMEMBERED:
            remembered.clear()
        new = [text for text in texts if text is not None and text not in remembered]
        cut = bpe.truncate(new, self.spec.max_tokens)
        fresh = {text: row.ids for text, row in zip(new, cut, strict=True)}
        rows: list[list[int] | None] = []
        for text in texts:
            row = None if text is None else fresh.get(text)
            rows.append(remembered[text] if row is None and text is not None else row)
        short = (item for item in fresh.items() if len(item[0]) <= _LONGEST_REMEMBERED)
        remembered.update(islice(short, _MOST_REMEMBERED - len(remembered)))
        return rows

    def truncate(self, value: Any) -> str | None:
        """What is left of a text within ``max_tokens``; None where the value is missing.

        The ids of a text are always the ids of its truncated form alone.
        """
        text = _valid(canonical_text(value))
        return (
            None if text is None else self._model().truncate([text], self.spec.max_tokens)[0].text
        )

    def escape(self, text: str) -> str:
        """A text as it stands in a rendered event (see `BytePairModel.escape`)."""
        return self._model().escape(text)

    def decode(self, ids: Ragged) -> pl.Series:
        """The text of each row; null for missing.

        Raises:
            TokenizerError: A row is neither missing alone nor a marker followed by BPE tokens.
        """
        bpe = self._model()
        stop = FIRST_PIECE + len(bpe.tokens)
        texts: list[str | None] = []
        for index, row in enumerate(ids.rows()):
            if row == [MISSING]:
                texts.append(None)
            elif row and row[0] == MARKER and all(FIRST_PIECE <= i < stop for i in row[1:]):
                texts.append(bpe.decode(i - FIRST_PIECE for i in row[1:]))
            else:
                raise TokenizerError(
                    f"the local ids {row[:8]} are no text",
                    where=f"field {self.spec.name!r}, row {index}",
                    why="a text is its marker and then BPE tokens, or the missing token alone",
                )
        return pl.Series(self.spec.name, texts, dtype=pl.String)

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, marker, piece) and what a piece spells."""
        if local_id < FIRST_PIECE:
            kind = "marker" if local_id else "missing"
            return {"token": self._token(local_id), "kind": kind}
        bpe, piece = self._model(), local_id - FIRST_PIECE
        if piece >= len(bpe.tokens):
            raise TokenizerError(
                f"field {self.spec.name!r} has no local id {local_id}",
                why=f"its BPE model has {len(bpe.tokens)} tokens",
            )
        return {"token": bpe.tokens[piece], "kind": "piece", "text": bpe.decode([piece])}

    def _model(self) -> BytePairModel:
        if self.bpe is None:
            raise TokenizerError(
                f"the tokenizer of field {self.spec.name!r} has no BPE model",
                next_step="call fit(column) to train one, or bind(model) to share one",
            )
        return self.bpe

    def state(self) -> dict[str, Any]:
        """Nothing but the kind: the BPE model is shared, and saved in ``tokenizer.json``."""
        return {"kind": self.kind}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A tokenizer without its BPE model: `bind` it to be fitted."""
        return cls(spec)


def _local(pieces: list[int] | None) -> list[int]:
    """Local ids of a text's pieces."""
    return [MISSING] if pieces is None else [MARKER, *[piece + FIRST_PIECE for piece in pieces]]


def _valid(text: str | None) -> str | None:
    """A text that is valid Unicode: a lone surrogate, which no column can hold, becomes ``?``."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
