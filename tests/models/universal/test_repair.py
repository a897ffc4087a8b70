"""A generated model of the flat kind: inspected, repaired on request, trained."""

import ast
import importlib.util

import pytest
import torch

from domainformer.errors import AdapterError
from domainformer.models.universal import analyse, bind, inspect_file, propose_repair
from domainformer.models.universal.repair import closest

from .corpus.broken import FlatBroken, MissingPart, UsedBeforeBound
from .corpus.case import V
from .corpus.files import GENERATED


@pytest.fixture
def generated(tmp_path):
    """The file that a generator wrote."""
    path = tmp_path / "generated.py"
    path.write_text(GENERATED)
    return path


def _import(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Flat


def _lines(text, marker):
    return [n for n, line in enumerate(text.splitlines(), 1) if marker in line]


def test_inspect_verdict_repair_train(generated, tmp_path):
    found = inspect_file(generated, "Flat")
    undefined = [(f["name"], f["line"]) for f in found.names["undefined"]]
    assert undefined == [("embedding_0_output", _lines(GENERATED, "# undefined")[0])]
    dead = [(f["name"], f["line"]) for f in found.names["dead"]]
    assert dead == [("debug_output", _lines(GENERATED, "# dead")[0])]
    overwritten = {f["name"]: f["line"] for f in found.names["overwritten"]}
    lines = _lines(GENERATED, "# overwrites")
    names = ["embedding_0_token_output", "mhsa_0_output", "residual_0_output"]
    assert overwritten == dict(zip(names, lines, strict=True))
    assert found.signature["layout"] == "flat"
    assert not found.clean
    with pytest.raises(NameError, match="embedding_0_output"):
        bind(_import(generated)())(torch.zeros(1, 2, dtype=torch.long))

    target = found.repair.write(tmp_path / "repaired.py")
    assert generated.read_text() == GENERATED
    assert inspect_file(target, "Flat").names["undefined"] == []
    torch.manual_seed(0)
    model = _import(target)()
    bound = bind(model)
    assert [p.name for p in bound.inspector.parameters] == ["input_0_tokens"]
    assert _trains(bound)
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def _trains(bound):
    ids = torch.randint(V, (4, 12), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(bound.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = bound(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] < 0.5 * losses[0]


def test_a_repair_is_a_diff_until_it_is_written(generated, tmp_path):
    repair = inspect_file(generated, "Flat").repair
    assert "-        residual_0_output = embedding_0_output + mhsa_0_output" in repair.diff
    assert "+        residual_0_output = embedding_0_token_output + mhsa_0_output" in repair.diff
    assert repair.left == ()
    ast.parse(repair.source)
    assert list(tmp_path.iterdir()) == [generated]
    with pytest.raises(AdapterError, match="exists already"):
        repair.write(generated)
    with pytest.raises(AdapterError, match="would run it"):
        repair.load()
    assert analyse(repair.load(trust=True)()).undefined == ()


def test_a_model_in_memory_is_repaired_too():
    repair = propose_repair(FlatBroken())
    assert repair.changes[0].endswith("embedding_0_output → embedding_0_token_output")
    assert len(repair.changes) == 4


def test_a_missing_part_takes_the_near_one_that_is_unused():
    repair = propose_repair(MissingPart())
    assert repair.changes == (f"line {_line(MissingPart, 1)}: mixer → mix",)
    assert "self.mix(self.emb(input_ids))" in repair.source


def _line(kind, offset):
    return kind.forward.__code__.co_firstlineno + offset


def test_what_has_no_single_reading_is_left():
    repair = propose_repair(UsedBeforeBound())
    assert [finding.name for finding in repair.left] == ["h"]
    assert repair.diff == ""
    assert closest("h_1", ["h_2", "k_1x"]) is None
    assert closest("out_a", ["out_b", "out_c"]) is None
