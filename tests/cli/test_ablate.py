"""The verb ablate: a table, a page, JSON alone on stdout, and errors that teach."""

from __future__ import annotations


def test_from_a_run_folder_with_one_axis(invoke, run, tmp_path):
    out = tmp_path / "found"
    arguments = (
        *("ablate", run, "ablation.max_events=10", "ablation.samples=2", "ablation.folds=2"),
        *("axes={position: [rope]}", "--axis", "position", "--seeds", "1", "--out", out),
    )
    outcome = invoke(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert [row["variant"] for row in outcome.json["rows"]] == ["base", "rope"]
    assert outcome.json["subject"]["seeds"] == [1]
    assert f"wrote {out / 'report.html'}" in outcome.err
    again = invoke(*arguments)  # nothing is left to train
    assert again.code == 0, again.err
    assert "rope" in again.out
    assert (out / "ablation.json").is_file()


def test_mistakes_are_refused_before_anything_is_written(refused, run, tmp_path):
    out = tmp_path / "found"
    message = refused("ablate", run, "--axis", "contxt", "--out", out)
    assert "there is no axis 'contxt'" in message
    assert "did you mean 'context'?" in message
    assert "training.max_stpes" in refused("ablate", run, "training.max_stpes=3", "--out", out)
    assert "different numbers" in refused("ablate", run, "--seeds", "1,1", "--out", out)
    assert "is in use" in refused("ablate", run, "--axis", "position", "--out", run)
    assert not out.exists()


def test_a_source_that_is_neither_file_nor_run(refused, tmp_path):
    assert "is not a run folder" in refused("ablate", tmp_path)
    assert "there is no file" in refused("ablate", tmp_path / "absent.yaml")
