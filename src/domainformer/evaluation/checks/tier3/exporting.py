"""Export parity: can another runtime run it, with the same answer?"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from domainformer.errors import ExportError, MissingExtraError
from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import (
    Classifier,
    LanguageModel,
    Subject,
    Unanswerable,
)
from domainformer.export import export_model
from domainformer.export.parity import TOLERANCE
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.verdict import CheckResult

_SIZES = ((1, 1), (1, 5), (2, 7), (3, 16), (5, 33))


def check_export(context: Context) -> CheckResult:
    """An exported copy gives PyTorch's logits within 1e-4, on five shapes."""
    own = context.subject.copied()
    form = context.export_format
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Exporters warn of what they themselves call; what matters is compared.
        warnings.simplefilter("ignore")
        try:
            report = export_model(
                own.model,
                Path(folder) / "out",
                formats=[form],
                inputs=_inputs(own),
                shapes=_shapes(own),
            )
        except MissingExtraError as error:
            raise Unanswerable(f"{error.what}: {error.next_step}") from error
        except ExportError as error:
            why = f"{error.what} ({error.why})" if error.why else error.what
            remedy = error.next_step or "docs/export.md tells what exporters cannot hold"
            return CheckResult("export_parity", "fail", why, remedy, None, TOLERANCE)
    parity = report.files[0].parity
    if parity is None:
        raise Unanswerable(report.files[0].remark or f"no {form} file could be had")
    told = f"{form}: {parity.difference:.1e} from PyTorch at most, on {len(parity.shapes)} shapes"
    return CheckResult("export_parity", "pass", told, None, parity.difference, TOLERANCE)


def _native(own: Subject) -> bool:
    return isinstance(unwrapped(own.model), PreTrainedModel)


def _inputs(own: Subject) -> Any:
    """What a module of the user's own reads; models of known kinds say so themselves."""
    if _native(own):
        return None
    if isinstance(own, Classifier):
        return own.specs
    if not isinstance(own, LanguageModel):
        return None
    ids = torch.zeros(2, 7, dtype=torch.long)
    ids[0, 0] = own.vocab_size - 1
    return {own.bound.inspector.of(Role.TOKENS)[0]: ids}


def _shapes(own: Subject) -> list[dict[str, int]] | None:
    """Sizes to compare on, within the context of a module of the user's own."""
    if _native(own) or own.longest is None:
        return None
    return [{"batch": rows, "length": min(length, own.longest)} for rows, length in _SIZES]
