"""The verb `inspect`."""

import pytest

TEXT = """
from torch import nn
class Model(nn.Module):
    def forward(self, input_ids, mhsa_0_output=None):
        hidden_0 = input_ids
        return hiden_0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(TEXT)
    return path


def test_inspect_lists_names_and_writes_a_repair_when_asked(invoke, refused, file, tmp_path):
    outcome = invoke("inspect", f"{file}:Model", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["names"]["undefined"][0]["name"] == "hiden_0"
    assert outcome.json["names"]["undefined"][0]["line"] == 6
    assert outcome.json["repair"]["changes"][0] == "line 6: hiden_0 → hidden_0"
    assert not outcome.json["clean"]
    shown = invoke("inspect", f"{file}:Model")
    assert "model.py:6: hiden_0: neither the function nor its file binds it" in shown.out
    assert "+        return hidden_0" in shown.out
    assert f"next: domainformer inspect {file}:Model --repair repaired.py" in shown.err
    assert file.read_text() == TEXT

    repaired = tmp_path / "repaired.py"
    assert invoke("inspect", f"{file}:Model", "--repair", repaired).code == 0
    assert invoke("inspect", f"{repaired}:Model", "--json").json["clean"]
    assert "exists already" in refused("inspect", f"{file}:Model", "--repair", repaired)
    assert "no class" in refused("inspect", f"{file}:Modle")
    assert "cannot be read" in refused("inspect", "nowhere.py:Model")
    assert "no JSON" in refused("inspect", f"{file}:Model", "--run", "--init", "{")
    assert "it is not called" in refused("inspect", f"{file}:Model", "--init", "{}")
