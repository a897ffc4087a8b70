"""A frozen vision-language model that reads the image tokens a selector keeps, and no others.

::

    pixels ─▶ tower (frozen) ─▶ features ─▶ selector ◀─ question
                                    │           │
                                    └─▶ kept features, at their original positions
                                                │
    ids ─▶ shortened ids, mask, labels ─────────┴─▶ language model (frozen) ─▶ forward | generate
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from domainformer.errors import VisionError
from domainformer.models.vision.capabilities import Route, VisionBase
from domainformer.models.vision.compressed import CompressedInputs, joined
from domainformer.models.vision.inputs import (
    Budgets,
    known_inputs,
    patch_grids,
    refuse_unknown,
    refuse_videos,
    resolve_budgets,
)
from domainformer.models.vision.positions import Positions, check_policy
from domainformer.models.vision.queries import (
    IGNORED_LABEL,
    question_embeddings,
    question_mask,
)
from domainformer.models.vision.request import CompressionRequest, ImageTokens, TokenSelector
from domainformer.models.vision.shortening import Side, full_inputs, realize
from domainformer.models.vision.soft import SoftOutput, soft_forward
from domainformer.models.vision.towers import image_rows


class RelevanceRealizer(nn.Module):
    """A vision-language model and a selector of image tokens, as one model.

    The model is frozen and stays in evaluation: what trains is the selector. All methods take what
    the processor of the model gives (``input_ids``, ``attention_mask``, ``pixel_values``,
    ``image_grid_thw``, …) by name, and beside it:

    - ``budgets``: see ``Budgets``; None leaves the number to the selector;
    - ``images``: the tokens of an earlier turn (``CompressedInputs.images``) instead of pixels;
    - ``query_mask``: ``[B, S]``, the question; by default all text without a label. **Tokens with
      a label are never part of the query.**

    Args:
        model: a vision-language model of transformers with a language head.
        selector: the learned compressor, a baseline, or your own ``TokenSelector``.
        positions: ``"original"`` keeps rows and columns; ``"compact"`` counts anew.
        route: how features are handed over; the best available by default.

    Raises:
        VisionError: the model lacks an ability; see :class:`VisionBase`.
    """

    # The Trainer of transformers would hand its count of labels to a forward with **inputs.
    accepts_loss_kwargs = False

    def __init__(
        self,
        model: nn.Module,
        selector: TokenSelector,
        *,
        positions: Positions = "original",
        route: Route | None = None,
    ) -> None:
        super().__init__()
        check_policy(positions)
        self.base = VisionBase.probe(model, route=route)
        self.positions: Positions = positions
        self.model: Any = model.requires_grad_(False)
        self.selector = selector
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch the selector alone; the model stays in evaluation."""
        super().train(mode)
        self.model.eval()
        return self

    def encode(
        self, *, input_ids: Tensor | None = None, pixel_values: Tensor | None = None, **inputs: Any
    ) -> ImageTokens:
        """The tower's tokens of a batch, to be given again as ``images`` in later turns.

        Raises:
            VisionError: videos, no pixels, or pixels that do not fit the placeholders.
        """
        refuse_videos(self.base, inputs, input_ids)
        if pixel_values is None:
            raise VisionError(
                "there are no images to compress",
                where="pixel_values",
                next_step="pass pixel_values, or images= of an earlier turn",
            )
        grids = inputs.pop("image_grid_thw", None)
        return self.base.encode(pixel_values, grids, input_ids, **inputs)

    def request(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        images: ImageTokens | None = None,
        budgets: Budgets = None,
        query_mask: Tensor | None = None,
        relevant: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        **inputs: Any,
    ) -> CompressionRequest:
        """What the selector is asked for a batch.

        Raises:
            VisionError: inputs that do not fit together; an image without a question.
        """
        base = self.base
        refuse_unknown(base, inputs)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if attention_mask.shape != input_ids.shape:
            raise VisionError(
                f"attention_mask has the shape {tuple(attention_mask.shape)}",
                where="attention_mask",
                why=f"input_ids have {tuple(input_ids.shape)}",
                next_step="give the mask of padding as the processor makes it",
            )
        refuse_videos(base, inputs, input_ids)
        if images is None:
            images = self.encode(input_ids=input_ids, **inputs)
        rows = image_rows(base, input_ids, images.counts)
        grids = patch_grids(base, images, input_ids.device)
        given = inputs.get("image_grid_thw")
        if given is not None and base.mrope and not torch.equal(given.to(grids), grids):
            raise VisionError(
                "image_grid_thw does not describe the images that were given",
                where="image_grid_thw",
                next_step="leave it out where images= is given",
            )
        full = base.rope_positions(input_ids, attention_mask, grids, position_ids)
        asks = question_mask(base, input_ids, attention_mask, labels, query_mask)
        return CompressionRequest(
            images=ImageTokens(images.features, images.grids, rows, images.deepstack),
            queries=question_embeddings(base, input_ids, asks, rows),
            budgets=resolve_budgets(budgets, images.counts),
            base=base,
            inputs={
                **inputs,
                **({"image_grid_thw": grids} if base.mrope else {}),
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "position_ids": full,
                "labels": labels,
            },
            relevant=None if relevant is None else tuple(relevant),
            generator=generator,
        )

    def compress(self, *, padding_side: Side | None = None, **inputs: Any) -> CompressedInputs:
        """Select, and shorten the inputs to what was kept.

        Args:
            padding_side: of the shortened batch; that of the full batch by default.
            **inputs: see the class.

        Raises:
            VisionError: inputs or a selection that do not fit.
        """
        request = self.request(**inputs)
        selection = self.selector.select(request)
        return realize(
            self.base, request, selection, positions=self.positions, padding_side=padding_side
        )

    def run(self, compressed: CompressedInputs, **options: Any) -> Any:
        """Call the language model; its output has ``loss`` where there are labels.

        Args:
            compressed: of :meth:`compress`.
            **options: further arguments of the model's ``forward``.
        """
        if compressed.labels is not None:
            options.setdefault("labels", compressed.labels)
        return self.model(**joined(compressed.model_inputs(self.base), options))

    def forward(self, *, options: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        """The model's output on hard-selected tokens: what is true in use.

        Args:
            options: further arguments of the model's ``forward``.
            **inputs: see the class.
        """
        return self.run(self.compress(**inputs), **(options or {}))

    def full_forward(self, *, options: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        """The same with every token kept: the model without compression (a teacher's logits)."""
        request = self.request(**inputs)
        return self.run(full_inputs(self.base, request), **(options or {}))

    def soft_forward(
        self,
        *,
        temperature: float,
        straight: bool = False,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> SoftOutput:
        """The full sequence with gates instead of dropped tokens, for training; see ``soft``.

        Args:
            temperature: of the gates, annealed towards 0 in training.
            straight: whether gates are hard in the forward pass and smooth in the backward pass.
            options: further arguments of the model's ``forward``.
            **inputs: see the class.

        Raises:
            VisionError: the selector does not score, or attention takes no additive mask.
        """
        request = self.request(**inputs)
        options = dict(options or {})
        return soft_forward(request, self.selector, temperature, options, straight=straight)

    def generate(self, *, options: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        """Generate from the compressed prompt; greedy, sampled, beams, as ``model.generate``.

        Args:
            options: arguments of the model's ``generate``: ``{"max_new_tokens": 8}``.
            **inputs: see the class; names that are neither inputs nor of the tower go to
                ``generate`` too.

        Returns:
            The new tokens ``[B, T]`` alone, or the model's output with such ``sequences``.

        Raises:
            VisionError: the prompt holds labels or ends in an image.
        """
        known = known_inputs(self.base)
        generation = {name: value for name, value in inputs.items() if name not in known}
        generation |= dict(options or {})
        inputs = {name: value for name, value in inputs.items() if name in known}
        labels = inputs.pop("labels", None)
        if labels is not None and bool((labels != IGNORED_LABEL).any()):
            raise VisionError(
                "the prompt holds its answer",
                where="labels",
                next_step="give generate the ids up to the answer, without labels",
            )
        # New tokens are appended on the right, so that padding has to be on the left.
        compressed = self.compress(**inputs, padding_side="left")
        self._check_generation(compressed, generation)
        with torch.no_grad():
            output = self.model.generate(**joined(compressed.model_inputs(self.base), generation))
        if self.base.route == "inputs_embeds":
            return output
        prompt = compressed.input_ids.shape[1]
        if isinstance(output, Tensor):
            return output[:, prompt:]
        output.sequences = output.sequences[:, prompt:]
        return output

    def _check_generation(
        self, compressed: CompressedInputs, generation: Mapping[str, Any]
    ) -> None:
        positions = compressed.position_ids
        if self.base.mrope and bool((positions[1:, :, -1] < positions[1:].amax((0, 2))).any()):
            raise VisionError(
                "the prompt ends in an image",
                where="input_ids",
                why="new tokens are placed one after the last, which must be text",
                next_step="end the prompt with text or the marks of the chat template",
            )
        if not self.base.mrope and generation.get("use_cache") is False:
            raise VisionError(
                f"{self.base.name} cannot generate from dropped tokens without a cache",
                where="use_cache",
                why="generate leaves out a mask without padding, and without a cache transformers "
                "then takes a gap between positions for the start of another document",
                next_step="leave use_cache as it is",
            )

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the selector and the name of its base model; see ``folder``."""
        from domainformer.models.vision.folder import save_adapter

        return save_adapter(self, Path(folder), overwrite=overwrite)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, model: nn.Module) -> RelevanceRealizer:
        """Open an adapter folder upon the model that it was made for; see ``folder``."""
        from domainformer.models.vision.folder import load_adapter

        return load_adapter(Path(folder), model)
