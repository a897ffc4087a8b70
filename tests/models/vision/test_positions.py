from functools import wraps

import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision import RelevanceRealizer, VisionBase
from domainformer.models.vision.positions import grid_positions, shorten_positions

from .oracles import RandomTokens, full_positions
from .tiny import FAMILIES, IMAGE, PAD, tiny


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    return tiny(request.param)


def test_given_positions_must_be_the_models_own(opened):
    model, maker = opened
    inputs = maker()
    realizer = RelevanceRealizer(model, RandomTokens())
    right = full_positions(model, inputs)
    wanted = realizer.compress(**inputs).position_ids
    for given in (right, right[1:]) if maker.mrope else (right,):
        assert torch.equal(realizer.compress(**inputs, position_ids=given).position_ids, wanted)
    padded = right.clone()
    padded[..., 1, 0] = 77
    assert inputs["attention_mask"][1, 0] == 0
    assert torch.equal(realizer.compress(**inputs, position_ids=padded).position_ids, wanted)


def test_wrong_positions_are_an_error(opened):
    model, maker = opened
    inputs = maker()
    realizer = RelevanceRealizer(model, RandomTokens())
    wrong = full_positions(model, inputs)
    wrong[..., 0, 5] += 1
    for call in (realizer.compress, realizer.generate, realizer.full_forward):
        with pytest.raises(
            VisionError, match=r"not the positions of the full sequence[\s\S]*, 5\]"
        ):
            call(**inputs, position_ids=wrong)


def test_one_dimensional_positions_never_take_the_place_of_three(opened):
    model, maker = opened
    inputs = maker()
    realizer = RelevanceRealizer(model, RandomTokens())
    text = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    shapes = [text[:, 1:]] + [text, text.expand(4, -1, -1)] * maker.mrope
    for positions in shapes:
        with pytest.raises(VisionError, match="position_ids"):
            realizer.compress(**inputs, position_ids=positions)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llava"])
def test_positions_cannot_be_had_without_grids(family):
    model, maker = tiny(family)
    inputs = maker()
    grids = inputs.pop("image_grid_thw")
    base = VisionBase.probe(model)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with pytest.raises(VisionError, match="without the grids of the images"):
        base.rope_positions(ids, mask)
    with pytest.raises(VisionError, match="have no grid"):
        RelevanceRealizer(model, RandomTokens()).compress(**inputs)
    # The twin: the model itself goes on without a word, and answers otherwise.
    images = base.encode(inputs["pixel_values"], grids, ids)
    from domainformer.models.vision.compressed import encoder_outputs

    given = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_encoder_outputs": encoder_outputs(images.features, images.deepstack),
    }
    model.model.rope_deltas = None
    silent = model(**given).logits
    right = model(**given, position_ids=base.rope_positions(ids, mask, grids)).logits
    assert (silent - right)[mask.bool()].abs().max() > 1e-3


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llava"])
def test_ids_that_are_not_the_full_ones_are_refused(family):
    model, maker = tiny(family)
    base = VisionBase.probe(model)
    inputs = maker(questions=(3,), images=[[(3, 2), (2, 2)]])
    ids, grids = inputs["input_ids"], inputs["image_grid_thw"]
    mask = torch.ones_like(ids)
    shorter = torch.cat([ids[:, :3], ids[:, 4:]], -1)
    with pytest.raises(VisionError, match="image 0 has 5 placeholders for 6 tokens"):
        base.rope_positions(shorter, mask[:, 1:], grids)
    adjacent = ids[:, [column for column in range(ids.shape[1]) if column not in (8, 9)]]
    with pytest.raises(VisionError, match="2 images stand in 1 runs"):
        base.rope_positions(adjacent, mask[:, 2:], grids)
    hidden = mask.clone()
    hidden[0, 4] = 0
    with pytest.raises(VisionError, match="placeholders are masked"):
        base.rope_positions(ids, hidden, grids)


def test_original_positions_are_gathered_and_the_text_row_has_no_gap():
    full = torch.arange(4 * 6).reshape(4, 1, 6)
    columns, mask = torch.tensor([[0, 0, 2, 5]]), torch.tensor([[0, 1, 1, 1]])
    original = shorten_positions(full, columns, mask, "original")
    assert original[:, 0].tolist() == [
        [0, 0, 1, 2],
        [0, 6, 8, 11],
        [0, 12, 14, 17],
        [0, 18, 20, 23],
    ]
    compact = shorten_positions(full, columns, mask, "compact")
    assert compact[:, 0].tolist() == [[0, 0, 1, 2]] * 4
    one = shorten_positions(full[1], columns, mask, "original")
    assert one.tolist() == [[0, 6, 8, 11]]


def batch_of(images, tokens=(("t", 2), (2, 3), ("t", 1), (4, 2), ("t", 3)), pads=(0, 4), side=0):
    """Rows of text and image grids as ids, mask and grids; every row the same, padded otherwise."""
    rows, masks, thw = [], [], []
    for pad in pads:
        row = [
            token
            for what, size in tokens
            for token in ([7] * size if what == "t" else [images] * (what * size))
        ]
        thw += [[1, 2 * what, 2 * size] for what, size in tokens if what != "t"]
        filling = [PAD] * pad
        rest = [PAD] * (max(pads) - pad)
        rows.append(filling + row + rest if side == 0 else row + filling + rest)
        ones = [1] * len(row)
        zeros, others = [0] * pad, [0] * (max(pads) - pad)
        masks.append(zeros + ones + others if side == 0 else ones + zeros + others)
    return torch.tensor(rows), torch.tensor(masks), torch.tensor(thw)


ARRANGED = (
    {"pads": (0,)},
    {},
    {"side": 1},
    {"tokens": ((1, 5), ("t", 2), (3, 3), ("t", 1)), "pads": (3, 0, 1)},
    {"tokens": (("t", 4), (2, 2)), "pads": (0, 2)},  # ends in an image
)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llava"])
@pytest.mark.parametrize("arranged", ARRANGED)
def test_positions_of_a_batch_at_once_are_the_models_own(family, arranged):
    model, _ = tiny(family)
    base = VisionBase.probe(model)
    ids, mask, thw = batch_of(base.image_token_id, **arranged)
    given = {"input_ids": ids, "attention_mask": mask, "image_grid_thw": thw}
    expected = full_positions(model, given | {"mm_token_type_ids": (ids == IMAGE).long()})
    for _ in range(2):  # asked, then computed
        assert torch.equal(base.rope_positions(ids, mask, thw), expected)
    ends = (ids == IMAGE).long().flatten()
    ends = torch.tensor(
        [i + 1 for i in range(len(ends)) if ends[i] and (i + 1 == len(ends) or not ends[i + 1])]
    )
    grids = [(h // 2, w // 2) for _, h, w in thw.tolist()]
    found = grid_positions(mask, (ids == IMAGE).long(), ends, grids)
    assert torch.equal(found, expected[1:])


def test_the_model_is_asked_once_per_grid_and_believed_where_it_differs(monkeypatch):
    model, _ = tiny("qwen2_vl")
    base = VisionBase.probe(model)
    own, calls = model.model.get_rope_index, []

    @wraps(own)
    def counted(*args, **given):
        calls.append(1)
        return own(*args, **given)

    monkeypatch.setattr(model.model, "get_rope_index", counted, raising=False)
    small = batch_of(base.image_token_id)
    first = base.rope_positions(*small)
    assert torch.equal(base.rope_positions(*small), first)
    assert len(calls) == 1
    last = batch_of(base.image_token_id, tokens=(("t", 1), (2, 5)), pads=(0,))
    for _ in range(2):  # nothing follows the image, so that nothing is learned of it
        base.rope_positions(*last)
    assert len(calls) == 3

    @wraps(own)
    def otherwise(*args, **given):
        axes, deltas = counted(*args, **given)
        return axes * 2, deltas

    monkeypatch.setattr(model.model, "get_rope_index", otherwise, raising=False)
    ids, mask, thw = batch_of(base.image_token_id, (("t", 1), (5, 2), ("t", 1)), pads=(0,))
    expected = 2 * own(ids, (ids == IMAGE).long(), thw, attention_mask=mask)[0]
    for _ in range(2):
        assert torch.equal(base.rope_positions(ids, mask, thw)[1:], expected)
    assert len(calls) == 5


def test_several_frames_are_left_to_the_model():
    model, _ = tiny("qwen2_vl")
    base = VisionBase.probe(model)
    ids = torch.tensor([[7] + [IMAGE] * 8 + [7]])
    thw = torch.tensor([[2, 4, 4]])
    mask = torch.ones_like(ids)
    given = {"input_ids": ids, "attention_mask": mask, "image_grid_thw": thw}
    expected = full_positions(model, given | {"mm_token_type_ids": (ids == IMAGE).long()})
    for _ in range(2):
        assert torch.equal(base.rope_positions(ids, mask, thw), expected)
