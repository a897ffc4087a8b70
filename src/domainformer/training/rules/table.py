"""All rules by name, and how a configuration names them.

::

    rules:
      - z_loss                                   # with its defaults
      - activation_noise: {std: 0.1, sites: [blocks.*.mlp]}

A new rule is one file in one of the four folders, and one line here. Classes are imported when
they are asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from domainformer.config import build
from domainformer.errors import ConfigError, RuleError, nearest
from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.chain import Chain, chain

# Name: module below domainformer.training.rules, and class in it.
RULES: dict[str, str] = {
    # Values
    "activation_noise": "forward.noise:ActivationNoise",
    "activation_dropout": "forward.dropout:ActivationDropout",
    "stochastic_depth": "forward.dropout:StochasticDepth",
    "head_dropout": "forward.dropout:HeadDropout",
    "activation_clamp": "forward.clamp:ActivationClamp",
    "activation_norm": "forward.normalise:ActivationNorm",
    "residual_scaling": "forward.scaling:ResidualScaling",
    "norm_scaling": "forward.scaling:NormScaling",
    "replace_activation": "forward.nonlinearity:ReplaceActivation",
    "attention_temperature": "forward.attention:AttentionTemperature",
    "attention_softcap": "forward.attention:AttentionSoftcap",
    "attention_window": "forward.attention:AttentionWindow",
    "qk_norm": "forward.attention:QueryKeyNorm",
    "activation_recorder": "forward.recorder:ActivationRecorder",
    # Gradients at sites
    "straight_through": "backward.straight_through:StraightThrough",
    "sign_gradient": "backward.signs:SignGradient",
    "feedback_alignment": "backward.feedback:FeedbackAlignment",
    "direct_feedback_alignment": "backward.feedback:DirectFeedbackAlignment",
    "gradient_noise": "backward.noise:GradientNoise",
    "gradient_clipping_at_site": "backward.clipping:GradientClippingAtSite",
    "stochastic_rounding": "backward.rounding:StochasticRounding",
    # Gradients of the weights, optimizers, weights
    "clip_gradient_value": "update.clipping:ClipGradientValue",
    "clip_gradient_norm": "update.clipping:ClipGradientNorm",
    "adaptive_gradient_clipping": "update.clipping:AdaptiveGradientClipping",
    "centralise_gradient": "update.direction:CentraliseGradient",
    "sign_of_gradient": "update.direction:SignOfGradient",
    "adamw": "update.standard:AdamW",
    "sgd": "update.standard:SGD",
    "lion": "update.lion:Lion",
    "muon": "update.muon:Muon",
    "lookahead": "update.averages:Lookahead",
    "ema_weights": "update.averages:EMAWeights",
    "schedule_free": "update.averages:ScheduleFree",
    # Loss
    "z_loss": "auxiliary.z_loss:ZLoss",
    "label_smoothing": "auxiliary.smoothing:LabelSmoothing",
    "confidence_penalty": "auxiliary.smoothing:ConfidencePenalty",
    "activation_sparsity": "auxiliary.sparsity:ActivationSparsity",
    "orthogonality": "auxiliary.orthogonality:Orthogonality",
    "distillation": "auxiliary.distillation:Distillation",
}


def rule_class(
    name: str, own: Mapping[str, type[LearningRule]] | None = None
) -> type[LearningRule]:
    """The class of a rule.

    Args:
        name: As in the configuration.
        own: Rules of the user, by name; they cannot take the name of a built-in rule.

    Raises:
        RuleError: There is no such rule; the nearest name is told.
    """
    if own and name in own:
        return own[name]
    if name not in RULES:
        raise RuleError(
            f"there is no learning rule {name!r}", next_step=nearest(name, [*RULES, *(own or {})])
        )
    module, _, attribute = RULES[name].partition(":")
    found: type[LearningRule] = getattr(
        importlib.import_module(f"domainformer.training.rules.{module}"), attribute
    )
    return found


def make_rules(
    items: Sequence[str | Mapping[str, Any]],
    own: Mapping[str, type[LearningRule]] | None = None,
) -> Chain:
    """A chain of the rules that a configuration names, in its order.

    Args:
        items: Names, or mappings of one name to its settings.
        own: Rules of the user, by name.

    Raises:
        RuleError: There is no such rule.
        ConfigError: A setting is unknown or out of range, or two rules bring an optimizer.

    Example:
        >>> make_rules([]).rules
        ()
    """
    made = []
    for place, item in enumerate(items):
        name, settings = _named(item, place)
        where = f"rules[{place}].{name}"
        made.append(build(rule_class(name, own), settings, where=where))
    return chain(*made)


def _named(item: str | Mapping[str, Any], place: int) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, settings),) = item.items()
        if settings is None:
            return str(name), {}
        if isinstance(settings, Mapping):
            return str(name), settings
    raise ConfigError(
        f"a rule is a name, or one name with its settings, not {item!r}",
        where=f"rules[{place}]",
        next_step="for example: - activation_noise: {std: 0.1}",
    )
