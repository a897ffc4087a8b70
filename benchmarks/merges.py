"""ActionPiece merges on Beauty: how long learning takes, and how much shorter histories become.

    python benchmarks/merges.py [--vocab-size 40000] [--without-numba]

Each event is an item's set of attribute tokens and one hash token, drawn so that items of equal
attributes differ where they can (64 buckets, as in the paper). Merges are learned from the training
part alone: every history without its last two items. Reported: seconds, merges, and tokens before
and after for the training part, for the held-out items where they stand in their history, and for
whole histories of users of whom nothing was learned (a second run on 90 % of the users). Also
encoding speed. Reads commerce/beauty_*.parquet under DOMAINFORMER_DATA; prints one table and writes
benchmarks/results/merges.json. One thread.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import argparse
import platform
import resource
import time
from pathlib import Path

import numpy as np
import polars as pl

from domainformer.artifacts import write_json
from domainformer.data.tokens import TokenizedEvents, gather_ranges, id_dtype
from domainformer.tokenizers.merges import ActionPieceMerges, learn_merges

SPECIALS, BUCKETS, HELD_OUT = 4, 64, 2
GOAL = 0.25


def data_folder():
    given = os.environ.get("DOMAINFORMER_DATA")
    folder = Path(given) if given else Path(_HERE).parents[1] / "shared" / "data"
    if not (folder / "commerce").is_dir():
        sys.exit(f"needs the real tables: {folder} has no folder commerce; set DOMAINFORMER_DATA")
    return folder


def item_sets(items, seed):
    """Item → sorted set of ids: its attributes, and a hash that tells items of equal ones apart."""
    rng = np.random.default_rng(seed)
    attributes = [sorted(set(row)) for row in items["attribute_ids"].to_list()]
    known = np.unique(np.concatenate(attributes))
    first_hash = SPECIALS + len(known)
    turns, count = {}, {}
    sets = []
    for row in attributes:
        key = tuple(row)
        turn = turns.setdefault(key, rng.permutation(BUCKETS))
        number = count[key] = count.get(key, -1) + 1
        ids = SPECIALS + np.searchsorted(known, row)
        sets.append([*ids.tolist(), first_hash + int(turn[number % BUCKETS])])
    alike = sum(n + 1 - BUCKETS for n in count.values() if n >= BUCKETS)
    return sets, first_hash + BUCKETS, alike


def histories(folder, seed):
    events = pl.read_parquet(folder / "commerce" / "beauty_events.parquet")
    items = pl.read_parquet(folder / "commerce" / "beauty_items.parquet").sort("item_id")
    events = events.sort("user_id", "position")
    sets, base, alike = item_sets(items, seed)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])])
    flat = np.array([token for one in sets for token in one])
    index = items["item_id"].search_sorted(events["item_id"]).to_numpy().astype(np.int64)
    tokens, event_offsets = gather_ranges(offsets, index)
    users = events.group_by("user_id", maintain_order=True).len()
    owners = np.concatenate([[0], np.cumsum(users["len"].to_numpy())]).astype(np.int64)
    from_end = np.repeat(owners[1:], np.diff(owners)) - np.arange(events.height)
    return (
        TokenizedEvents(
            ids=flat[tokens].astype(id_dtype(base)),
            event_offsets=event_offsets,
            entity_offsets=owners,
            entity_ids=users["user_id"],
            times=events["position"].to_numpy().astype(np.int64),
            roles=(from_end <= HELD_OUT).astype(np.uint8) * 2,
            tokenizer_fingerprint="beauty",
            vocab_size=base,
        ),
        alike,
    )


def without_roles(events):
    return TokenizedEvents(
        **{name: getattr(events, name) for name in events.__dataclass_fields__ if name != "roles"},
        roles=None,
    )


def saved(before, after):
    return 1 - after.n_tokens / before.n_tokens


def held_out_users(events, vocab_size, compiled):
    """Shortening of whole histories of a tenth of the users, of whom nothing was learned."""
    drawn = np.random.default_rng(1).random(events.n_entities) < 0.1
    others = ActionPieceMerges.fit(
        events.take_entities(~drawn), vocab_size=vocab_size, compiled=compiled
    )
    part = without_roles(events.take_entities(drawn))
    merged = others.encode(part, compiled=compiled)
    return {
        "users": part.n_entities,
        "before": part.n_tokens,
        "after": merged.n_tokens,
        "share": saved(part, merged),
        "permuted": saved(part, others.encode_permuted(part, seed=0, compiled=compiled)),
    }


def encoding_rate(merges, events, compiled):
    merges.encode(events, compiled=compiled)
    begin = time.perf_counter()
    merged = merges.encode(events, compiled=compiled)
    greedy = time.perf_counter() - begin
    begin = time.perf_counter()
    merges.encode_permuted(events, seed=0, compiled=compiled)
    permuted = time.perf_counter() - begin
    if merges.decode(merged) != events:
        sys.exit("decode(encode(x)) differs from x")
    return {"greedy": events.n_tokens / greedy, "permuted": events.n_tokens / permuted}


def measure(args):
    compiled = not args.without_numba
    events, alike = histories(data_folder(), args.seed)
    if compiled:
        # Compiling is not learning: a first run on a few users takes it out of the figures.
        few = events.take_entities(np.arange(50))
        warm = ActionPieceMerges.fit(few, vocab_size=few.vocab_size + 10)
        warm.encode(few)
        warm.encode_permuted(few, seed=0)

    told = [0]

    def progress(done, wanted):
        if done - told[0] >= 5_000:
            told[0] = done
            print(f"{done:,} of {wanted:,} merges", file=sys.stderr, flush=True)

    busy = time.process_time()
    result = learn_merges(events, args.vocab_size, progress, compiled=compiled)
    busy = time.process_time() - busy
    outcome = {
        "what": "ActionPiece merges on Beauty, one thread",
        "settings": {"vocab_size": args.vocab_size, "seed": args.seed, "numba": compiled},
        "environment": {"python": platform.python_version(), "numpy": np.__version__},
        "items_that_share_all_tokens": alike,
        "tokens_per_event": events.n_tokens / events.n_events,
        **result.to_json(),
        "processor_seconds": busy,
        "smallest_weight": result.merges.weights[-1] if result.merges.weights else None,
        "encoding_tokens_per_second": encoding_rate(result.merges, events, compiled),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if not args.quick:
        outcome["users_not_learned_from"] = held_out_users(events, args.vocab_size, compiled)
    return outcome


def show(outcome):
    print(
        f"{outcome['note']}, in {outcome['seconds']:.1f} s "
        f"({outcome['processor_seconds']:.1f} s of processor time, with encoding once)\n"
    )
    print(f"{'part':<28}{'tokens before':>14}{'after':>10}{'saved':>9}")
    for part in outcome["shortening"]:
        name = {"train": "training part", "test": "last two items of each"}[part["part"]]
        print(f"{name:<28}{part['before']:>14,}{part['after']:>10,}{part['share']:>9.1%}", end="")
        print(f"   goal ≥ {GOAL:.0%}: {'met' if part['share'] >= GOAL else 'MISSED'}")
    other = outcome.get("users_not_learned_from")
    if other:
        name = f"{other['users']:,} users not learned from"
        print(
            f"{name:<28}{other['before']:>14,}{other['after']:>10,}{other['share']:>9.1%}", end=""
        )
        print(f"   goal ≥ {GOAL:.0%}: {'met' if other['share'] >= GOAL else 'MISSED'}")
        print(f"{'  the same, permuted':<52}{other['permuted']:>9.1%}")
    rates = outcome["encoding_tokens_per_second"]
    print(
        f"\nencoding: {rates['greedy']:,.0f} tokens/s greedy, {rates['permuted']:,.0f} permuted; "
        f"peak memory {outcome['peak_memory_mib']:,.0f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description="ActionPiece merges on Beauty.")
    parser.add_argument("--vocab-size", type=int, default=40_000)
    parser.add_argument("--without-numba", action="store_true", help="plain Python loops")
    parser.add_argument("--quick", action="store_true", help="leave the second learning out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=str(Path(_HERE) / "results" / "merges.json"))
    args = parser.parse_args()
    outcome = measure(args)
    show(outcome)
    write_json(Path(args.output), outcome)


if __name__ == "__main__":
    main()
