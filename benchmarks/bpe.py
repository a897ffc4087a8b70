"""Training a byte-level BPE: seconds, processor seconds and memory, beside plain ``tokenizers``.

    python benchmarks/bpe.py [--repeats 3] [--cases 25000x10000,50000x50000,real]

Texts are drawn by a seed: words of a Zipf law in six scripts (syllables for five, running signs
without blanks for Chinese), capitals, numbers, words that occur once, punctuation, line ends;
documents of about 1 kB. The case ``real`` is tinyshakespeare and WikiText-2's validation part, cut
into documents of as much (from ``DOMAINFORMER_DATA``, or ../shared/data; left out without them).

Each run is a process of its own that reads its documents one by one from a file: ours, and the
peer, `tokenizers.trainers.BpeTrainer` with its default settings, taking turns. The alphabet of
bytes and the special tokens are the peer's, too, so that both have to give the same merges, which
is checked. Seconds begin when the texts are there and end with the tokenizer; memory is the peak of
the whole process (Python and libraries included), of which the bare imports are told apart.
Prints a table and writes benchmarks/results/bpe.json.
"""

# ruff: noqa: E402 - the import path is mended before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]

import argparse
import hashlib
import json
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(_HERE).parent
GOALS = {"25000x10000": 12.0, "50000x50000": 45.0}
SPECIALS = ("<|pad|>", "<|endoftext|>")
# share of the documents, words, onsets, vowels, codas
_LATIN = [*"bcdfghjklmnprstvw", "st", "tr", "pl", "ch", "sh", "th", "br", "cr"]
SCRIPTS = {
    "latin": (
        0.62,
        60_000,
        _LATIN,
        ["a", "e", "i", "o", "u", "ea", "ou", "ai", "é", "ö"],
        ["", "", "n", "r", "s", "nd"],
    ),
    "cyrillic": (0.14, 30_000, "бвгджзклмнпрстфхчш", "аеиоуыэюя", ["", "", "н", "т", "л", "ст"]),
    "greek": (0.05, 12_000, "βγδζθκλμνπρστφχ", ["α", "ε", "η", "ι", "ο", "ου"], ["", "ν", "ς"]),
    "arabic": (0.05, 12_000, "بتثجحخدرزسشصطعفقكلمنه", ["", "ا", "و", "ي"], ["", "", "ة"]),
    "devanagari": (0.04, 12_000, "कखगघचजटडतदनपबमयरलवसह", ["", "ा", "ि", "ी", "ु", "े"], ["", "ं"]),
}
HAN = 0.10
MARKS = [" "] * 16 + [", ", ", ", ". ", ".\n", "\n\n", "; ", " – ", "'s ", "’s ", "! ", " (", ") "]


def words(rng: np.random.Generator, count: int, onsets, vowels, codas) -> list[str]:
    """Distinct words of 1 to 7 syllables, short ones first, with some disorder."""
    syllables = [o + v + c for o in onsets for v in vowels for c in codas]
    found: dict[str, None] = {}
    while len(found) < count:
        lengths = np.minimum(1 + rng.poisson(1.3, 2 * count), 7)
        # Syllables have a Zipf law of their own, so that merges have something to find.
        drawn = np.minimum(rng.zipf(1.3, (2 * count, 7)) - 1, len(syllables) - 1)
        for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True):
            found["".join(map(syllables.__getitem__, row[:length]))] = None
            if len(found) == count:
                break
        else:
            syllables = [syllables[i] for i in rng.permutation(len(syllables))]
    names = list(found)
    disorder = rng.normal(0, 2, count) + np.fromiter(map(len, names), float, count)
    return [names[index] for index in np.argsort(disorder, kind="stable").tolist()]


def zipf(count: int, slope: float = 1.05, shift: float = 2.7) -> np.ndarray:
    """Cumulated probabilities of the ranks (Zipf-Mandelbrot)."""
    weights = 1 / (np.arange(count) + shift) ** slope
    return np.cumsum(weights / weights.sum())


def documents(count: int, size: int = 1_000, seed: int = 0) -> Iterator[str]:
    """Documents of about ``size`` bytes."""
    rng = np.random.default_rng(seed)
    lexica = {
        name: (words(rng, n, onsets, vowels, codas), zipf(n))
        for name, (_, n, onsets, vowels, codas) in SCRIPTS.items()
    }
    signs, sign_law = [chr(0x4E00 + i) for i in rng.permutation(6_000)], zipf(6_000, 1.1, 10)
    shares = np.cumsum([*(share for share, *_ in SCRIPTS.values()), HAN])
    names = [*SCRIPTS, "han"]
    for _ in range(count):
        name = names[min(int(np.searchsorted(shares, rng.random())), len(names) - 1)]
        if name == "han":
            drawn = sign_law.searchsorted(rng.random(size // 3)).tolist()
            stops = (rng.random(size // 3) < 0.07).tolist()
            text = "".join(
                signs[i] + ("，" if stop else "") for i, stop in zip(drawn, stops, strict=True)
            )
        else:
            text = _prose(rng, *lexica[name], size // 4)
        yield text.encode()[:size].decode(errors="ignore")


def _prose(rng: np.random.Generator, lexicon: list[str], law: np.ndarray, count: int) -> str:
    drawn = law.searchsorted(rng.random(count)).tolist()
    kinds, marks = rng.random(count).tolist(), rng.integers(0, len(MARKS), count).tolist()
    numbers = (10 ** (6 * rng.random(count))).astype(int).tolist()
    parts, previous = [], ""
    for index, kind, mark, number in zip(drawn, kinds, marks, numbers, strict=True):
        word = lexicon[index]
        if kind < 0.03:
            word = str(number)
        elif kind < 0.05:  # a compound that hardly occurs again
            word = word + previous
        elif kind < 0.13:
            word = word.capitalize()
        parts += [word, MARKS[mark]]
        previous = lexicon[index]
    return "".join(parts)


def real_documents() -> list[str]:
    """The real texts, in documents of about 1,000 characters."""
    folder = Path(os.environ.get("DOMAINFORMER_DATA", ROOT.parent / "shared" / "data")) / "text"
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))]
    return [text[i : i + 1_000] for text in texts for i in range(0, len(text), 1_000)]


def read_lines(path: str) -> Iterator[str]:
    """The documents of a file, one at a time."""
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)


def peak_mib() -> float:
    """Peak memory of this program; ``ru_maxrss`` would begin with that of what started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run(who: str, path: str, vocab_size: int) -> None:
    """One training in this process; prints what it took."""
    from domainformer.tokenizers.language import FastBPETrainer
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    bare = peak_mib()
    start, before = time.perf_counter(), time.process_time()
    if who == "ours":
        trained = FastBPETrainer(vocab_size).train(read_lines(path)).backend
    else:
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        specials = [AddedToken(token, special=True, normalized=False) for token in SPECIALS]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        trained.train_from_iterator(read_lines(path), trainer)
    elapsed, used = time.perf_counter() - start, time.process_time() - before
    model = json.loads(trained.to_str())["model"]
    made = json.dumps([sorted(model["vocab"].items()), model["merges"]]).encode()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    facts = {
        "seconds": elapsed,
        "processor_seconds": used,
        "peak_mib": peak_mib(),
        "children_mib": children / 1024,
        "imports_mib": bare,
        "entries": trained.get_vocab_size(),
        "merges": hashlib.sha256(made).hexdigest()[:16],
    }
    print(json.dumps(facts))


def measure(who: str, path: Path, vocab_size: int) -> dict[str, float]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--run", who, str(path), str(vocab_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts | {"load": os.getloadavg()[0]}


def case(name: str, repeats: int, folder: Path) -> dict[str, object] | None:
    """Ours and the peer on one set of documents, taking turns."""
    if name == "real":
        texts, vocab_size = real_documents(), 10_000
    else:
        vocab_size, count = map(int, name.split("x"))
        texts = list(documents(count))
    if not texts:
        return None
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    facts = {
        "documents": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "vocab_size": vocab_size,
    }
    del texts
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for turn in range(repeats):
        for who in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
            runs[who].append(measure(who, path, vocab_size))
    same = len({run["merges"] for both in runs.values() for run in both}) == 1
    return facts | {"goal_seconds": GOALS.get(name), "same_merges": same, "runs": runs}


def show(results: dict[str, dict[str, object]]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "who", "seconds", "processor s", "peak MiB", "goal s", "same merges")
    for name, found in results.items():
        for who, runs in found["runs"].items():
            middle = {
                key: statistics.median(run[key] for run in runs)
                for key in ("seconds", "processor_seconds", "peak_mib")
            }
            goal = str(found["goal_seconds"] or "") if who == "ours" else ""
            figures = [f"{middle[key]:.1f}" for key in middle]
            table.add_row(name, who, *figures, goal, str(found["same_merges"]))
    Console(width=110).print(table)


def main() -> None:
    """Measure the cases that are asked for, and keep the rest of the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default=",".join([*GOALS, "real"]))
    parser.add_argument("--run", nargs=3, metavar=("WHO", "FILE", "SIZE"))
    options = parser.parse_args()
    if options.run:
        run(options.run[0], options.run[1], int(options.run[2]))
        return
    target = Path(_HERE) / "results" / "bpe.json"
    kept = json.loads(target.read_text("utf-8"))["cases"] if target.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases.split(","):
            found = case(name, options.repeats, Path(folder))
            if found is not None:
                kept[name] = found
                print(f"{name}: {json.dumps(found)}", file=sys.stderr)
    machine = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    target.write_text(json.dumps({"machine": machine, "cases": kept}, indent=1) + "\n", "utf-8")
    show(kept)


if __name__ == "__main__":
    main()
