"""Kill a training at random moments, take it up again, and compare the final weights bit by bit.

    python benchmarks/crash_resume.py --kills 10
    python benchmarks/crash_resume.py --language --kills 20          # with five learning rules
    python benchmarks/crash_resume.py --language --kills 3 --drop rules

One process loads the libraries once and forks a child for each attempt. Each child runs
``pretrain`` with ``resume: true`` on the same run folder and is killed with SIGKILL after a random
time, wherever it happens to be: tokenizing, training, evaluating, in the middle of a checkpoint or
of the final model. The last attempt is left alone. Its weights, the state of optimizer, schedule,
generators and rules at the last checkpoint, and its log of losses must equal those of a run that
was never killed. With ``--language`` the run is `train` on a text with rules of every kind. With
``--drop`` each attempt forgets one state when it resumes (``optimizer``, ``random``, ``rules`` or
``position``), and the same comparison must tell.
"""

# ruff: noqa: E402 - the import path is mended before anything is imported

from __future__ import annotations

import os
import sys

# This folder holds a tokenize.py, which would hide the standard library's from the imports below.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]

import argparse
import functools
import gc
import hashlib
import json
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")  # forked children must not inherit half a thread pool
# Every child would load numba's kernels anew (or compile them, where the killed one before it had
# not finished that); the numpy path gives the same ids.
sys.modules["numba"] = None

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from domainformer.config import build
from domainformer.data.simulate import write_simulated
from domainformer.training import EventTrainer, RunConfig, checkpoints, pretrain
from domainformer.training.language import TextRunConfig, train
from domainformer.training.progress import read_metrics
from domainformer.training.rules import Attached

RESULTS = Path(__file__).with_name("results") / "crash_resume.json"
MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.1}


def configuration(folder: Path, name: str, steps: int) -> RunConfig:
    return build(
        RunConfig,
        {
            "data": {
                "path": str(folder / "events.parquet"),
                "entity": "client_id",
                "time": "timestamp",
                "label": "label",
            },
            "schema": "finance",
            "tokenizer": {"bpe_vocab_size": 300},
            "model": {"preset": "tiny", "overrides": MODEL},
            "training": {
                "context": 64,
                "max_steps": steps,
                "batch_tokens": 512,
                "gradient_accumulation": 2,
                "eval_every": 7,
                "eval_rows": 8,
                "save_every": 2,
                "threads": 1,
                "quiet": True,
                "resume": True,
            },
            "output": {"root": str(folder), "name": name},
        },
    )


def language_configuration(folder: Path, name: str, steps: int) -> TextRunConfig:
    """A language model with rules of every kind that draw and remember."""
    return build(
        TextRunConfig,
        {
            "data": {"path": str(folder / "text.txt")},
            "model": {"overrides": MODEL},
            "training": {
                "context": 32,
                "max_steps": steps,
                "batch_tokens": 512,
                "gradient_accumulation": 2,
                "eval_every": 7,
                "eval_rows": 8,
                "save_every": 2,
                "log_every": 1,
                "threads": 1,
                "quiet": True,
                "resume": True,
            },
            "rules": [
                {"activation_noise": {"std": 0.05}},
                {"gradient_noise": {}},
                "z_loss",
                "muon",
                {"ema_weights": {"decay": 0.9}},
            ],
            "sampling": {"every": 50, "tokens": 20, "prompts": ["a"]},
            "output": {"root": str(folder), "name": name},
        },
    )


def write_text_file(path: Path) -> None:
    """Words in an order that can be learned."""
    dice = random.Random(3)
    words = ["".join(dice.choices("abcdefgh", k=dice.randint(2, 6))) for _ in range(60)]
    path.write_text(" ".join(words[dice.randint(0, 59) // 7 * 7] for _ in range(6000)))


def forget(what: str | None) -> None:
    """Let resumed attempts lose one state; forked children inherit it."""
    if what == "optimizer":

        def schedule_only(path, optimizer, scheduler):
            scheduler.load_state_dict(checkpoints._load(path / checkpoints.SCHEDULER))

        checkpoints.load_training_state = schedule_only
    elif what == "random":
        checkpoints.load_rng = lambda path: None
    elif what == "rules":
        Attached.load_state_dict = lambda self, state: None
    elif what == "position":
        fit = EventTrainer.fit

        def from_the_first_row(self, checkpoint=None):
            self.args.ignore_data_skip = True
            fit(self, checkpoint)

        EventTrainer.fit = from_the_first_row


def fork(task, log: Path) -> int:
    """Run a task in a child process; its exit status is 0 if it came to its end."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        task()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the parent reports it
        log.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(status)


def wait(child: int, log: Path) -> bool:
    """Whether a child came to its end; False where it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if status != 0:
        sys.exit(f"an attempt failed by itself:\n{log.read_text(encoding='utf-8')}")
    return True


def mark_begin_of_training(marker: Path) -> None:
    """Children touch a file when their training begins."""
    fit = EventTrainer.fit

    def marked(self: EventTrainer, checkpoint=None) -> None:
        marker.touch()
        fit(self, checkpoint)

    EventTrainer.fit = marked


def writes_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints").glob("*.staging-*"))


def await_sign(seen, child: int) -> None:
    """Wait until something is seen, or the child has ended."""
    while not seen():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def evidence(folder: Path, name: str) -> dict[str, str]:
    """What must be equal: final weights, every state of the last checkpoint, the log of losses."""
    run = folder / name
    newest = checkpoints.find_checkpoints(run / "checkpoints")[0][1]
    found = {"model": file_hash(run / "model" / "model.safetensors")}
    # By content: the library that writes the file orders its header at random.
    found["weights"] = digest(load_file(newest / checkpoints.WEIGHTS))
    for state in (checkpoints.OPTIMIZER, checkpoints.SCHEDULER, checkpoints.RNG, checkpoints.RULES):
        if (newest / state).is_file():
            found[state] = digest(torch.load(newest / state, weights_only=True))
    rows = read_metrics(run / "metrics.jsonl")
    told = [[row["step"], row.get("loss"), row.get("eval_loss")] for row in rows]
    return {**found, "losses": hashlib.sha256(json.dumps(told).encode()).hexdigest()}


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(value) -> str:
    """A hash of nested plain data and tensors."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().view(-1).view(torch.uint8)
        return hashlib.sha256(bytes(flat.tolist())).hexdigest()
    if isinstance(value, dict):
        value = [[str(key), digest(item)] for key, item in value.items()]
    elif isinstance(value, list | tuple):
        value = [digest(item) for item in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def where_killed(run: Path) -> str:
    """What the kill interrupted, by what it left behind."""
    if not (run / "run.json").exists():
        return "before the run began"
    staging = [path.name for path in run.rglob("*.staging-*")]
    if any("checkpoint" in name for name in staging):
        return "in a checkpoint"
    if any(name.startswith("model") for name in staging):
        return "in the final model"
    if staging or not (run / "checkpoints").exists():
        return "in the preparation"
    return "in the loop"


def last_checkpoint(run: Path) -> int:
    steps = [int(p.name[11:]) for p in (run / "checkpoints").glob("checkpoint-????????")]
    return max(steps, default=0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--no-write", action="store_true", help="leave benchmarks/results alone")
    arguments.add_argument("--language", action="store_true", help="a language model with rules")
    arguments.add_argument("--drop", choices=("optimizer", "random", "rules", "position"))
    options = arguments.parse_args()
    kind = (train, language_configuration) if options.language else (pretrain, configuration)

    def job(run_name):
        return functools.partial(kind[0], kind[1](folder, run_name, options.steps))

    gc.freeze()  # each training asks for full collections: not of the libraries, which are shared
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, log, marker = Path(name), Path(name) / "log.txt", Path(name) / "training"
        mark_begin_of_training(marker)
        make = {"entities": 60, "events_per_entity": 30, "seed": 3}
        wait(fork(lambda: write_simulated("finance", folder / "events.parquet", **make), log), log)
        write_text_file(folder / "text.txt")

        wait(fork(job("whole"), log), log)
        seconds = json.loads((folder / "whole" / "run.json").read_text())["results"]["seconds"]
        expected = evidence(folder, "whole")
        forget(options.drop)

        attempts, finished, differs = [], [], set()
        while len(attempts) < options.kills or not finished:
            name = f"killed-{len(finished)}"
            marker.unlink(missing_ok=True)
            started = time.perf_counter()
            child = fork(job(name), log)
            if len(attempts) < options.kills:
                # One attempt in five is killed at any time from its start on, the others while
                # they train, and every third in the middle of writing a checkpoint.
                if len(attempts) % 5 or not attempts:
                    await_sign(marker.exists, child)
                time.sleep(dice.uniform(0.0, 3.0) * seconds / options.kills)
                if len(attempts) % 3 == 1:
                    await_sign(functools.partial(writes_checkpoint, folder / name), child)
                    time.sleep(dice.uniform(0.0, 0.01))
                os.kill(child, signal.SIGKILL)
            delay = time.perf_counter() - started
            if not wait(child, log):
                attempts.append(
                    {
                        "seconds": round(delay, 3),
                        "killed": where_killed(folder / name),
                        "newest_checkpoint": last_checkpoint(folder / name),
                    }
                )
            else:  # it came to its end, before it could be killed or because it was left alone
                found = evidence(folder, name)
                finished.append(found == expected)
                differs |= {key for key in expected if found.get(key) != expected[key]}

    table = Table("attempt", "killed after", "where", "newest checkpoint")
    for number, attempt in enumerate(attempts, 1):
        row = (number, f"{attempt['seconds']:.2f} s", attempt["killed"])
        table.add_row(*map(str, row), str(attempt["newest_checkpoint"]))
    console = Console()
    console.print(table)
    same = all(finished)
    compared = "final weights, states and losses" if options.language else "final weights"
    console.print(f"{len(attempts)} kills; {compared} {'identical' if same else 'DIFFER'}")
    if differs:
        console.print(f"different: {', '.join(sorted(differs))}")
    if not options.no_write:
        RESULTS.parent.mkdir(exist_ok=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        report = {"kills": len(attempts), "identical": same, "seed": options.seed}
        place = ("language" if options.language else "events") + (
            f", without {options.drop}" if options.drop else ""
        )
        known[place] = {**report, "different": sorted(differs), "attempts": attempts}
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")
    # A state that was dropped must show.
    sys.exit(0 if same == (options.drop is None) else 1)


if __name__ == "__main__":
    main()
