"""Slow, obvious ways to what a realizer must do: mask in the full sequence, and never drop.

They call the model as its makers do, with pixels, and use nothing of domainformer.
"""

import torch

from domainformer.models.vision import Selection

from .tiny import IMAGE, PAD


class RandomTokens:
    """Keeps tokens at random, as many as the budget says (4 without one)."""

    def __init__(self, seed=0):
        self.seed = seed

    def select(self, request):
        draw = torch.Generator().manual_seed(self.seed)
        counts = request.images.counts
        budgets = request.budgets or [4] * len(counts)
        return Selection(
            tuple(
                torch.randperm(count, generator=draw)[:budget].sort().values
                for count, budget in zip(counts, budgets, strict=True)
            )
        )


class LikeTheQuestion:
    """Keeps the tokens that resemble the mean of the question's words."""

    def select(self, request):
        kept = []
        for index, (features, query) in enumerate(
            zip(request.images.features, request.queries, strict=True)
        ):
            budget = request.budgets[index] if request.budgets else 4
            kept.append((features @ query.mean(0)).topk(budget).indices.sort().values)
        return Selection(tuple(kept))


def full_positions(model, inputs):
    """Positions of the full sequence, by the model's own function."""
    mask = inputs["attention_mask"]
    text = (mask.cumsum(-1) - 1).clamp(min=0)
    if not hasattr(model.model, "get_rope_index"):
        return text
    axes, _ = model.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"],
        attention_mask=mask,
    )
    return torch.cat([text[None], axes])


def masked(model, inputs, kept):
    """The full inputs, with a mask that hides the image tokens that were not kept."""
    mask = inputs["attention_mask"].clone()
    places = (inputs["input_ids"] == IMAGE).nonzero().tolist()
    stays = []
    counts = image_counts(inputs)
    for indices, count in zip(kept, counts, strict=True):
        stays += [index in set(indices.tolist()) for index in range(count)]
    for (row, column), stay in zip(places, stays, strict=True):
        mask[row, column] = int(stay)
    given = {"pixel_values": inputs["pixel_values"]}
    if "image_grid_thw" in inputs:
        given["image_grid_thw"] = inputs["image_grid_thw"]
    return {
        "input_ids": inputs["input_ids"],
        "attention_mask": mask,
        "position_ids": full_positions(model, inputs),
        **given,
    }


def image_counts(inputs):
    """Tokens of each image."""
    if "image_grid_thw" in inputs:
        return (inputs["image_grid_thw"].prod(-1) // 4).tolist()
    images = len(inputs["pixel_values"])
    return [int((inputs["input_ids"] == IMAGE).sum()) // images] * images


@torch.no_grad()
def masked_logits(model, inputs, kept):
    """Per row, the logits of the tokens that stay: a list of ``[S'_b, V]``."""
    given = masked(model, inputs, kept)
    logits = model(**given).logits
    return [row[mask.bool()] for row, mask in zip(logits, given["attention_mask"], strict=True)]


def short_logits(logits, compressed):
    """The same of a shortened batch."""
    masks = compressed.attention_mask.bool()
    return [row[mask] for row, mask in zip(logits, masks, strict=True)]


def worst(one, other):
    """The largest difference, row by row."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@torch.no_grad()
def greedy(model, inputs, kept, steps):
    """Greedy decoding without a cache, of left-padded inputs, over the masked full sequence.

    New tokens ``[B, T]`` and the logits ``[B, T, V]`` that they were taken from.
    """
    given = masked(model, inputs, kept)
    new, logits = [], []
    for _ in range(steps):
        logits.append(model(**given).logits[:, -1])
        token = logits[-1].argmax(-1, keepdim=True)
        new.append(token)
        positions = given["position_ids"]
        given["input_ids"] = torch.cat([given["input_ids"], token], -1)
        given["attention_mask"] = torch.cat([given["attention_mask"], torch.ones_like(token)], -1)
        given["position_ids"] = torch.cat([positions, positions[..., -1:] + 1], -1)
    return torch.cat(new, -1), torch.stack(logits, 1)


def endless(model):
    """Let generation go on to its limit, and never speak an image: rows stay comparable."""
    model.generation_config.eos_token_id = None
    model.get_output_embeddings().weight.data[[PAD, IMAGE]] = 0.0
    return model
