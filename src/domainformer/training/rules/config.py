"""The part of a configuration that names learning rules."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from domainformer.config import StrictConfig
from domainformer.training.rules.chain import Chain
from domainformer.training.rules.table import make_rules


class RulesConfig(StrictConfig):
    """Learning rules of a run.

    Args:
        rules: Names, or one name with its settings, in the order in which they act.
        rule_code: Files or entry points (``module:Class``) with rules of your own.
        allow_rule_code: Whether that code may be executed.

    Example:
        >>> config = RulesConfig(rules=("z_loss", {"activation_noise": {"std": 0.1}}))
        >>> len(config.rules)
        2
    """

    rules: tuple[str | dict[str, Any], ...] = ()
    rule_code: tuple[str, ...] = ()
    allow_rule_code: bool = False

    @model_validator(mode="after")
    def _code_is_allowed(self) -> RulesConfig:
        if self.rule_code and not self.allow_rule_code:
            raise ValueError(
                f"rule_code would execute {', '.join(self.rule_code)}: "
                "read it, then set allow_rule_code: true"
            )
        return self


def configured_rules(config: RulesConfig) -> tuple[Chain, dict[str, str]]:
    """The rules of a configuration.

    Returns:
        The chain, and the SHA-256 of each source of the user's own rules.

    Raises:
        RuleError: There is no such rule, or its source cannot be used.
        ConfigError: A setting is unknown or out of range.
    """
    if not config.rule_code:
        return make_rules(config.rules), {}
    from domainformer.training.rules.external import load_rules

    own, hashes = load_rules(config.rule_code, allow=config.allow_rule_code)
    return make_rules(config.rules, own), hashes
