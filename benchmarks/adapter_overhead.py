"""What the universal adapter costs: a call through it against the module's own, in one run.

A plain module of the shape of GPT-2 small (12 layers, width 768, 50,257 ids, random weights) is
called directly and as ``UniversalForCausalLM``, one after the other and the other way round, on one
thread; the same weights, the same ids. The ratio of each pair is kept, by processor time, which
neighbours on the machine disturb least. A module of width 8 shows the cost of a call by itself.

    python -P benchmarks/adapter_overhead.py [--rounds 15] [--write]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from domainformer.models.universal.pretrained import UniversalForCausalLM

RESULT = Path(__file__).parent / "results" / "adapter_overhead.json"
GOAL = 0.02


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Plain(nn.Module):
    def __init__(self, layers=12, width=768, heads=12, vocab_size=50_257, context=1024):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab_size, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids):
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def timed(call):
    begun = time.process_time()
    call()
    return time.process_time() - begun


def pairs(direct, adapted, rounds):
    """Processor seconds (direct, adapted) of interleaved calls; every second pair begins anew."""
    direct(), adapted()
    found = []
    for number in range(rounds):
        if number % 2:
            second = timed(adapted)
            found.append((timed(direct), second))
        else:
            found.append((timed(direct), timed(adapted)))
    return found


def told(found):
    ratios = [b / a for a, b in found]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "pairs": len(found),
        "direct_seconds": round(statistics.median(a for a, _ in found), 6),
        "adapted_seconds": round(statistics.median(b for _, b in found), 6),
        "ratio_median": round(middle, 5),
        "ratio_quartiles": [round(low, 5), round(high, 5)],
    }


def measure(rounds, seed):
    torch.manual_seed(seed)
    module = Plain().eval()
    model = UniversalForCausalLM.wrap(module, vocab_size=50_257).eval()
    cases = {}
    for batch, length in ((1, 64), (1, 128), (2, 64), (2, 128)):
        ids = torch.randint(0, 50_257, (batch, length))
        with torch.no_grad():
            assert torch.equal(module(ids), model(input_ids=ids).logits)
            found = pairs(lambda i=ids: module(i), lambda i=ids: model(input_ids=i), rounds)
        cases[f"forward B={batch} L={length}"] = told(found)
        print(f"forward B={batch} L={length}", cases[f"forward B={batch} L={length}"], flush=True)
    ids = torch.randint(0, 50_257, (1, 64))

    def direct_step():
        logits = module(ids)
        F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()

    def adapted_step():
        model(input_ids=ids, labels=ids).loss.backward()

    cases["forward and backward B=1 L=64"] = told(pairs(direct_step, adapted_step, rounds))
    print(cases["forward and backward B=1 L=64"], flush=True)
    return cases


def measure_call(seed):
    torch.manual_seed(seed)
    small = Plain(layers=1, width=8, heads=1, vocab_size=16, context=8).eval()
    model = UniversalForCausalLM.wrap(small, vocab_size=16).eval()
    ids = torch.randint(0, 16, (1, 2))

    def many(call):
        return lambda: [call() for _ in range(200)]

    with torch.no_grad():
        found = pairs(many(lambda: small(ids)), many(lambda: model(input_ids=ids)), 9)
    return round(statistics.median(b - a for a, b in found) / 200 * 1e6, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = measure(options.rounds, options.seed)
    worst = max(case["ratio_median"] for case in cases.values())
    call = measure_call(options.seed)
    shortest = min(case["direct_seconds"] for case in cases.values())
    result = {
        "what": "processor time of UniversalForCausalLM over that of the module's own call, "
        "interleaved; medians and quartiles of the ratios of pairs",
        "shape": {"layers": 12, "width": 768, "heads": 12, "vocab_size": 50_257},
        "cases": cases,
        "microseconds_per_call": call,
        "of_the_shortest_call": round(call / 1e6 / shortest, 6),
        "goal": f"at most {GOAL:.0%} over the direct call",
        "reached": worst <= 1 + GOAL,
        "seed": options.seed,
        "threads": 1,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(json.dumps(result, indent=2))
    if options.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
