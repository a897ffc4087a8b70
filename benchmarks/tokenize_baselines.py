"""The baselines of ``tokenize.py``, written to be as fast as their designs allow.

- `encode_batch`: rendered strings through Hugging Face's batch encoder.
- `TextRows`: each event as a line of text, through tiktoken.
- `Sketch`: the decision record's design, an object and a few token strings per event.
- `lifestream…`: pytorch-lifestream's preprocessor (installed for the benchmark only).
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import polars as pl

from domainformer.tokenizers.fields.bytepair import WORDS, BytePairModel, train_bpe


def rendered(tokenizer, frame):
    """The strings of all events, built by polars: the fastest way to make them that we know."""
    fields = {field.spec.name: field for field in tokenizer.fields}
    edges = fields["amount"].edges
    bins = pl.Series(fields["amount"].vocab)
    amount = np.searchsorted(edges, np.abs(frame["amount"].to_numpy()), side="right") + 1
    kinds = fields["category"]
    category = pl.col("category").replace_strict(
        {value: kinds.vocab[kinds.encode_one(value)[0]] for value in kinds.values}
    )
    time = pl.col("timestamp").dt
    return (
        frame.with_columns(bins.gather(amount).alias("bin"))
        .select(
            pl.concat_str(
                category,
                pl.when(pl.col("amount") < 0)
                .then(pl.lit("[DIRECTION=NEG]"))
                .otherwise(pl.lit("[DIRECTION=POS]")),
                "bin",
                time.strftime("[TIMESTAMP_MONTH=%m][TIMESTAMP_DOW=%u][TIMESTAMP_DOM=%d]"),
                time.strftime("[TIMESTAMP_HOUR=%H][DESCRIPTION]"),
                "description",
            )
        )
        .to_series()
    )


def encode_batch(tokenizer, table):
    encodings = tokenizer.backend.encode_batch(rendered(tokenizer, table.frame).to_list())
    return [encoding.ids for encoding in encodings]


class TextRows:
    """Events as lines of text, encoded by tiktoken with a vocabulary trained on such lines.

    A vocabulary of the field's own, because the public ones are downloads, and 32,768 tokens,
    because a large one favours tiktoken: more words are found whole.
    """

    def __init__(self, frame, vocab_size=32_768, n_trained=50_000):
        lines = self.lines(frame.head(n_trained))
        bpe = BytePairModel(train_bpe(lines, [1] * len(lines), vocab_size))
        ranks = {spelt: index for index, spelt in enumerate(bpe.spelt)}
        self.encoding = tiktoken_encoding(ranks)

    @staticmethod
    def lines(frame):
        """For example ``2021-03-29 17:45:03 -12.5 category 7 TESCO STORES 00042 LONDON GB``."""
        return frame.select(
            pl.concat_str(
                pl.col("timestamp").dt.strftime("%Y-%m-%d %H:%M:%S"),
                pl.col("amount").cast(pl.String),
                "category",
                "description",
                separator=" ",
            )
        ).to_series()

    def __call__(self, frame):
        encode = self.encoding.encode_ordinary
        return [encode(line) for line in self.lines(frame).to_list()]


def tiktoken_encoding(ranks):
    import tiktoken

    return tiktoken.Encoding("lines", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})


@dataclass
class SketchEvent:
    category: str
    amount: float
    timestamp: object
    description: str


class Sketch:
    """The decision record's tokenizer: Python objects, one event after the other."""

    def __init__(self, tokenizer):
        self.edges = next(f for f in tokenizer.fields if f.kind == "magnitude").edges.tolist()
        known = next(f for f in tokenizer.fields if f.kind == "categorical")
        self.categories = {value: known.vocab[known.encode_one(value)[0]] for value in known.values}
        self.hf = tokenizer.to_hf()

    def tokenize_sign(self, event):
        return ["[DIRECTION=NEG]" if event.amount < 0 else "[DIRECTION=POS]"]

    def tokenize_amount(self, event):
        return [f"[AMOUNT=B{bisect_right(self.edges, abs(event.amount)):02d}]"]

    def tokenize_category(self, event):
        return [self.categories.get(event.category, "[CATEGORY_UNK]")]

    def tokenize_calendar(self, event):
        time = event.timestamp
        return [
            f"[TIMESTAMP_MONTH={time.month:02d}]",
            f"[TIMESTAMP_DOW={time.isoweekday()}]",
            f"[TIMESTAMP_DOM={time.day:02d}]",
            f"[TIMESTAMP_HOUR={time.hour:02d}]",
        ]

    def tokenize_event(self, event):
        return [
            *self.tokenize_category(event),
            *self.tokenize_sign(event),
            *self.tokenize_amount(event),
            *self.tokenize_calendar(event),
            "[DESCRIPTION]",
            event.description,
        ]

    def __call__(self, table):
        columns = ["category", "amount", "timestamp", "description"]
        rows = table.frame.select(columns).iter_rows(named=True)
        return [
            self.hf("".join(self.tokenize_event(SketchEvent(**row))))["input_ids"] for row in rows
        ]


def lifestream(frame):
    """What its user does with this table: codes of the two string columns, amounts as numbers."""
    return _preprocess(frame, ["category", "description"])


def lifestream_same_fields(frame, edges):
    """The eight fields that our tokens show, as columns of codes; still no text pieces."""
    time = frame["timestamp"].dt
    derived = frame.assign(
        sign=frame["amount"] < 0,
        bin=np.searchsorted(edges, frame["amount"].abs(), side="right"),
        month=time.month,
        dow=time.dayofweek,
        dom=time.day,
        hour=time.hour,
    ).drop(columns="amount")
    fields = ["category", "sign", "bin", "month", "dow", "dom", "hour", "description"]
    return _preprocess(derived, fields)


def _preprocess(frame, category_columns):
    from ptls.preprocessing import PandasDataPreprocessor

    preprocessor = PandasDataPreprocessor(
        col_id="client",
        col_event_time="timestamp",
        event_time_transformation="dt_to_timestamp",
        cols_category=category_columns,
        cols_numerical=["amount"] if "amount" in frame else [],
        return_records=True,
    )
    return preprocessor.fit_transform(frame)
