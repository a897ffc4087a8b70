"""Next-item rows of attribute tokens, merged or not: what benchmarks/merged_items.py trains on.

::

    items ─Reader─▶ tokens of every prefix ─Rows─▶ rows, and at which step which item follows
                                           ─Network─▶ hidden at that step · table of all items

Nothing that comes later may shape the tokens of a prefix, and a merge across events would. So each
prefix is encoded by itself; where its tokens begin the row of the whole history, as they always do
without merges, it is learned there, else as a row of its own.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import polars as pl
import torch
from torch import nn

from domainformer.data.tokens import TokenizedEvents, gather_ranges, id_dtype
from domainformer.evaluation.item_baselines import ranking_figures, target_ranks
from domainformer.models.item_softmax import sampled_item_cross_entropy
from domainformer.models.item_transformer import ItemTransformer, padded_histories
from domainformer.training.items import backbone_config, item_batches

NEWEST, TOKENS_AT_ONCE = 50, 16_384


def between(starts, lengths):
    """The numbers of several ranges one after the other, and where each range begins."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1]), offsets


class Reader:
    """Items to tokens: each set as it is, or merged over the history."""

    def __init__(self, sets, base):
        self.offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])])
        self.flat = np.array([token for one in sets for token in one], dtype=id_dtype(base))
        self.base, self.merges = base, None

    @property
    def vocab_size(self):
        return self.base if self.merges is None else self.merges.vocab_size

    def events(self, items, offsets):
        tokens, event_offsets = gather_ranges(self.offsets, items)
        return TokenizedEvents(
            ids=self.flat[tokens],
            event_offsets=event_offsets,
            entity_offsets=offsets,
            entity_ids=pl.Series(np.arange(len(offsets) - 1)),
            times=np.arange(len(items)),
            roles=None,
            tokenizer_fingerprint="beauty",
            vocab_size=self.base,
        )

    def read(self, items, offsets):
        """Tokens of each history, and where they begin."""
        events = self.events(items, offsets)
        if self.merges is not None:
            events = self.merges.encode(events)
        return events.ids.astype(np.int64), events.event_offsets[events.entity_offsets]

    def newest(self, histories):
        lengths = np.minimum(histories.lengths, NEWEST)
        places, offsets = between(histories.offsets[1:] - lengths, lengths)
        return self.read(histories.items[places], offsets)


class Rows:
    """What is learned: rows of tokens by user, and at which steps which item comes next."""

    def __init__(self, reader, histories):
        lengths = np.minimum(histories.lengths - 1, NEWEST)
        starts = histories.offsets[1:] - 1 - lengths
        user = np.repeat(np.arange(histories.n_users), lengths)
        step, firsts = between(np.ones(len(lengths), np.int64), lengths)
        places, offsets = between(starts[user], step)
        self.ids, self.offsets = reader.read(histories.items[places], offsets)
        sizes, whole = np.diff(self.offsets), firsts[1:][user] - 1
        fits = sizes <= sizes[whole]
        # Of equal length so far: do the tokens of the prefix begin those of the whole history?
        places, ends = between(self.offsets[:-1], np.where(fits, sizes, 0))
        others = places + np.repeat(self.offsets[whole] - self.offsets[:-1], np.diff(ends))
        differ = np.concatenate([[0], np.cumsum(self.ids[places] != self.ids[others])])
        shared = fits & (differ[ends[1:]] == differ[ends[:-1]])
        follows = histories.items[starts[user] + step]
        # Where START stands, the first item that is read is foretold.
        self.row = np.concatenate([firsts[1:] - 1, np.where(shared, whole, np.arange(len(user)))])
        self.step = np.concatenate([np.zeros(len(starts), np.int64), sizes])
        self.item = np.concatenate([histories.items[starts], follows])
        order = np.lexsort((self.step, self.row))
        self.row, self.step, self.item = self.row[order], self.step[order], self.item[order]
        self.first = np.searchsorted(self.row, np.arange(len(user) + 1))
        self.of_user = [np.unique(self.row[self.row_range(*pair)]) for pair in pairs(firsts)]
        self.tokens = int(sum(sizes[rows].sum() + len(rows) for rows in self.of_user))

    def row_range(self, start, stop):
        return slice(self.first[start], self.first[stop])

    def chunks(self, users):
        """Rows of some users, of like length together and not too many tokens at once."""
        rows = np.concatenate([self.of_user[user] for user in users])
        sizes = np.diff(self.offsets)[rows]
        order = np.argsort(sizes, kind="stable")[::-1]
        rows, sizes = rows[order], sizes[order] + 1
        start = 0
        while start < len(rows):
            stop = start + max(1, TOKENS_AT_ONCE // int(sizes[start]))
            yield rows[start:stop]
            start = stop


def pairs(offsets):
    return zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)


class Network(nn.Module):
    """The library's item Transformer, whose histories come from a table of tokens of their own."""

    def __init__(self, reader, n_items, attributes, config):
        super().__init__()
        self.reader = reader
        self.items = ItemTransformer(backbone_config(n_items, config), attributes)
        drawn = torch.randn(reader.vocab_size + 1, config.width) * config.initializer_range
        self.tokens = nn.Parameter(drawn)

    def hidden(self, ids, starts, ends):
        start_id = self.reader.vocab_size
        rows = padded_histories(ids, starts, ends, start_id=start_id, context=self.items.context)
        return self.items.hidden(*rows, self.tokens)

    @torch.no_grad()
    def scores(self, histories):
        """As item models of the library: ``[users, items]``."""
        ids, offsets = self.reader.newest(histories)
        sizes = np.diff(offsets)
        found = np.empty((histories.n_users, self.items.n_items), np.float32)
        table = self.items.item_table()[:-1]
        for users in np.array_split(np.argsort(sizes), max(1, len(sizes) // 128)):
            hidden = self.hidden(ids, offsets[users], offsets[users + 1])
            last = hidden[torch.arange(len(users)), torch.from_numpy(sizes[users])]
            found[users] = nn.functional.linear(last, table, self.items.bias).numpy()
        return found

    def parameters_by_part(self):
        layers = sum(one.numel() for one in self.items.backbone.parameters())
        layers -= self.items.backbone.embed_tokens.weight.numel()
        total = sum(one.numel() for one in self.parameters())
        tokens = self.tokens.numel()
        head = total - tokens - layers
        return {"total": total, "input tokens": tokens, "item softmax": head, "blocks": layers}


def fit(network, rows, data, config):
    """The network at its best epoch by validation items, and what happened on the way."""
    rng = np.random.default_rng(config.seed)
    chances = (np.bincount(data.train.items, minlength=data.train.n_items) + 1.0) ** 0.5
    chances /= chances.sum()
    expected = torch.from_numpy(np.log(-np.expm1(config.negatives * np.log1p(-chances)))).float()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-data.train.n_users // config.batch_users)
    step, best, curve = 0, (-1.0, 0, None), []
    for epoch in range(1, config.epochs + 1):
        network.train()
        for users in item_batches(data.train.lengths, config.batch_users, rng):
            step += 1
            rise = min(1.0, step / config.warmup_steps)
            for group in optimizer.param_groups:
                fall = 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
                group["lr"] = config.learning_rate * rise * fall
            drawn = rng.choice(data.train.n_items, config.negatives, p=chances)
            learn(network, rows, users, torch.from_numpy(np.unique(drawn)), expected)
            nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        told = f"{network.reader.vocab_size:,} tokens, epoch {epoch}"
        print(f"  {told}, {time.process_time():.0f} s of processor", file=sys.stderr, flush=True)
        if epoch % config.evaluate_every and epoch != config.epochs:
            continue
        ranks = target_ranks(
            network.eval(), data.shown, data.validation, exclude_seen=data.exclude_seen
        )
        curve.append({"epoch": epoch, **ranking_figures(ranks)})
        print(f"  validation: {curve[-1]}", file=sys.stderr, flush=True)
        if curve[-1]["ndcg@10"] > best[0]:
            state = {name: value.clone() for name, value in network.state_dict().items()}
            best = (curve[-1]["ndcg@10"], epoch, state)
    network.load_state_dict(best[2])
    return {"epoch": best[1], "curve": curve}


def learn(network, rows, users, drawn, expected):
    """Add the gradient of the mean loss over all positions of some users."""
    chunks = list(rows.chunks(users))
    counts = [rows.first[chunk + 1] - rows.first[chunk] for chunk in chunks]
    total = sum(int(one.sum()) for one in counts)
    for chunk, count in zip(chunks, counts, strict=True):
        places, _ = between(rows.first[chunk], count)
        hidden = network.hidden(rows.ids, rows.offsets[chunk], rows.offsets[chunk + 1])
        at = torch.from_numpy(np.repeat(np.arange(len(chunk)), count))
        hidden = hidden[at, torch.from_numpy(rows.step[places])]
        table, goal = network.items.item_table()[:-1], torch.from_numpy(rows.item[places])[:, None]
        loss = sampled_item_cross_entropy(
            hidden, table, network.items.bias, goal, None, drawn, expected
        )
        (loss * (len(places) / total)).backward()
