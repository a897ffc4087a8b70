"""Every module of the corpus gets the verdict that is expected of it."""

import pytest
import torch

from domainformer.errors import AdapterError, UnresolvedInput
from domainformer.models.universal import ModelSignatureInspector, analyse, bind

from .corpus import architectures, broken, signatures
from .corpus.case import V

CASES = [*signatures.CASES, *architectures.CASES, *broken.CASES]
IDS = torch.arange(8).view(2, 4)

# torch's own warning about what one of these modules is made of.
pytestmark = pytest.mark.filterwarnings("ignore:.*TorchScript:DeprecationWarning")


def test_the_corpus_is_broad():
    assert len({case.make for case in CASES}) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.outcome}")
def test_verdict(case):
    torch.manual_seed(0)
    model = case.make().eval()
    _check_names(case, model)
    inspector = ModelSignatureInspector(model, case.bind.get("roles"))
    roles = {p.name: p.role.value for p in inspector.parameters}
    assert roles.items() >= case.roles.items(), inspector.render()
    if case.layout is not None:
        assert inspector.layout == case.layout, inspector.layout_why
    if case.outcome == "refused":
        with pytest.raises(UnresolvedInput) as refused:
            bind(model, **case.bind)
        assert case.says in str(refused.value), refused.value
        return
    bound = bind(model, **case.bind)
    mask = torch.ones_like(IDS)
    if case.outcome == "fails":
        with pytest.raises(AdapterError) as failed:
            bound(IDS, attention_mask=mask, **case.call)
        assert case.says in str(failed.value), failed.value
        return
    if case.outcome == "foreign":
        # The model's own mistake; the names told it before.
        with pytest.raises((NameError, AttributeError), match=case.says):
            bound(IDS, **case.call)
        return
    output = bound(IDS, attention_mask=mask, labels=IDS, **case.call)
    assert output.logits.shape == (*IDS.shape, V)
    assert torch.isfinite(output.loss)
    output.loss.backward()


def _check_names(case, model):
    found = analyse(model)
    if case.unknown is not None:
        assert case.unknown in found.unknown
        assert found.undefined == found.dead == found.overwritten == ()
        return
    assert found.unknown is None
    for kind in ("undefined", "dead", "overwritten"):
        names = tuple(finding.name for finding in getattr(found, kind))
        assert names == getattr(case, kind), found.render()
