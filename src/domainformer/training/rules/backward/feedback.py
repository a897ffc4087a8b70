"""Errors sent back through fixed random matrices in place of the transposed weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from domainformer.errors import RuleError
from domainformer.training.rules.backward.linear import linear_at, weight_of
from domainformer.training.rules.base import LearningRule, Moment, Site, State


class FeedbackAlignment(LearningRule):
    r"""Linear layers whose error goes back through a matrix that is not their own.

    .. math::

        y = x W^\top + b \qquad
        \frac{\partial L}{\partial x} := \frac{\partial L}{\partial y}\,B \qquad
        \frac{\partial L}{\partial W} = \frac{\partial L}{\partial y}^{\!\top} x

    B is random and stays as it was drawn: the weights learn to fit it. Its standard deviation is
    that of W at the start (1/√in where W is all zeros), times ``scale``. With ``feedback: sign``,
    B is sign(W) times the mean of ``|W|`` at every step, which shares the signs alone. For the
    study of learning without weight transport; deep Transformers lose much by it.

    Args:
        sites: Linear layers.
        feedback: Fixed random matrices, or the signs of the weights.
        scale: Of B.

    Source: Lillicrap et al., Random synaptic feedback weights support error backpropagation for
    deep learning, Nature Communications 7, 2016, equation 2; signs: Liao, Leibo and Poggio, How
    important is weight symmetry in backpropagation?, 2016, section 3.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = nn.Sequential(nn.Linear(3, 2))
        >>> x = torch.ones(1, 3, requires_grad=True)
        >>> with attach(FeedbackAlignment(sites=("0",)), model) as attached:
        ...     model(x).sum().backward()
        ...     sent = attached.state["0:feedback_alignment"]["0"].sum(0)
        >>> torch.equal(x.grad[0], sent)
        True
    """

    name: ClassVar[str] = "feedback_alignment"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.mlp.*_proj",)
    feedback: Literal["random", "sign"] = "random"
    scale: float = Field(1.0, gt=0)

    def replace(
        self, at: Site, original: Callable[..., Any], state: State, moment: Moment
    ) -> Callable[..., Any]:
        """The layer with another way back; draws its matrix where there is none yet."""
        layer, path, scale = linear_at(at, original, rule=self.name), at.path, self.scale

        if self.feedback == "sign":

            def with_signs(values: torch.Tensor) -> torch.Tensor:
                weight = weight_of(layer).detach()
                signs = weight.sign() * (scale * weight.abs().mean())
                return _sent_back(values, layer, signs)

            return with_signs

        if path not in state:
            state[path] = _drawn_like(weight_of(layer).detach(), moment.generator(at), scale)

        def with_matrix(values: torch.Tensor) -> torch.Tensor:
            if state[path].device != values.device:  # a state that was loaded
                state[path] = state[path].to(values.device)
            return _sent_back(values, layer, state[path])

        return with_matrix


class DirectFeedbackAlignment(LearningRule):
    r"""The error at the last site goes straight to every other site, past all that lies between.

    .. math:: \frac{\partial L}{\partial h_i} := \frac{\partial L}{\partial h_n}\,B_i, \qquad i < n

    with h the outputs of the sites (the residual stream behind each block) and B random and fixed,
    with standard deviation ``scale``/√width. Each block then learns from the error at the top and
    from nothing in between; inside a block, gradients are true.

    Args:
        sites: At least two, one after the other; the last is where the error comes from.
        scale: Of the matrices.

    Source: Nøkland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
    equation 7; on the blocks of Transformers: Launay et al., Direct Feedback Alignment Scales to
    Modern Deep Learning Tasks and Architectures, 2020, section 3.4.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = nn.Sequential(nn.Identity(), nn.Tanh())
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> with attach(DirectFeedbackAlignment(sites=("*",)), model) as attached:
        ...     model(x).sum().backward()
        ...     matrix = attached.state["0:direct_feedback_alignment"]["matrices"]["0"]
        >>> torch.equal(x.grad, torch.ones(1, 2) @ matrix)
        True
    """

    name: ClassVar[str] = "direct_feedback_alignment"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)
    scale: float = Field(1.0, gt=0)

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """The site where the error comes from; matrices are drawn when their widths are known."""
        if len(sites) < 2:
            raise RuleError(
                f"the rule {self.name!r} needs two sites or more",
                where=", ".join(self.sites),
                why="the error goes from the last one to the others",
                next_step="name several, such as blocks.*",
            )
        return {"last": sites[-1].path, "matrices": {}}

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The error as it is at the last site, projected at the others."""
        if at.path == state["last"]:
            return gradient, state | {"error": gradient}
        error = state.get("error")
        if error is None or error.shape[:-1] != gradient.shape[:-1]:
            found = "none" if error is None else str(tuple(error.shape))
            raise RuleError(
                f"the rule {self.name!r} has no error for this site",
                where=at.path,
                why=f"{found} at {state['last']} does not fit {tuple(gradient.shape)} here",
                next_step="name sites that come one after the other, such as blocks.*",
            )
        matrices = state["matrices"]
        if at.path not in matrices:
            shape = (error.shape[-1], gradient.shape[-1])
            drawn = torch.randn(shape, generator=moment.generator(at))
            matrices[at.path] = drawn * (self.scale / shape[0] ** 0.5)
        matrices[at.path] = matrices[at.path].to(error.device)
        if at.index == 0:  # nothing below asks for it, and no checkpoint shall carry it
            state = {key: value for key, value in state.items() if key != "error"}
        return (error @ matrices[at.path].to(error.dtype)).to(gradient.dtype), state


class SentBack(torch.autograd.Function):
    """A linear layer whose backward multiplies by a given matrix in place of the weight."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        feedback: torch.Tensor,
    ) -> torch.Tensor:
        """The layer as it is: values [..., in], weight and feedback [out, in]."""
        ctx.save_for_backward(values, feedback)
        return functional.linear(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient of the values through the matrix; those of weight and bias are true."""
        values, feedback = ctx.saved_tensors
        gradient = gradients[0]
        flat = gradient.flatten(0, -2)
        of_values = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_values = (gradient @ feedback.to(gradient.dtype)).to(values.dtype)
        if ctx.needs_input_grad[1]:
            # Under autocast, the gradient is bfloat16 and the weight is not.
            inputs = values.flatten(0, -2).to(gradient.dtype)
            of_weight = (flat.transpose(0, 1) @ inputs).to(feedback.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = flat.sum(0).to(feedback.dtype)
        return of_values, of_weight, of_bias, None


def _sent_back(values: torch.Tensor, layer: nn.Module, feedback: torch.Tensor) -> torch.Tensor:
    sent: torch.Tensor = SentBack.apply(values, weight_of(layer), layer.bias, feedback)
    return sent


def _drawn_like(weight: torch.Tensor, generator: torch.Generator, scale: float) -> torch.Tensor:
    deviation = float(weight.float().std(correction=0)) or weight.shape[1] ** -0.5
    drawn = torch.randn(weight.shape, generator=generator) * (scale * deviation)
    return drawn.to(weight)
