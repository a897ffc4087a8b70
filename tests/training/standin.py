"""A tiny model and data set with the shapes of the real ones, for tests of the engine alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

VOCAB = 40
LENGTH = 12


class StandinConfig(PretrainedConfig):
    model_type = "standin"

    def __init__(self, width=16, layers=1, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = width
        self.layers = layers
        self.dropout = dropout


class StandinForCausalLM(PreTrainedModel):
    """Embedding, residual MLPs with dropout, tied output: enough to need every state."""

    config_class = StandinConfig
    _tied_weights_keys = {"head.weight": "embedding.weight"}

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.embedding = nn.Embedding(VOCAB, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(config.dropout))
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCAB, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, labels=None, num_items_in_batch=None, **kwargs):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        logits = self.head(self.norm(hidden))
        loss = None
        if labels is not None:
            total = nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, VOCAB), labels[:, 1:].reshape(-1), reduction="sum"
            )
            count = (
                labels[:, 1:].ne(-100).sum() if num_items_in_batch is None else num_items_in_batch
            )
            loss = total / count
        return CausalLMOutput(loss=loss, logits=logits)


class StandinRows:
    """Sequences that count upwards from a random token; permuted by (seed, epoch)."""

    def __init__(self, rows=37, seed=0, length=LENGTH):
        start = np.random.default_rng(seed).integers(0, VOCAB, size=(rows, 1))
        self.tokens = (start + np.arange(length)) % VOCAB
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.tokens))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        row = self.tokens[self.order[index]]
        return {"input_ids": row, "labels": row.copy()}


def collate(rows):
    return {
        key: torch.from_numpy(np.stack([row[key] for row in rows]))
        for key in ("input_ids", "labels")
    }


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    return StandinForCausalLM(StandinConfig(**options))


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_weights(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
