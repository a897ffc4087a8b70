"""The frozen model and what reads images and questions for it.

The processor of most families wants torchvision for its part on videos. Images need none of it:
where the whole processor cannot be opened, :class:`ImageTextProcessor` puts its two halves
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from domainformer.errors import VisionError
from domainformer.training.vision.config import VisionModelConfig


class ImageTextProcessor:
    """A tokenizer and an image processor, as one: images to patches, placeholders to fit them.

    ::

        "<image> which digit?"  +  image of 4 × 6 patches, merged 2 × 2
                 ─▶  [image] × 6  [which] [digit] [?]

    Args:
        tokenizer: Any tokenizer of transformers.
        image_processor: One that answers ``pixel_values`` and ``image_grid_thw``.
        image_token: The placeholder's text.
    """

    chat_template: str | None

    def __init__(self, tokenizer: Any, image_processor: Any, *, image_token: str) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.image_token = image_token
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(image_token))
        self.chat_template = getattr(tokenizer, "chat_template", None)

    def __call__(
        self, *, images: Sequence[Any], text: Sequence[str], **_: Any
    ) -> dict[str, torch.Tensor]:
        """Inputs of one row: one text that has a placeholder for each of its images.

        Args:
            images: ``[height, width, 3]`` of uint8 each.
            text: One text.

        Raises:
            VisionError: The images and the placeholders of the text are not as many.
        """
        seen = self.image_processor(images=list(images), return_tensors="pt")
        merged = self.image_processor.merge_size**2
        counts = (seen["image_grid_thw"].prod(-1) // merged).tolist()
        ids = self.tokenizer(text[0])["input_ids"]
        if ids.count(self.image_token_id) != len(counts):
            raise VisionError(
                f"the text has {ids.count(self.image_token_id)} placeholders for "
                f"{len(counts)} images",
                where=f"{text[0]!r}",
                next_step=f"put {self.image_token} where each image belongs",
            )
        remaining = iter(counts)
        expanded: list[int] = []
        for one in ids:
            expanded += [one] * (int(next(remaining)) if one == self.image_token_id else 1)
        input_ids = torch.tensor([expanded])
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": seen["pixel_values"],
            "image_grid_thw": seen["image_grid_thw"],
        }

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        """The tokenizer's own."""
        return self.tokenizer.apply_chat_template(messages, **options)


def open_base(config: VisionModelConfig) -> tuple[PreTrainedModel, Any]:
    """The frozen model that a configuration names, and its processor.

    Raises:
        VisionError: There is no name, or what it names is no vision-language model.
    """
    from transformers import AutoModelForImageTextToText

    if config.name is None:
        raise VisionError(
            "there is no model to compress the images of",
            where="model.name",
            next_step="name a folder or a model of the Hub",
        )
    if config.name.startswith((".", "/", "~")) and not Path(config.name).is_dir():
        raise VisionError(
            f"there is no model folder {config.name}",
            where="model.name",
            why=None if Path(config.name).is_absolute() else f"seen from {Path.cwd()}",
            next_step="name it as it lies now: model.name=… (train), --model … (use)",
        )
    try:
        model = AutoModelForImageTextToText.from_pretrained(config.name, revision=config.revision)
    except (OSError, ValueError, KeyError) as error:
        raise VisionError(
            f"{config.name} cannot be opened as a vision-language model",
            where="model.name",
            why=str(error).splitlines()[0],
            next_step="name a folder or a model of the Hub that reads images and text",
        ) from error
    return model.eval(), open_processor(config, model)


def open_processor(config: VisionModelConfig, model: PreTrainedModel) -> Any:
    """The processor that lies beside a model, whole or of its two halves.

    Raises:
        VisionError: There is no tokenizer or no image processor.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    place: dict[str, Any] = {"revision": config.revision}
    try:
        whole = AutoProcessor.from_pretrained(config.name, **place)
        if hasattr(whole, "tokenizer") and hasattr(whole, "image_processor"):
            return whole
    except (ImportError, OSError, ValueError, TypeError):
        pass  # most often: torchvision, for videos; the halves say what else is wrong
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.name, **place)
        images = AutoImageProcessor.from_pretrained(config.name, **place)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise VisionError(
            f"{config.name} has no processor of images and text",
            where="model.name",
            why=str(error).splitlines()[0],
            next_step="save the tokenizer and the image processor beside the model",
        ) from error
    if not hasattr(images, "merge_size"):
        raise VisionError(
            f"the processor of {config.name} cannot be put together",
            where="model.name",
            why=f"{type(images).__name__} tells no grid of its patches",
            next_step="save the whole processor beside the model, or hand it in",
        )
    placeholder = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
    return ImageTextProcessor(tokenizer, images, image_token=str(placeholder))
