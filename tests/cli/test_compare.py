"""The verbs compare and sweep: tables, pages, JSON alone on stdout, refusals with exit code 2."""

from __future__ import annotations

import pytest

from domainformer.run import start_run


@pytest.fixture
def runs(tmp_path):
    """Two rates with two seeds."""
    folders = []
    for rate in (0.1, 0.2):
        for seed in (0, 1):
            config = {"training": {"learning_rate": rate, "seed": seed}}
            run = start_run(tmp_path / "runs", f"r{rate}-{seed}", kind="pretrain", config=config)
            run.finish({"eval_loss": 2.0 - rate + seed / 10 + rate * seed / 100})
            folders.append(run.directory)
    return folders


def test_a_table_a_page_and_json(invoke, runs, tmp_path):
    outcome = invoke("compare", *runs, "--vary", "training.learning_rate")
    assert outcome.code == 0, outcome.err
    assert "learning_rate=0.2" in outcome.out
    assert "--out comparison" in outcome.err
    out = tmp_path / "found"
    arguments = ("--vary", "training.learning_rate", "--out", out, "--json")
    outcome = invoke("compare", *runs, *arguments)
    assert [group["seeds"] for group in outcome.json["groups"]] == [[0, 1], [0, 1]]
    assert f"wrote {out / 'report.html'}" in outcome.err
    assert (out / "comparison.json").is_file()


def test_refusals_tell_the_way_out(refused, runs, invoke, tmp_path):
    message = refused("compare", *runs)
    assert "differ in more than what is compared" in message
    assert "training.learning_rate: 0.1 in r0.1-0, r0.1-1; 0.2 in" in message
    assert "--vary training.learning_rate" in message
    assert "did you mean" in refused("compare", *runs, "--vary", "training.learing_rate")
    assert "is not a run folder" in refused("compare", runs[0], tmp_path)
    marked = invoke("compare", *runs, "--mark")
    assert marked.code == 0, marked.err
    assert "(marked)" in marked.out
    assert "allowed to differ" in invoke("compare", runs[0], runs[3], "--allow", "training").out


def test_a_sweep_is_trained_compared_and_gone_on_with(invoke, refused, table, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(
        f"data: {{path: {table}, entity: client_id, time: timestamp, label: label}}\n"
        "model: {overrides: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}}\n"
        "tokenizer: {bpe_vocab_size: 256}\n"
        "training: {context: 128, batch_tokens: 2048, max_steps: 1, eval_rows: 2}\n"
    )
    grid = tmp_path / "sweep.yaml"
    grid.write_text(f"base: {base}\nvary: {{training.learning_rate: [0.001, -1]}}\n")
    arguments = ("sweep", grid, "--seeds", "0,1", "--out", tmp_path / "found")
    assert "training.learning_rate" in refused(*arguments)
    assert not (tmp_path / "found").exists()
    outcome = invoke(*arguments, "vary.training.learning_rate=[0.001]", "--json")
    assert outcome.code == 0, outcome.err
    assert [cell["status"] for cell in outcome.json["cells"]] == ["finished", "finished"]
    assert (tmp_path / "found" / "report.html").is_file()
    assert "next: domainformer report" in outcome.err
    base.write_text(base.read_text().replace(str(table), "absent.parquet"))
    outcome = invoke(*arguments, "vary.training.learning_rate=[0.001, 0.002]")
    assert outcome.code == 2, outcome.err  # another table is another base: nothing is left of it
    assert "0 of 4 runs succeeded" in outcome.err
