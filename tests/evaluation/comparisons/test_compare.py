"""Comparing runs: what differs is named, or the comparison is refused."""

import json

import pytest
from rich.console import Console

from domainformer.errors import ArtifactError, ComparisonError
from domainformer.evaluation.comparisons import compare
from domainformer.run import source_hash

RATE = "training.learning_rate"
FAST = {"training": {"learning_rate": 0.2}}


def printed(found):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(found.render())
    return console.export_text()


def test_seeds_are_repetitions_and_settings_are_groups(seeds_of):
    slow = seeds_of("slow", [2.0, 2.2, 2.1])
    fast = seeds_of("fast", [1.5, 1.72, 1.61], config=FAST)
    found = compare([*slow, *fast], [RATE])
    base, other = found.groups
    assert (base.name, other.name) == ("learning_rate=0.1", "learning_rate=0.2")
    assert base.mean == pytest.approx(2.1)
    assert base.error == pytest.approx(0.1 / 3**0.5)
    assert (base.against, other.seeds) == (None, (0, 1, 2))
    assert other.against.difference == pytest.approx(-0.49)
    assert (other.against.test.kind, other.against.other_test.kind) == ("paired", "welch")
    assert other.against.verdict == "better"
    assert found.best is other
    assert json.loads(json.dumps(found.to_json()))["groups"][1]["setting"] == {RATE: 0.2}
    assert "better" in printed(found)
    assert not found.notes


def test_repetitions_of_one_experiment_need_no_name(seeds_of):
    found = compare(seeds_of("one", [2.0, 2.2]))
    assert [group.name for group in found.groups] == ["all runs"]
    assert found.groups[0].results["seconds"] == {"mean": 1.0, "error": 0.0}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (RATE, {"config": FAST}),
        ("model.width", {"config": {"model": {"width": 3}}}),
        ("rules", {"config": {"rules": [{"name": "lion"}]}}),
        ("rules", {"rules": ["lion"]}),
        ("rules", {"rule_sources": {"mine": "0f"}}),
        ("code", {"code": "other"}),
        ("data", {"data_fingerprint": "d1"}),
        ("tokenizer", {"tokenizer_fingerprint": "t1"}),
        ("environment", {"environment": {"packages": {"torch": "0.1"}}}),
        ("environment.device", {"resolved": {"device": "cuda"}}),
        ("plan", {"resolved": {"plan": {"rows": 4}}}),
    ],
)
def test_each_part_that_can_change_a_result_is_guarded(make_run, name, changed):
    config = changed.pop("config", {})
    one = make_run("one")
    other = make_run(
        "other", config={**config, "training": {**config.get("training", {}), "seed": 1}}, **changed
    )
    with pytest.raises(ComparisonError, match=name.split(".")[0]) as told:
        compare([one, other])
    assert f"--vary {name}" in str(told.value) or name.startswith("environment")
    assert len(compare([one, other], [name]).groups) == 2
    allowed = compare([one, other], allow=[name])
    assert len(allowed.groups) == 1
    assert any("allowed to differ" in note for note in allowed.notes)
    marked = compare([one, other], mark=True)
    assert marked.groups[1].marks
    assert "marked" in printed(marked)


def test_what_cannot_change_a_result_may_differ(make_run):
    one = make_run("one", config={"output": {"root": "a"}, "data": {"path": "a.parquet"}})
    elsewhere = {"output": {"root": "b"}, "data": {"path": "moved.parquet"}}
    quiet = {"training": {"quiet": True, "log_every": 3, "threads": 2, "seed": 1}}
    other = make_run("other", config={**elsewhere, **quiet})
    assert len(compare([one, other]).groups) == 1


def test_what_follows_from_a_name_needs_none(make_run):
    """More bins make another tokenizer; but among equal bins another tokenizer is unexplained."""
    bins = {"tokenizer": {"bins": 8}}
    one = make_run("one", config={"tokenizer": {"bins": 4}})
    other = make_run("other", config=bins, tokenizer_fingerprint="t8")
    found = compare([one, other], ["tokenizer.bins"])
    assert [group.name for group in found.groups] == ["bins=4", "bins=8"]
    assert any("per token" in note for note in found.notes)
    odd = make_run("odd", config={**bins, "training": {"seed": 1}}, tokenizer_fingerprint="t9")
    with pytest.raises(ComparisonError, match="tokenizer: t8 in other; t9 in odd|tokenizer"):
        compare([one, other, odd], ["tokenizer.bins"])
    with pytest.raises(ComparisonError, match="tokenizer"):  # a rate explains no tokenizer
        compare([make_run("r", config=FAST), other], [RATE])


def test_files_are_called_by_what_is_in_them(make_run):
    def run(name, path, content, seed):
        config = {"data": {"path": path}, "training": {"seed": seed}}
        return make_run(name, config=config, data_fingerprint=content)

    one, moved = run("one", "a.txt", "d1", 0), run("moved", "b.txt", "d1", 1)
    assert len(compare([one, moved]).groups) == 1
    other = run("other", "a.txt", "d2", 1)
    with pytest.raises(ComparisonError, match="--vary data"):
        compare([one, other])
    assert len(compare([one, other], ["data.path"]).groups) == 2
    rules = make_run("r", config={"training": {"rules": ["lion"], "seed": 5}})
    assert len(compare([make_run("p"), rules], ["training.rules"]).groups) == 2


def test_a_resumed_run_whose_code_changed_is_another(make_run):
    one = make_run("one", code=source_hash())
    both = make_run("both", code=f"{source_hash()}+later", config={"training": {"seed": 1}})
    with pytest.raises(ComparisonError, match="code"):
        compare([one, both])


def test_runs_of_older_versions_are_read(make_run):
    folders = [make_run("one"), make_run("two", config={"training": {"seed": 1}})]
    for folder in folders:
        record = json.loads((folder / "run.json").read_text())
        del record["identity"], record["rule_sources"]
        (folder / "run.json").write_text(json.dumps(record))
    assert len(compare(folders).groups) == 1
    with pytest.raises(ComparisonError, match="code"):  # whether the code is the same is not known
        compare([folders[0], make_run("new", config={"training": {"seed": 2}})])


def test_one_experiment_twice_is_refused(make_run):
    with pytest.raises(ComparisonError, match="one experiment done twice"):
        compare([make_run("one"), make_run("again")], mark=True)
    one = make_run("single")
    with pytest.raises(ComparisonError, match="named twice"):
        compare([one, one])
    with pytest.raises(ComparisonError, match="nothing to compare"):
        compare([one])
    with pytest.raises(ArtifactError, match="not a run folder"):
        compare([one, one.parent])


def test_runs_without_a_result(make_run, seeds_of):
    done = seeds_of("done", [2.0, 2.2])
    stopped = make_run("stopped", config={"training": {"seed": 9}}, finish=False)
    with pytest.raises(ComparisonError, match=r"stopped \(running\)"):
        compare([*done, stopped])
    found = compare([*done, stopped], mark=True)
    assert len(found.groups[0].runs) == 2
    assert "left out" in found.notes[0]


def test_names_and_figures_that_do_not_exist_are_told_with_the_nearest(seeds_of):
    runs = seeds_of("run", [2.0, 2.2])
    with pytest.raises(ComparisonError, match="did you mean 'training.learning_rate'"):
        compare(runs, ["training.learnig_rate"])
    with pytest.raises(ComparisonError, match="did you mean 'seconds'"):
        compare(runs, metric="second")
    assert compare(runs, [RATE]).notes == (f"{RATE} is the same in all runs",)
    assert compare(runs, metric="steps", higher_is_better=True).higher_is_better


def test_the_test_follows_from_the_seeds_not_from_the_outcome(seeds_of):
    slow = seeds_of("slow", [2.0, 2.3, 2.6])
    fast = seeds_of("fast", [1.9, 2.2, 2.51], config=FAST)
    assert compare([*slow, *fast], [RATE]).groups[1].against.verdict == "better"
    other = seeds_of("other", [1.9, 2.2, 2.51], first=7, config=FAST)
    found = compare([*slow, *other], [RATE])
    assert found.groups[1].against.test.kind == "welch"
    assert found.groups[1].against.verdict == "even"
    assert any("not all settings" in note for note in found.notes)


def test_one_seed_decides_nothing(make_run):
    found = compare([make_run("a"), make_run("b", loss=1.0, config=FAST)], [RATE])
    assert found.groups[1].against.verdict == "unknown"
    assert any("one seed" in note for note in found.notes)
    same = compare([make_run("c"), make_run("d", config=FAST)], [RATE])
    assert same.groups[1].against.verdict == "even"


def test_curves_are_told_where_all_seeds_tell_them(make_run):
    one = make_run("one", curve=[(1, 4.0), (2, 3.0), (3, 2.0)])
    two = make_run("two", curve=[(1, 6.0), (3, 2.0), (3, 4.0)], config={"training": {"seed": 1}})
    (curve,) = compare([one, two]).curves
    assert (curve.steps, curve.mean) == ((1, 3), (5.0, 3.0))
    assert curve.high == pytest.approx((6.0, 4.0))
    long = make_run("long", curve=[(i, 1.0) for i in range(5000)], config={"training": {"seed": 2}})
    (curve,) = compare(
        [
            long,
            make_run(
                "also", curve=[(i, 1.0) for i in range(5000)], config={"training": {"seed": 3}}
            ),
        ]
    ).curves
    assert len(curve.steps) == 200
    assert (curve.steps[0], curve.steps[-1]) == (0, 4999)


def test_rules_are_named_by_what_they_are(make_run):
    one = make_run("one", config={"rules": []})
    two = make_run("two", config={"rules": [{"name": "lion"}, {"name": "clip", "norm": 1.0}]})
    three = make_run("three", config={"rules": [{"name": "x" * 80, "a": 1}]})
    four = make_run("four", config={"rules": [{"name": "x" * 80, "a": 2}]})
    names = [group.name for group in compare([one, two, three, four], ["rules"]).groups]
    assert names[:2] == ["rules=none", "rules=lion + clip(norm=1.0)"]
    assert len(set(names)) == 4
