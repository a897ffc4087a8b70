"""One table of all learning rules, for the tests that hold for every one of them.

A line is the rule's settings in a configuration, strong enough that four steps of a tiny model
show the difference. ``{teacher}`` stands for the folder of a tiny model.
"""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    # Values
    "activation_noise": {"std": 0.5},
    "activation_dropout": {"rate": 0.5, "unit": "token"},
    "stochastic_depth": {"rate": 0.5},
    "head_dropout": {"rate": 0.5},
    "activation_clamp": {"limit": 0.01},
    "activation_norm": {"kind": "layer"},
    "residual_scaling": {"scale": 0.5, "depth_power": 0.5},
    "norm_scaling": {},
    "replace_activation": {"function": "squared_relu"},
    "attention_temperature": {"temperature": 0.25},
    "attention_softcap": {"cap": 0.001},
    "attention_window": {"size": 2},
    "qk_norm": {"gain": 3.0},
    "activation_recorder": {"every": 2},
    # Gradients at sites
    "straight_through": {"operation": "ternary", "gradient": "clipped", "limit": 2.0},
    "sign_gradient": {},
    "feedback_alignment": {},
    "direct_feedback_alignment": {},
    "gradient_noise": {"eta": 1.0},
    "gradient_clipping_at_site": {"limit": 0.5},
    "stochastic_rounding": {},
    # Gradients of the weights, optimizers, weights
    "clip_gradient_value": {"value": 0.001},
    "clip_gradient_norm": {"norm": 0.01, "per": "tensor"},
    "adaptive_gradient_clipping": {"factor": 0.0001},
    "centralise_gradient": {},
    "sign_of_gradient": {},
    "adamw": {"betas": [0.5, 0.9], "groups": [{"parameters": ["embedding"], "weight_decay": 1}]},
    "sgd": {"learning_rate": 0.1},
    "lion": {},
    "muon": {"every": 2, "scale": "adamw"},
    "lookahead": {"every": 2},
    "ema_weights": {"decay": 0.5},
    "schedule_free": {"warmup": 2},
    # Loss
    "z_loss": {"weight": 0.1},
    "label_smoothing": {},
    "confidence_penalty": {},
    "activation_sparsity": {"weight": 1.0, "measure": "hoyer"},
    "orthogonality": {"weight": 1.0},
    "distillation": {"teacher": "{teacher}"},
}

# Settings with which a rule does nothing: the curve is bit-identical to that without it.
WEAK: dict[str, dict[str, Any]] = {
    "activation_noise": {"std": 0},
    "activation_dropout": {"rate": 0},
    "stochastic_depth": {"rate": 0},
    "head_dropout": {"rate": 0},
    "activation_clamp": {"limit": 1e30},
    "residual_scaling": {"scale": 1},
    "norm_scaling": {"depth_power": 0},
    "replace_activation": {"function": "gelu"},
    "attention_temperature": {"temperature": 1},
    "attention_window": {"size": 1000},
    "activation_recorder": {},
    "sign_gradient": {"strength": 0},
    "gradient_noise": {"eta": 0},
    "gradient_clipping_at_site": {"limit": 1e30},
    "clip_gradient_value": {"value": 1e30},
    "clip_gradient_norm": {"norm": 1e30},
    "adaptive_gradient_clipping": {"factor": 1e30},
    "centralise_gradient": {"strength": 0},
    "sign_of_gradient": {"strength": 0},
    "lookahead": {"every": 2, "alpha": 1},
    "ema_weights": {},
    "z_loss": {"weight": 0},
    "label_smoothing": {"weight": 0},
    "confidence_penalty": {"weight": 0},
    "activation_sparsity": {"weight": 0},
    "orthogonality": {"weight": 0},
    "distillation": {"teacher": "{teacher}", "weight": 0},
}

# Rules whose further steps depend on what they remember: a resume that loses it must differ.
REMEMBERS: frozenset[str] = frozenset(
    {
        "feedback_alignment",
        "direct_feedback_alignment",
        "lookahead",
        "ema_weights",
        "schedule_free",
    }
)

# Rules that look and leave the curve as it is.
SILENT: frozenset[str] = frozenset({"activation_recorder"})
