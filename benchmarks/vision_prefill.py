"""What compression saves of a prefill: 576 image tokens against 64, the scorer's own time counted.

A ``Qwen2VLForConditionalGeneration`` with random weights reads one image of 24 x 24 tokens and 32
text tokens: whole, and cut to 64 image tokens by a ``RelevanceCompressor`` (random weights: time
does not depend on what was learned). One thread, no gradient, by processor time, which neighbours
on the machine disturb least; one round after the other with the cases in another order each time,
and ratios within a round. The first three cases start from the tower's features, as every turn of
a dialogue after the first does, those of ``tower`` from pixels. What a compression is made of is
timed by itself as well.

    python -P benchmarks/vision_prefill.py [--rounds 15] [--kept 64] [--write]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from domainformer.models.vision import (
    CompressorConfig,
    RelevanceCompressor,
    RelevanceRealizer,
    realize,
)
from domainformer.models.vision.compressed import encoder_outputs

RESULT = Path(__file__).parent / "results" / "vision_prefill.json"
GOAL = 0.9
SIDE, TEXT_TOKENS, WIDTH = 24, 32, 512
IMAGE, VIDEO, START, END, FIRST_WORD, VOCABULARY = 0, 1, 2, 3, 4, 512


def build(seed):
    """The model, and its inputs for one image with one question."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [8, 12, 12],
        },
    }
    tower = {
        "depth": 4,
        "embed_dim": 192,
        "num_heads": 6,
        "hidden_size": WIDTH,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO}
    ids |= {"vision_start_token_id": START, "vision_end_token_id": END}
    config = Qwen2VLConfig(text_config=text, vision_config=tower, tie_word_embeddings=True, **ids)
    model = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    words = torch.randint(FIRST_WORD, VOCABULARY, (TEXT_TOKENS - 2,))
    image = torch.full((SIDE * SIDE,), IMAGE)
    row = torch.cat([torch.tensor([START]), image, torch.tensor([END]), words])[None]
    side = SIDE * tower["spatial_merge_size"]
    inputs = {
        "input_ids": row,
        "attention_mask": torch.ones_like(row),
        "mm_token_type_ids": (row == IMAGE).long(),
        "pixel_values": torch.randn(side * side, 3 * 2 * tower["patch_size"] ** 2),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }
    return model, inputs


def cases(realizer, inputs, kept):
    """Name to call: a prefill up to the logits that the first word of an answer is drawn from."""
    model, base = realizer.model, realizer.base
    images = realizer.encode(**inputs)
    reading = {name: value for name, value in inputs.items() if name != "pixel_values"}
    ready = realizer.compress(**reading, budgets=kept, images=images)
    last = {"logits_to_keep": 1}

    def full():
        # As the model reads features that are there; it finds their positions by itself, too.
        return model(**reading, mm_encoder_outputs=encoder_outputs(images.features), **last)

    return {
        "full": full,
        "compressed, scorer excluded": lambda: model(**ready.model_inputs(base), **last),
        "compressed, scorer included": lambda: realizer(
            **reading, budgets=kept, images=images, options=last
        ),
        "tower and full": lambda: model(**inputs, **last),
        "tower and compressed": lambda: realizer(**inputs, budgets=kept, options=last),
    }


def parts(realizer, inputs, kept):
    """Name to call: what a compression is made of."""
    base, compressor = realizer.base, realizer.selector
    images = realizer.encode(**inputs)
    reading = {name: value for name, value in inputs.items() if name != "pixel_values"}
    request = realizer.request(**reading, budgets=kept, images=images)
    selection = compressor.select(request)
    ids, mask, grids = (inputs[k] for k in ("input_ids", "attention_mask", "image_grid_thw"))
    return {
        "positions of the full sequence": lambda: base.rope_positions(ids, mask, grids),
        "the request, with positions": lambda: realizer.request(
            **reading, budgets=kept, images=images
        ),
        "scores": lambda: compressor.score(request),
        "scores and selection": lambda: compressor.select(request),
        "gathering": lambda: realize(base, request, selection).model_inputs(base),
    }


def timed(call):
    begun = time.process_time()
    call()
    return time.process_time() - begun


def rounds_of(calls, rounds, seed):
    """Seconds of each call, ``rounds`` times, in an order that is drawn anew each time."""
    draw = random.Random(seed)
    names = list(calls)
    for name in names:
        calls[name](), calls[name]()
    found = {name: [] for name in names}
    for _ in range(rounds):
        draw.shuffle(names)
        for name in names:
            found[name].append(timed(calls[name]))
    return found


def told(found, over):
    """Median seconds of a call, and quartiles of the ratio to ``over`` within a round."""
    ratios = [b / a for a, b in zip(found, over, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "milliseconds": round(1e3 * statistics.median(found), 2),
        "times_faster": round(middle, 3),
        "times_faster_quartiles": [round(low, 3), round(high, 3)],
    }


def measure(options):
    model, inputs = build(options.seed)
    compressor = RelevanceCompressor(CompressorConfig(feature_size=WIDTH)).eval()
    realizer = RelevanceRealizer(model, compressor).eval()
    with torch.no_grad():
        found = rounds_of(cases(realizer, inputs, options.kept), options.rounds, options.seed)
        small = rounds_of(parts(realizer, inputs, options.kept), 5 * options.rounds, options.seed)
    full = [SIDE * SIDE + TEXT_TOKENS, options.kept + TEXT_TOKENS]
    length_ratio = full[0] / full[1]
    pairs = {name: "tower and full" if "tower" in name else "full" for name in found}
    results = {name: told(found[name], found[pairs[name]]) for name in found}
    for one in results.values():
        one["of_the_length_ratio"] = round(one["times_faster"] / length_ratio, 3)
    millions = {
        name: round(sum(p.numel() for p in part.parameters()) / 1e6, 3)
        for name, part in (
            ("text model", model.model.language_model),
            ("tower", model.model.visual),
            ("compressor", compressor),
        )
    }
    return {
        "what": "milliseconds (medians) of a prefill, and how many times faster than in full "
        "(median and quartiles within rounds); parts of the compression by themselves",
        "lengths": full,
        "length_ratio": round(length_ratio, 3),
        "million_parameters": millions,
        "cases": results,
        "parts_milliseconds": {
            name: round(1e3 * statistics.median(times), 3) for name, times in small.items()
        },
        "goal": f"with the scorer included at least {GOAL} of the length ratio",
        "reached": results["compressed, scorer included"]["of_the_length_ratio"] >= GOAL,
        "rounds": options.rounds,
        "seed": options.seed,
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kept", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options)
    print(json.dumps(result, indent=2))
    if options.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
