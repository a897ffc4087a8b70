"""What will be trained: the base and its variants, as complete configurations, before anything is.

All mistakes of a configuration show here. The plan is written into the folder of the ablation, and
a folder that was begun with another base, other data or another way of judging is refused, so that
one table never holds figures that were made differently. Further variants and seeds may be added.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.artifacts import fingerprint, write_json
from domainformer.config import build
from domainformer.errors import ArtifactError, ConfigError, nearest
from domainformer.evaluation.ablations.axes import AXES, BASE, Base, Skip, Variant
from domainformer.evaluation.ablations.variants import variants_of
from domainformer.run import flatten
from domainformer.training.config import MAY_DIFFER_ON_RESUME, RunConfig
from domainformer.training.engine import model_settings

PLAN_FILE = "plan.json"
FORMAT = 1
# Seeds and folders are those of the ablation; of the schema its content is compared, not its path.
_NOT_OF_THE_BASE = MAY_DIFFER_ON_RESUME | {"output.name", "schema", "training.seed"}


@dataclass(frozen=True)
class Plan:
    """What will be trained.

    Args:
        base: What is varied.
        variants: The base itself, and then all variants, axis after axis.
        axes: The axes in order.
        notes: What does not apply, in words.
    """

    base: Base
    variants: tuple[Variant, ...]
    axes: tuple[str, ...]
    notes: tuple[str, ...]

    def of_axis(self, axis: str) -> list[Variant]:
        """The variants of one axis."""
        return [variant for variant in self.variants if variant.axis == axis]


def make_plan(
    base: Base, given: Mapping[str, Any] | None, wanted: Sequence[str] | None = None
) -> Plan:
    """Find the variants of all axes that were asked for.

    Args:
        base: What is varied.
        given: Axes of the configuration; None: all of ours.
        wanted: Only these axes, of those given or of ours.

    Raises:
        ConfigError: There is no such axis, or a variant is no valid configuration.
    """
    axes = dict(given) if given is not None else dict.fromkeys(AXES)
    if wanted is not None:
        known = {**dict.fromkeys(AXES), **axes}
        for name in wanted:
            if name not in known:
                raise ConfigError(f"there is no axis {name!r}", next_step=nearest(name, known))
        axes = {name: known[name] for name in wanted}
    if BASE in axes:
        raise ConfigError(f"an axis cannot be called {BASE!r}", where="axes")
    found: list[Variant] = [Variant(BASE, BASE)]
    notes: list[str] = []
    for name, values in axes.items():
        for one in variants_of(base, name, values):
            if isinstance(one, Skip):
                notes.append(f"{one.axis}: {one.why}")
            else:
                found.append(one)
    _check_names(found)
    for variant in found:
        config = config_of(base.config, variant)
        model_settings(config.model, 1024, config.training.context)
    tried = tuple(name for name in axes if any(variant.axis == name for variant in found))
    return Plan(base, tuple(found), tried, tuple(notes))


def config_of(base: RunConfig, variant: Variant) -> RunConfig:
    """The complete configuration of a variant.

    Raises:
        ConfigError: An override does not fit.
    """
    where = f"axis {variant.axis}, variant {variant.name}"
    return build(RunConfig, with_values(base.model_dump(), variant.overrides), where=where)


def with_values(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of a run with others at dotted keys.

    Args:
        values: Plain values of a configuration.
        overrides: Dotted keys and their values.

    Example:
        >>> with_values({"training": {"max_steps": 5}}, {"training.epochs": 2, "model.preset": "a"})
        {'training': {'max_steps': None, 'epochs': 2}, 'model': {'preset': 'a'}}
    """
    result = copy.deepcopy(dict(values))
    for key, value in overrides.items():
        *parents, leaf = key.split(".")
        node = result
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
        if isinstance(result.get("training"), dict):
            _one_length(result["training"], leaf)
    return result


def _one_length(training: dict[str, Any], changed: str) -> None:
    """A variant that says how long to train replaces what the base said."""
    lengths = ("max_steps", "max_tokens", "epochs")
    if changed in lengths:
        others = (name for name in lengths if name != changed and name in training)
        training.update(dict.fromkeys(others))


def _check_names(variants: Iterable[Variant]) -> None:
    taken: dict[str, Variant] = {}
    for variant in variants:
        # Some file systems do not tell capitals from small letters.
        other = taken.setdefault(variant.folder.lower(), variant)
        if other is not variant:
            raise ConfigError(
                f"two variants would be kept in the folder {variant.folder!r}",
                where=f"axes {other.axis} ({other.name}) and {variant.axis} ({variant.name})",
                next_step="name a value once, or rename the axis",
            )


def claim(folder: Path, plan: Plan, judged: Mapping[str, Any]) -> None:
    """Write the plan, or make sure that the folder was begun with the same base.

    Args:
        folder: Of the ablation.
        plan: What will be trained.
        judged: How variants are judged, and on what: plain data.

    Raises:
        ConfigError: The folder holds runs of another base, of other data, or judged differently;
            all differences are told.
        ArtifactError: The plan in the folder cannot be read.
    """
    base = flatten(plan.base.config.model_dump(mode="json"))
    now = {
        "format": FORMAT,
        "base": {key: value for key, value in base.items() if key not in _NOT_OF_THE_BASE},
        "schema": plan.base.schema.model_dump(mode="json"),
        "judged": dict(judged),
        "variants": {variant.folder: variant.definition() for variant in plan.variants},
    }
    now = json.loads(json.dumps(now, default=str))
    path = folder / PLAN_FILE
    if path.exists():
        then = _read(path)
        changed = [*_differences(then, now)]
        if changed:
            raise ConfigError(
                f"the ablation {folder} was begun with another configuration",
                why="\n         ".join(changed),
                next_step="take it back, or write to another folder (--out DIR)",
            )
        now["variants"] = {**then["variants"], **now["variants"]}
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"the folder {folder} is in use",
            why=f"it is not empty, and has no {PLAN_FILE} of an ablation",
            next_step="write to another folder (--out DIR)",
        )
    write_json(path, now)


def _differences(then: dict[str, Any], now: dict[str, Any]) -> Iterable[str]:
    if then["format"] != now["format"]:
        yield f"format {then['format']} then, {now['format']} now"
        return
    for part in ("base", "judged"):
        for key in sorted(then[part].keys() | now[part].keys()):
            before, after = then[part].get(key), now[part].get(key)
            if before != after:
                yield f"{key}: {before!r} then, {after!r} now"
    if then["schema"] != now["schema"]:
        before, after = fingerprint(then["schema"]), fingerprint(now["schema"])
        yield f"schema: {before} then, {after} now"
    for name in then["variants"].keys() & now["variants"].keys():
        if then["variants"][name] != now["variants"][name]:
            yield f"the variant {name} means something else now"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"format", "base", "schema", "judged", "variants"} <= found.keys():
            raise ValueError("a part is missing")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read", why=str(error), next_step="choose another folder (--out DIR)"
        ) from error
    return found
