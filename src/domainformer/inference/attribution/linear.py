"""A classifier for nothing but a label per entity: a linear head on a frozen backbone.

A probe on embeddings tells how much a pretrained model knows of a label; as a linear head it is a
sequence classifier whose every step back to the tokens can be followed, and which takes a second
to fit. It is what is explained where nobody has fine-tuned a model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from domainformer.errors import DataError
from domainformer.inference.bundle import Bundle
from domainformer.models import DomainTransformerForSequenceClassification


def linear_head(
    bundle: Bundle,
    vectors: npt.NDArray[np.floating],
    labels: Sequence[Any],
    *,
    name: str = "label",
    decay: float = 1e-2,
) -> Bundle:
    """Fit a linear classifier on embeddings and put it on the model that gave them.

    Softmax regression with an L2 penalty on standardised embeddings, by L-BFGS; the scaling is
    folded into the head's weights.

    Args:
        bundle: The pretrained model.
        vectors: ``embed(bundle, …, how="last")`` of the training entities, [n, width].
        labels: The class of each.
        name: What the label is called.
        decay: Of the penalty.

    Returns:
        A bundle with a sequence classifier; classes are sorted.

    Raises:
        DataError: There is one class only, a label is null, or there are not as many as vectors.
    """
    if len(labels) != len(vectors):
        raise DataError(
            f"the label {name!r} cannot be learned",
            why=f"there are {len(vectors)} embeddings and {len(labels)} labels",
            next_step="give the label of each embedded entity, in their order",
        )
    classes = sorted(set(labels), key=lambda value: (str(type(value)), value))
    if len(classes) < 2 or any(label is None for label in labels):
        raise DataError(
            f"the label {name!r} cannot be learned",
            why=f"it has {len(classes)} classes" if len(classes) < 2 else "some labels are null",
            next_step="give two classes or more, and known labels alone",
        )
    x = torch.from_numpy(np.asarray(vectors, np.float64))
    y = torch.tensor([classes.index(label) for label in labels])
    center, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    weight, bias = _softmax_regression((x - center) / scale, y, len(classes), decay)
    weight = weight / scale
    bias = bias - weight @ center
    config = copy.deepcopy(bundle.model.config)
    config.num_labels = len(classes)
    config.id2label = {code: str(value) for code, value in enumerate(classes)}
    config.label2id = {value: code for code, value in config.id2label.items()}
    config.problem_type = "single_label_classification"
    model = DomainTransformerForSequenceClassification(config)
    model.model.load_state_dict(bundle.model.base_model.state_dict())
    with torch.no_grad():
        model.score.weight.copy_(weight)
        model.score.bias.copy_(bias)
    model.to(device=bundle.device, dtype=bundle.model.dtype).eval()
    task = {"label": name, "classes": [str(value) for value in classes]}
    record = {**bundle.record, "kind": "linear head", "task": task}
    return Bundle(model, bundle.tokenizer, bundle.schema, record, merges=bundle.merges)


def _softmax_regression(
    x: torch.Tensor, y: torch.Tensor, classes: int, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, y)
        loss = loss + decay * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
