"""Files as users have them: text, to be read or run."""

GENERATED = '''"""Written by a generator: every output of a part is an argument."""

import torch
from torch import nn


class Flat(nn.Module):
    def __init__(self, width=8, vocabulary=20):
        super().__init__()
        self.embedding_0_token = nn.Embedding(vocabulary, width)
        self.mhsa_0 = nn.Linear(width, width)
        self.layernorm_0 = nn.LayerNorm(width)
        self.ffn_0 = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.linear_0 = nn.Linear(width, vocabulary)

    def forward(
        self,
        input_0_tokens: torch.Tensor,
        embedding_0_token_output=None,
        mhsa_0_output=None,
        residual_0_output: "torch.Tensor | None" = None,
    ):
        embedding_0_token_output = self.embedding_0_token(input_0_tokens)  # overwrites
        mhsa_0_output = self.mhsa_0(embedding_0_token_output.cumsum(1))  # overwrites
        debug_output = mhsa_0_output * 2  # dead
        residual_0_output = embedding_0_output + mhsa_0_output  # overwrites # undefined
        layernorm_0_output = self.layernorm_0(residual_0_output)
        ffn_0_output = self.ffn_0(layernorm_0_output)
        return self.linear_0(ffn_0_output)
'''
