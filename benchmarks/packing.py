"""Packed rows against padded rows: useful tokens per second of whole training steps.

    python benchmarks/packing.py [--preset 24m] [--rounds 8] [--documents 16]

Histories of log-normal length (mean 150, σ 0.8, cut at the context of 512) train one model in
three ways, a step of each in turn: every history padded to the context; padded to the longest of
its batch; packed into full rows with no attention between histories. A step is forward, backward
and AdamW. Only tokens of histories count, not padding. Also measured: how full the rows are, and
that no gradient flows from one history to another. One thread; prints one table and writes
benchmarks/results/packing.json.
"""

# ruff: noqa: E402 - the import path and threads are set before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import platform
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from domainformer.artifacts import write_json
from domainformer.data.packing import pack
from domainformer.models import (
    PRESETS,
    Collator,
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
)

CONTEXT, MEAN, SIGMA, VOCABULARY = 512, 150.0, 0.8, 1024
GOALS = {"over_context": 4.0, "over_batch_maximum": 1.5, "fill": 0.995}
WAYS = ("padded to context", "padded to batch maximum", "packed")


def history_lengths(generator, count):
    """Log-normal lengths: the mean of exp(N(μ, σ²)) is exp(μ + σ²/2)."""
    drawn = generator.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, count)
    return np.clip(drawn, 2, CONTEXT).astype(np.int64)


def row_of(generator, lengths):
    ids = generator.integers(4, VOCABULARY, int(np.sum(lengths)))
    ids[np.cumsum(lengths) - lengths] = 1
    return {"input_ids": ids, "labels": ids, "segment_lengths": lengths}


def make_batches(generator, lengths, packing, documents, rounds):
    """The same number of histories, and so of useful tokens, per step in all three ways."""
    to_context = Collator(0, packed=False, pad_to=CONTEXT)
    to_maximum = Collator(0, packed=False)
    to_rows = Collator(0, packed=True, pad_to=CONTEXT)
    rows = max(1, round(documents * lengths.mean() / CONTEXT))
    for index in range(rounds):
        chosen = lengths[index * documents : (index + 1) * documents]
        single = [row_of(generator, [n]) for n in chosen]
        packed = [
            row_of(generator, lengths[packing.row(index * rows + row)]) for row in range(rows)
        ]
        yield dict(
            zip(WAYS, (to_context(single), to_maximum(single), to_rows(packed)), strict=True)
        )


def step(model, optimizer, batch):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    model(**batch).loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def useful_tokens(batch):
    return int((batch["input_ids"] != 0).sum())


def leak(model, batch, *, shield=True):
    """Largest |d loss of one history / d embedding of another| over one packed row."""
    row = {"cu_seq_lens_q": batch["cu_seq_lens_q"]} if shield else {}
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    hidden = model.model(inputs_embeds=embeds, **row).last_hidden_state.flatten(0, 1)
    bounds = batch["cu_seq_lens_q"].tolist()
    worst = 0.0
    for start, stop in itertools.pairwise(bounds):
        loss = hidden[start:stop].square().sum()
        (gradient,) = torch.autograd.grad(loss, embeds, retain_graph=True)
        gradient = gradient.flatten(0, 1)
        gradient[start:stop] = 0
        worst = max(worst, gradient.abs().max().item())
    return worst


def difference_from_alone(model, batch):
    """Largest |logit packed - logit of the same history run alone|."""
    with torch.no_grad():
        packed = model(**batch).logits.flatten(0, 1)
        ids = batch["input_ids"].flatten()
        bounds = batch["cu_seq_lens_q"].tolist()
        return max(
            (packed[a:b] - model(ids[None, a:b]).logits[0]).abs().max().item()
            for a, b in itertools.pairwise(bounds)
        )


def measure(args):
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    config = DomainTransformerConfig.preset(args.preset, vocab_size=VOCABULARY)
    model = DomainTransformerForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    lengths = history_lengths(generator, args.histories)
    packing = pack(lengths, CONTEXT, seed=args.seed)
    fill = float(lengths.sum() / (len(packing) * CONTEXT))

    seconds = {way: [] for way in WAYS}
    tokens = {way: [] for way in WAYS}
    shares = {way: [] for way in WAYS}
    batches = make_batches(generator, lengths, packing, args.documents, args.rounds + 1)
    for index, batch in enumerate(batches):
        # Each way goes first, second and last in turn; round 0 warms up and is not counted.
        for way in np.roll(WAYS, index):
            taken = step(model.train(), optimizer, batch[way])
            if index:
                seconds[way].append(taken)
                tokens[way].append(useful_tokens(batch[way]))
                shares[way].append(tokens[way][-1] / batch[way]["input_ids"].numel())
    rates = {way: sum(tokens[way]) / sum(seconds[way]) for way in WAYS}
    row = Collator(0, packed=True)([row_of(generator, lengths[packing.row(0)])])
    model.eval()
    return {
        "what": "useful tokens per second of forward, backward and AdamW, one thread",
        "settings": vars(args)
        | {"context": CONTEXT, "mean": MEAN, "sigma": SIGMA, "vocabulary": VOCABULARY},
        "environment": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        },
        "parameters": model.num_parameters(),
        "ways": {
            way: {
                "useful_tokens_per_second": rates[way],
                "share_of_useful_tokens": float(np.mean(shares[way])),
                "median_seconds_per_step": float(np.median(seconds[way])),
                "steps": len(seconds[way]),
            }
            for way in WAYS
        },
        "over_context": rates["packed"] / rates["padded to context"],
        "over_batch_maximum": rates["packed"] / rates["padded to batch maximum"],
        "fill": fill,
        "leaked_gradient": leak(model, row),
        "leaked_gradient_without_boundaries": leak(model, row, shield=False),
        "difference_from_alone": difference_from_alone(model, row),
    }


def show(result):
    settings = result["settings"]
    print(
        f"preset {settings['preset']} ({result['parameters'] / 1e6:.1f} M), histories of "
        f"{MEAN:.0f} tokens on average, context {CONTEXT}, one thread\n"
    )
    print(f"{'rows':<26}{'useful tokens/s':>16}{'useful share':>14}{'packed is':>12}")
    base = result["ways"]["packed"]["useful_tokens_per_second"]
    for way, one in result["ways"].items():
        rate = one["useful_tokens_per_second"]
        share = one["share_of_useful_tokens"]
        print(f"{way:<26}{rate:>16,.0f}{share:>14.1%}{base / rate:>11.2f}×")
    print()
    for name, text in (
        ("over_context", "packed over padded to context"),
        ("over_batch_maximum", "packed over padded to batch maximum"),
        ("fill", f"rows filled ({settings['histories']:,} histories)"),
    ):
        met = "met" if result[name] >= GOALS[name] else "MISSED"
        print(f"{text:<44}{result[name]:>9.4g}   goal ≥ {GOALS[name]}: {met}")
    met = "met" if result["leaked_gradient"] == 0 else "MISSED"
    print(f"{'gradient from one history to another':<44}{result['leaked_gradient']:>9g}   0: {met}")
    print(f"{'  the same without boundaries':<44}", end="")
    print(f"{result['leaked_gradient_without_boundaries']:>9.2g}   (must not be 0)")
    print(f"{'largest logit difference from run alone':<44}{result['difference_from_alone']:>9.2g}")


def main():
    parser = argparse.ArgumentParser(description="Packed rows against padded rows.")
    parser.add_argument("--preset", default="24m", choices=sorted(PRESETS))
    parser.add_argument("--rounds", type=int, default=8, help="steps of each way")
    parser.add_argument("--documents", type=int, default=16, help="histories per step")
    parser.add_argument("--histories", type=int, default=20_000, help="histories to pack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "packing.json"))
    args = parser.parse_args()
    result = measure(args)
    del result["settings"]["output"]
    show(result)
    write_json(Path(args.output), result)


if __name__ == "__main__":
    main()
