"""Generated modules of the flat kind, and names that are wrong in every way."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from .case import Base, Case, H, V


class Flat(nn.Module):
    """What a code generator writes: numbered parts in one namespace."""

    def __init__(self):
        super().__init__()
        self.embedding_0_token = nn.Embedding(V, H)
        self.mhsa_0 = nn.MultiheadAttention(H, 2, batch_first=True)
        self.layernorm_0 = nn.LayerNorm(H)
        self.ffn_0 = nn.Sequential(nn.Linear(H, 16), nn.GELU(), nn.Linear(16, H))
        self.layernorm_1 = nn.LayerNorm(H)
        self.linear_0 = nn.Linear(H, V)


EDGES = (
    ("input_0_tokens", "embedding_0_token"),
    ("embedding_0_token", "mhsa_0"),
    ("embedding_0_token", "residual_0"),
    ("mhsa_0", "residual_0"),
    ("residual_0", "layernorm_0"),
    ("layernorm_0", "ffn_0"),
)


class FlatWithIntermediates(Flat):
    """Every output of its parts is an argument; only one is read."""

    def forward(self, input_0_tokens, embedding_0_token_output, mhsa_0_output, ffn_0_output):
        return self.linear_0(self.layernorm_1(ffn_0_output))


class FlatBroken(Flat):
    """Undefined and overwritten names, as generators leave them."""

    def forward(self, input_0_tokens, embedding_0_token_output, mhsa_0_output, residual_0_output):
        embedding_0_token_output = self.embedding_0_token(input_0_tokens)
        mhsa_0_output = self.mhsa_0(
            embedding_0_token_output, embedding_0_token_output, embedding_0_token_output
        )[0]
        residual_0_output = embedding_0_output + mhsa_0_output  # noqa: F821
        layernorm_0_output = self.layernorm_0(residual_0_output)
        ffn_0_output = self.ffn_0(layernorm_0_output)
        debug_output = ffn_0_output * 2  # noqa: F841
        return self.linear_0(self.layernorm_1(ffn_0_output))


class MissingPart(Base):
    def forward(self, input_ids):
        return self.head(self.mixer(self.emb(input_ids)))


class UsedBeforeBound(Base):
    def forward(self, input_ids):
        out = self.head(h)  # noqa: F821
        h = self.emb(input_ids)
        return out + h.mean()


class UndefinedInBranch(Base):
    def forward(self, input_ids, flag: bool = False):
        if flag:
            return self.head(never_bound)  # noqa: F821
        return self.body(input_ids)


class DeadArgument(Base):
    def forward(self, input_ids, extra):
        return self.body(input_ids)


class RequiredArgument(Base):
    """Read, required, and nobody knows what it is."""

    def forward(self, input_ids, extra):
        return self.body(input_ids) if extra is None else extra + 1


class BoundInLoop(Base):
    def forward(self, input_ids):
        for _ in range(2):
            out = self.body(input_ids)
        return out


class BoundInTry(Base):
    def forward(self, input_ids):
        try:
            out = self.body(input_ids)
        except RuntimeError:
            out = None
        finally:
            done = True
        return out if done else None


class BoundInWith(Base):
    def forward(self, input_ids):
        with contextlib.nullcontext(self.emb) as emb:
            h = emb(input_ids)
        return self.head(h)


class WalrusAndComprehension(Base):
    def forward(self, input_ids):
        total = 0
        parts = [total := total + self.emb(input_ids[:, : i + 1]).mean(1) for i in range(3)]
        if (size := len(parts)) > 1:
            return self.body(input_ids) + size + 0 * total.mean()
        return self.body(input_ids)


class StarTargets(Base):
    def forward(self, input_ids):
        first, *rest = self.emb(input_ids).unbind(1)
        (a, b), c = (first, rest), input_ids
        del c
        return self.head(torch.stack([a, *b], 1))


class Closure(Base):
    def forward(self, input_ids):
        scale = 1.0

        def apply(x):
            nonlocal scale
            scale = scale + 0
            return later(x) * scale

        later = self.head
        return apply(self.emb(input_ids))


class Looks(Base):
    def forward(self, input_ids):
        h = self.emb(input_ids)
        return self.head(locals()["h"])


class OverwrittenValue(Base):
    def forward(self, input_ids):
        h = self.mix(self.emb(input_ids))
        h = self.emb(input_ids)
        return self.head(h)


class LoopCarried(Base):
    """`last` is read in the next round: not dead, and not overwritten."""

    def forward(self, input_ids):
        out, last = 0, 0
        for column in self.emb(input_ids).unbind(1):
            out = out + last
            last = column
        return self.body(input_ids) + out.mean() * 0


SUM = ("add", "embedding_0_token_output", "mhsa_0_output")

CASES = [
    Case(
        FlatWithIntermediates,
        "refused",
        "candidates: providers={'ffn_0': ('ffn_0', INPUT, …)}",
        dead=("embedding_0_token_output", "input_0_tokens", "mhsa_0_output"),
        layout="flat",
    ),
    Case(
        FlatWithIntermediates,
        bind={"config": {"edges": EDGES}},
        dead=("embedding_0_token_output", "input_0_tokens", "mhsa_0_output"),
    ),
    Case(
        FlatBroken,
        "foreign",
        "embedding_0_output",
        undefined=("embedding_0_output",),
        dead=("debug_output",),
        overwritten=("embedding_0_token_output", "mhsa_0_output", "residual_0_output"),
        layout="flat",
    ),
    Case(MissingPart, "foreign", "mixer", undefined=("self.mixer",)),
    Case(UsedBeforeBound, "foreign", "'h'", undefined=("h",)),
    Case(UndefinedInBranch, undefined=("never_bound",)),
    Case(DeadArgument, dead=("extra",)),
    Case(RequiredArgument, "refused", "forward needs extra"),
    Case(BoundInLoop),
    Case(BoundInTry),
    Case(BoundInWith),
    Case(WalrusAndComprehension),
    Case(StarTargets),
    Case(Closure),
    Case(Looks, unknown="locals()"),
    Case(OverwrittenValue, overwritten=("h",)),
    Case(LoopCarried),
]
