"""Sweeps: complete configurations first, every run once, failures told, the rest goes on."""

import json

import pytest

from domainformer.config import build
from domainformer.data.simulate import simulate
from domainformer.errors import ArtifactError, ComparisonError, ConfigError, DataError
from domainformer.evaluation.comparisons import SweepConfig, sweep
from domainformer.evaluation.comparisons.plan import make_cells
from domainformer.run import lock_directory, read_run, resume_run, start_run
from domainformer.training import pretrain

RATE = "training.learning_rate"


@pytest.fixture
def grid(tmp_path):
    """``grid(vary={…}, seeds=[…])``: a sweep below ``tmp_path``."""
    (tmp_path / "base.yaml").write_text("data: {path: cards.parquet}\ntraining: {max_steps: 4}\n")

    def make(**values):
        usual = {"seeds": [0, 1], "vary": {RATE: [0.1, 0.2]}, "base": str(tmp_path / "base.yaml")}
        output = {"root": str(tmp_path), "name": "found"}
        return build(SweepConfig, {**usual, "output": output, **values})

    return make


class Pretend:
    """A training that takes no time; ``fails`` and ``stops`` say where it does not end."""

    def __init__(self, fails=(), stops=()):
        self.fails, self.stops, self.done = fails, stops, []

    def __call__(self, config):
        training, place = config.training, config.output
        at = (training.learning_rate, training.seed)
        self.done.append(at)
        if at in self.fails:
            raise DataError("the table is empty", why="it has no rows")
        folder = f"{place.root}/{place.name}"
        try:
            run = resume_run(folder, config)
        except ArtifactError:
            run = start_run(place.root, place.name, kind="pretrain", config=config)
        with run:
            run.update(status="running", resolved={"plan": {"rows": 1}})
            if at in self.stops:
                raise KeyboardInterrupt
            run.finish({"eval_loss": training.learning_rate + training.seed / 10})


def test_every_setting_with_every_seed_and_then_the_comparison(grid, tmp_path):
    train, told = Pretend(), []
    found = sweep(grid(), run=train, progress=lambda *at: told.append(at))
    assert train.done == [(0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1)]
    assert told[-1] == (4, 4)
    assert [group.name for group in found.comparison.groups] == [
        "learning_rate=0.1",
        "learning_rate=0.2",
    ]
    assert [group.mean for group in found.comparison.groups] == pytest.approx([0.15, 0.25])
    assert not found.failed
    written = json.loads((tmp_path / "found" / "comparison.json").read_text())
    assert written["metric"] == "eval_loss"
    again = Pretend()
    assert sweep(grid(), run=again).to_json() == found.to_json()
    assert again.done == []


def test_values_and_seeds_may_be_added_and_another_base_is_apart(grid, tmp_path):
    sweep(grid(), run=Pretend())
    more = Pretend()
    found = sweep(grid(seeds=[0, 1, 2], vary={RATE: [0.1, 0.2, 0.3]}), run=more)
    assert len(more.done) == 9 - 4
    assert len(found.comparison.groups) == 3
    other = Pretend()
    found = sweep(grid(set={"training.context": 64}), run=other)
    assert len(other.done) == 4
    assert len(found.comparison.groups) == 2


def test_a_stopped_sweep_goes_on_with_the_run_that_was_stopped(grid):
    train = Pretend(stops=[(0.2, 0)])
    with pytest.raises(KeyboardInterrupt):
        sweep(grid(), run=train)
    assert train.done == [(0.1, 0), (0.2, 0)]
    again = Pretend()
    sweep(grid(), run=again)
    assert again.done == [(0.2, 0), (0.1, 1), (0.2, 1)]


def test_a_failure_is_told_and_tried_again(grid, tmp_path):
    found = sweep(grid(), run=Pretend(fails=[(0.2, 1)]))
    (failed,) = found.failed
    assert (failed.setting, failed.seed) == ("learning_rate=0.2", 1)
    assert failed.error == "DataError: the table is empty"
    assert len(found.comparison.groups[1].runs) == 1
    assert json.loads((tmp_path / "found" / "sweep.json").read_text())["cells"][3]["error"]
    again = Pretend()
    assert not sweep(grid(), run=again).failed
    assert again.done == [(0.2, 1)]


def test_where_all_fail_the_reason_is_told(grid):
    every = [(rate, seed) for rate in (0.1, 0.2) for seed in (0, 1)]
    with pytest.raises(ComparisonError, match="0 of 4 runs succeeded") as told:
        sweep(grid(), run=Pretend(fails=every))
    assert "the table is empty" in str(told.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vary": {"training.learnig_rate": [1]}}, "learning_rate"),
        ({"vary": {RATE: ["fast"]}}, "learning_rate=fast"),
        ({"vary": {RATE: []}}, "has no values"),
        ({"vary": {RATE: [0.1, 0.1]}}, "the same run"),
        ({"vary": {"training.seed": [1, 2]}}, "seeds are not a setting"),
        ({"vary": {"output.name": ["a", "b"]}}, "cannot change a result"),
        ({"vary": {"training.quiet": [True, False]}}, "cannot change a result"),
        ({"set": {RATE: 1}}, "is varied and set"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"base": "absent.yaml"}, "there is no file"),
        ({"kind": "trian"}, "train"),
    ],
)
def test_mistakes_show_before_anything_is_trained(grid, tmp_path, values, message):
    train = Pretend()
    with pytest.raises(ConfigError, match=message):
        sweep(grid(**values), run=train)
    assert train.done == []
    assert not (tmp_path / "found").exists()


def test_a_folder_in_use_is_refused(grid, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is in use"):
        sweep(grid(), run=Pretend())
    (tmp_path / "found" / "thesis.txt").unlink()
    lock_directory(tmp_path / "found")
    with pytest.raises(ConfigError, match="another process"):
        sweep(grid(), run=Pretend())


def test_other_code_is_refused_before_the_first_hour_not_after_the_last(grid, monkeypatch):
    sweep(grid(), run=Pretend())
    home = "domainformer.evaluation.comparisons.sweeping.source_hash"
    monkeypatch.setattr(home, lambda: "edited")
    monkeypatch.setattr("domainformer.run.folder.source_hash", lambda: "edited")
    train = Pretend()
    more = grid(seeds=[0, 1, 2])
    with pytest.raises(ComparisonError, match="other code"):
        sweep(more, run=train)
    assert train.done == []
    found = sweep(more, run=train, allow=["code"])
    assert any("allowed to differ: code" in note for note in found.comparison.notes)


def test_how_long_is_one_setting_whatever_the_base_says(grid):
    cells = make_cells(grid(vary={"training.epochs": [1.0, 2.0]}))
    assert {cell.config.training.max_steps for cell in cells} == {None}
    assert len({cell.folder.parent for cell in cells}) == 2


@pytest.mark.slow
def test_real_trainings(tmp_path):
    """Tiny ones, and the comparison of what came out."""
    base = tmp_path / "base.yaml"
    base.write_text(
        "data: {entity: patient_id, time: timestamp}\nschema: health\n"
        "model: {overrides: {num_hidden_layers: 1, hidden_size: 8, num_attention_heads: 2}}\n"
        "training: {max_steps: 2, context: 64, batch_tokens: 256, eval_rows: 4}\n"
    )
    values = {"base": str(base), "seeds": [0, 1], "vary": {RATE: [1e-3, 1e-1]}}
    config = build(SweepConfig, {**values, "output": {"root": str(tmp_path), "name": "s"}})
    table = simulate("health", entities=20, events_per_entity=20)
    found = sweep(config, run=lambda config: pretrain(config, table=table))
    record = read_run(found.folder / found.cells[0].folder)
    assert record.identity.data == table.fingerprint()
    assert len(found.comparison.groups) == 2
    assert {curve.key for curve in found.comparison.curves} >= {"eval_loss"}
    assert found.comparison.groups[1].against.test.kind == "paired"
    with pytest.raises(ComparisonError, match="0 of 4"):  # without the table nothing can be read
        sweep(build(SweepConfig, {**values, "output": {"root": str(tmp_path), "name": "t"}}))


def test_language_models_with_and_without_a_rule(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat and looked at the rat. " * 20)
    base = tmp_path / "base.yaml"
    base.write_text(
        f"data: {{path: {tmp_path / 'a.txt'}}}\n"
        "model: {overrides: {num_hidden_layers: 1, hidden_size: 16}}\n"
        "training: {context: 16, batch_tokens: 64, max_steps: 3}\nsampling: {every: 0}\n"
        f"registry: {{publish: found, root: {tmp_path / 'models'}}}\n"
    )
    values = {
        "base": str(base),
        "kind": "train",
        "seeds": [0, 1],
        "vary": {"rules": [[], ["lion"]]},
    }
    config = build(SweepConfig, {**values, "output": {"root": str(tmp_path), "name": "rules"}})
    done = sweep(config)
    assert done.failed == ()
    found = done.comparison
    assert [group.name for group in found.groups] == ["rules=none", "rules=lion"]
    assert found.metric == "nats"
    assert found.groups[0].values != found.groups[1].values
    assert not (tmp_path / "models").exists()  # four runs would fight for one name
