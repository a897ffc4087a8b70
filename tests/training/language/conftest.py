"""A small text and a small run."""

from __future__ import annotations

import random

import pytest
import torch

from domainformer.config import apply_overrides, build
from domainformer.training.language import TextRunConfig

WORDS = [
    "to",
    "be",
    "or",
    "not",
    "that",
    "is",
    "the",
    "question",
    "whether",
    "nobler",
    "in",
    "mind",
    "suffer",
    "slings",
    "and",
    "arrows",
]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    draw = random.Random(0)
    lines = [" ".join(draw.choice(WORDS) for _ in range(8)) + "." for _ in range(120)]
    path = tmp_path_factory.mktemp("text") / "play.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def config_for(text_file):
    def make(root, name="run", *overrides):
        values = {
            "data": {"path": str(text_file)},
            "model": {
                "overrides": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
            },
            "training": {
                "context": 16,
                "batch_tokens": 64,
                "max_steps": 12,
                "eval_every": 4,
                "save_every": 3,
                "learning_rate": 0.01,
                "eval_rows": 16,
                "precision": "fp32",
                "log_every": 1,
                "quiet": True,
            },
            "sampling": {"tokens": 8, "every": 6},
            "output": {"root": str(root), "name": name},
        }
        return build(TextRunConfig, apply_overrides(values, list(overrides)))

    return make
