"""The verb ``export``."""

from domainformer.export import ExportedModel


def test_a_run_in_another_format(invoke, run, tmp_path):
    out = tmp_path / "out"
    told = invoke("export", run, "--format", "pt2", "--output", out, "--json")
    assert told.code == 0, told
    [file] = told.json["files"]
    assert file["format"] == "pt2"
    assert file["parity"]["difference"] <= told.json["tolerance"]
    assert "schema.yaml" in told.json["preprocessing"]
    assert [one["name"] for one in ExportedModel(out).inputs] == [
        "input_ids",
        "attention_mask",
    ]
    assert "ExportedModel(" in told.err


def test_bad_input_is_refused(refused, run, tmp_path):
    out = ("--output", tmp_path / "out")
    assert "did you mean 'onnx'" in refused("export", run, "--format", "onx", *out)
    assert "there is no folder" in refused("export", tmp_path / "none", *out)
    (tmp_path / "empty").mkdir()
    assert "is no model folder" in refused("export", tmp_path / "empty", *out)
    assert "Invalid value" in refused("export", run, "--what", "answers", *out)
    assert not (tmp_path / "out").exists()
