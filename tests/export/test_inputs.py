"""What a model reads: from examples or specifications, drawn within bounds."""

import pytest
import torch
from torch import nn

from domainformer.errors import ExportError
from domainformer.export.inputs import InputSpec, spec_of
from domainformer.export.subject import of_model


class Pair(nn.Module):
    def forward(self, query, document):
        return query.sum(1, keepdim=True) * document


class Columns(nn.Module):
    """Four codes, each with a table of its own: that dimension is no length."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(9, 2) for _ in range(4))

    def forward(self, codes):
        return sum(table(codes[:, place]) for place, table in enumerate(self.tables))


class Silent(nn.Module):
    def forward(self, x):
        return "nothing"


def draw(spec, **sizes):
    return spec.draw(sizes, torch.Generator().manual_seed(0))


def test_ids_codes_numbers_and_masks_are_what_a_model_may_be_given():
    ids = draw(InputSpec("i", "int64", ("batch", "length"), high=9, low=2), batch=50, length=7)
    assert (int(ids.min()), int(ids.max())) == (2, 8)
    codes = draw(InputSpec("c", "int64", ("batch", 2), "codes", sizes=(3, 8)), batch=200)
    assert codes.amax(0).tolist() == [2, 7]
    numbers = InputSpec("n", "float64", ("batch", 3), "numbers", missing=True)
    assert 0.1 < float(draw(numbers, batch=200).isnan().double().mean()) < 0.3
    mask = draw(InputSpec("m", "bool", ("batch", "length"), "mask"), batch=5, length=9)
    assert mask.sum(1).tolist() == [9, 6, 3, 1, 1]
    assert mask.dtype == torch.bool


def test_sequences_of_different_lengths_have_dimensions_of_their_own():
    found = of_model(Pair(), inputs={"query": torch.ones(2, 3, dtype=torch.long),
                                     "document": torch.ones(2, 5, dtype=torch.long)})  # fmt: skip
    assert [one.dims for one in found.inputs] == [
        ("batch", "length"),
        ("batch", "document_length"),
    ]


def test_a_length_that_is_none_is_told_and_can_be_fixed():
    with pytest.raises(ExportError, match=r"must keep its size[\s\S]*InputSpec"):
        of_model(Columns(), inputs={"codes": torch.zeros(2, 4, dtype=torch.long)})
    fixed = InputSpec("codes", "int64", ("batch", 4), high=9)
    assert of_model(Columns(), inputs=[fixed]).inputs == (fixed,)


def test_examples_that_tell_nothing_are_refused():
    with pytest.raises(ExportError, match="is empty"):
        spec_of("x", torch.zeros(0, 3))
    with pytest.raises(ExportError, match="a single number"):
        spec_of("x", torch.tensor(1.0))
    with pytest.raises(ExportError, match=r"of type torch\.complex64"):
        spec_of("x", torch.zeros(2, 2, dtype=torch.complex64))
    with pytest.raises(ExportError, match="the inputs are a Tensor"):
        of_model(Pair(), inputs=torch.zeros(2, 2))
    with pytest.raises(ExportError, match="gives no tensor"):
        of_model(Silent(), inputs={"x": torch.ones(2)})
