"""A character model of Shakespeare: beside nanoGPT, with learning rules, and what each rule gives.

    python benchmarks/char_lm.py --nanogpt DIR [--seeds 5] [--threads 1]

``DIR`` is a checkout of github.com/karpathy/nanoGPT; its own script runs with the sizes of its
README for a processor (4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 iterations,
dropout 0). Ours are ``recipes/shakespeare_char.yaml`` and ``recipes/shakespeare_char_rules.yaml``.
All are run as processes of their own, on as many threads, and take turns, so that a busy machine
slows all of them alike; seconds are whole processes, from the start of Python to the end (ours
without the report page, which nanoGPT does not have).

The loss is that over the whole validation part (the last tenth), each character once, in windows of
64 that do not overlap; of nanoGPT's it is that of the checkpoint that its script kept. Then the
second recipe is changed one rule at a time (``--seeds-apart``): without any, and with each of some
others added. Prints a table and writes benchmarks/results/char_lm.json; runs that are there already
are not run again.
"""

# ruff: noqa: E402 - the import path is mended before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(_HERE).parent
RECIPES = {
    "recipe": ROOT / "recipes" / "shakespeare_char.yaml",
    "rules": ROOT / "recipes" / "shakespeare_char_rules.yaml",
}
GOALS = {"recipe": 1.90, "rules": 1.78, "rules_time": 1.1}
# One change of the second recipe each.
CHANGES = {
    "none of them": [],
    "and qk_norm": ["qk_norm"],
    "and squared ReLU": ["replace_activation"],
    "and z_loss": ["z_loss"],
    "and label smoothing": [{"label_smoothing": {"weight": 0.05}}],
    "and averaged weights": [{"ema_weights": {"decay": 0.99}}],
    "and centralised gradients": ["centralise_gradient"],
    "and noise": [{"activation_noise": {"std": 0.05}}],
    "and gradient noise": ["gradient_noise"],
}
# nanoGPT's README, "I only have a macbook".
NANOGPT = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20"),
    *("--log_interval=1", "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4"),
    *("--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
SCORE_NANOGPT = """
import pickle, sys, torch, numpy as np
from model import GPT, GPTConfig
kept = torch.load("out-shakespeare-char/ckpt.pt", weights_only=False)
model = GPT(GPTConfig(**kept["model_args"]))
model.load_state_dict(kept["model"])
model.eval()
ids = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", np.uint16).astype(np.int64))
total = 0.0
with torch.no_grad():
    for start in range(0, len(ids) - 1, 64):
        x, y = ids[start : start + 64][: len(ids) - 1 - start], ids[start + 1 : start + 65]
        logits, _ = model(x[None], y[None])
        total += float(torch.nn.functional.cross_entropy(logits[0], y, reduction="sum"))
print(sum(p.numel() for p in model.parameters()), total / (len(ids) - 1))
"""


def data_file():
    """The text: DOMAINFORMER_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("DOMAINFORMER_DATA") or ROOT.parent / "shared" / "data")
    return folder / "text" / "tinyshakespeare.txt"


def timed(command, folder, threads):
    """Wall and processor seconds of a process, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["DOMAINFORMER_DATA"] = str(data_file().parent.parent)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(wall, 2), "processor_seconds": round(processor, 2)}, done.stdout


def run_nanogpt(checkout, work, threads):
    """nanoGPT's own preparation and training, in a copy of the checkout."""
    copy = work / "nanogpt"
    if not copy.is_dir():
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
        shutil.copyfile(data_file(), copy / "data" / "shakespeare_char" / "input.txt")
        # Its preparation asks for the text only where there is none; its import of requests stays.
        script = copy / "data" / "shakespeare_char" / "prepare.py"
        script.write_text(script.read_text().replace("import requests\n", ""))
        subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
    shutil.rmtree(copy / "out-shakespeare-char", ignore_errors=True)
    cost, _ = timed([sys.executable, "train.py", *NANOGPT], copy, threads)
    _, told = timed([sys.executable, "-c", SCORE_NANOGPT], copy, threads)
    parameters, nats = told.split()[-2:]
    return {**cost, "nats": float(nats), "parameters": int(parameters)}


def run_ours(name, recipe, seed, work, threads, overrides=()):
    """One of our recipes through the command line."""
    folder = work / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "domainformer", "train", str(recipe), "--json", "--no-report"]
    chosen = [f"training.seed={seed}", f"training.threads={threads}", "training.quiet=true"]
    place = [f"output.root={work / 'runs'}", f"output.name={name}"]
    cost, told = timed([*command, *chosen, *place, *overrides], work, threads)
    result = json.loads(told)
    record = json.loads((folder / "run.json").read_text())
    shutil.rmtree(folder / "checkpoints")
    return {
        **cost,
        "nats": result["nats"],
        "parameters": record["resolved"]["parameters"],
        "training_seconds": result["seconds"],
        "seed": seed,
    }


def changed(recipe, added):
    """The override that adds rules to those of a recipe; without any where there is nothing."""
    rules = yaml.safe_load(recipe.read_text())["rules"] if added else []
    return f"rules={json.dumps([*rules, *added])}"


def mean_and_error(values):
    """Mean and standard error, as text."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


def show(results, console):
    """Everything that was run, and against which goal."""
    table = Table(title="tinyshakespeare, 2,000 steps of 12 × 64 characters")
    for heading in ("run", "n", "nats per character", "seconds", "processor", "× nanoGPT"):
        table.add_column(heading)
    nano = [row for row in results.values() if row["what"] == "nanogpt"]
    reference = statistics.median(r["processor_seconds"] for r in nano) if nano else float("nan")
    for what in dict.fromkeys(row["what"] for row in results.values()):
        rows = [row for row in results.values() if row["what"] == what]
        processor = statistics.median(row["processor_seconds"] for row in rows)
        table.add_row(
            what,
            str(len(rows)),
            mean_and_error([row["nats"] for row in rows]),
            f"{statistics.median(row['seconds'] for row in rows):.0f}",
            f"{processor:.0f}",
            f"{processor / reference:.2f}",
        )
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="checkout of nanoGPT; none: ours alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seeds-apart", type=int, default=2, help="of each rule left out; 0: none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/char_lm"))
    parser.add_argument("--output", type=Path, default=Path(_HERE) / "results" / "char_lm.json")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}

    def once(key, what, run):
        if key not in results:
            results[key] = {"what": what, **run()}
            kept.write_text(json.dumps(results, indent=2))
            print(key, results[key], file=sys.stderr, flush=True)

    for seed in range(options.seeds):
        if options.nanogpt is not None and seed % 2 == 0:  # its seed is fixed: only time varies
            peer = options.nanogpt
            once(f"nanogpt-{seed}", "nanogpt", lambda p=peer: run_nanogpt(p, work, options.threads))
        for what, recipe in RECIPES.items():
            once(
                f"{what}-{seed}",
                what,
                lambda w=what, r=recipe, s=seed: run_ours(f"{w}-{s}", r, s, work, options.threads),
            )
    recipe = RECIPES["rules"]
    for name, added in CHANGES.items():
        for seed in range(options.seeds_apart):
            override = changed(recipe, added)
            once(
                f"{name}-{seed}",
                f"rules, {name}",
                lambda n=name, s=seed, o=override: run_ours(
                    f"{n.replace(' ', '-')}-{s}", recipe, s, work, options.threads, [o]
                ),
            )
    show(results, Console())
    options.output.write_text(
        json.dumps(
            {
                "goals": GOALS,
                "threads": options.threads,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "results": results,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
