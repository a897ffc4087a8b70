import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision.layout import (
    OFFSETS,
    TokenLayout,
    batch_layout,
    pad,
    raster_positions,
    standardise,
)

GRIDS = ((3, 4), (2, 2), (1, 5), (1, 1))


def mixed_layout():
    positions, _ = pad([raster_positions(grid) for grid in GRIDS])
    _, mask = pad([torch.zeros(rows * columns) for rows, columns in GRIDS])
    return TokenLayout.of(mask, positions), mask


def around_one_at_a_time(values, grid):
    rows, columns = grid
    image = values.view(rows, columns)
    out = torch.zeros(rows * columns, 9)
    for row in range(rows):
        for column in range(columns):
            for offset, (down, right) in enumerate(OFFSETS):
                r, c = row + down, column + right
                if 0 <= r < rows and 0 <= c < columns:
                    out[row * columns + column, offset] = image[r, c]
    return out


def test_neighbours_are_those_of_a_walk_over_each_grid():
    layout, mask = mixed_layout()
    values = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    found = layout.around(values)
    for index, grid in enumerate(GRIDS):
        count = grid[0] * grid[1]
        expected = around_one_at_a_time(values[index, :count], grid)
        assert torch.equal(found[index, :count], expected)
    assert not layout.has_neighbour[~mask].any()


def test_standardised_scores_look_at_their_own_tokens():
    values = torch.tensor([[1.0, 2.0, 6.0, 99.0], [5.0, 5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    z = standardise(values, mask)
    alone = values[0, :3]
    assert torch.allclose(z[0, :3], (alone - alone.mean()) / alone.std(correction=0), atol=1e-5)
    assert z[0, 3] == 0
    assert torch.equal(z[1], torch.zeros(4))


def test_a_grid_that_does_not_hold_the_tokens_is_refused():
    features = torch.zeros(1, 6, 4)
    assert batch_layout(features, None, None, (2, 3)).mask.all()
    with pytest.raises(VisionError, match="does not hold the image's 6 tokens"):
        batch_layout(features, None, None, (2, 4))
    with pytest.raises(VisionError, match="do not fit the features"):
        batch_layout(features, torch.ones(1, 5, dtype=torch.bool), None, None)


def test_a_remembered_layout_is_that_of_its_positions():
    expected, mask = mixed_layout()
    with torch.inference_mode():
        found = TokenLayout.of_grids(GRIDS, torch.device("cpu"))
        found.around(torch.zeros(mask.shape))
    for name in ("mask", "neighbours", "has_neighbour"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(found.positions[mask], expected.positions[mask])
    assert found.extent == 5
    assert TokenLayout.of_grids(GRIDS, torch.device("cpu")) is found
    # First asked for in inference, it still serves a training.
    values = torch.randn(*mask.shape, 3, requires_grad=True)
    found.around(values).square().sum().backward()
    assert values.grad[mask].abs().min() > 0
    assert values.grad[~mask].abs().max() == 0
