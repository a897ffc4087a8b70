"""Whole runs: what they leave, how they end after a kill, what they refuse."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from domainformer.config import build
from domainformer.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    FingerprintError,
    VisionError,
)
from domainformer.models.vision import RelevanceRealizer
from domainformer.training.checkpoints import find_checkpoints
from domainformer.training.progress import read_metrics
from domainformer.training.vision import (
    Split,
    VisionCollator,
    VisionLearner,
    VisionRunConfig,
    VisionTrainer,
    building,
    open_vision,
    opening,
    train_vision,
)
from domainformer.training.vision.building import make_realizer

STEPS, KILLED_AT = 6, 4


@pytest.fixture
def split(small):
    return Split(small.questions(7, shared=2), small.questions(4, seed=1))


@pytest.fixture
def go(small, split, tmp_path):
    """Runs a training of a few steps; keywords change its ``training`` section."""

    def run(name="a", *, compressor=None, questions=split, model=None, **training):
        values = {
            "model": {"prompt": small.prompt},
            "compressor": {"width": 8, "heads": 2, "min_tokens": 1, **(compressor or {})},
            "training": {
                "steps": STEPS,
                "batch_size": 3,
                "budgets": [0.25, 0.5],
                "dynamic": {"target": 0.2, "rate": 0.5},
                "distillation": 0.2,
                "eval_every": 3,
                "save_every": 2,
                "log_every": 3,
                "quiet": True,
                "device": "cpu",
                **training,
            },
            "output": {"root": str(tmp_path), "name": name},
        }
        return train_vision(
            build(VisionRunConfig, values),
            model=model or small.model(),
            processor=small.processor,
            questions=questions,
        )

    return run


def weights(run):
    return load_file(run.adapter_dir / "adapter.safetensors")


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


class Killed(Exception):
    pass


@pytest.fixture
def kill(monkeypatch):
    """Lets the step after ``KILLED_AT`` die, once."""
    step = VisionTrainer.compute_loss

    def dying(self, model, inputs, *args, **kwargs):
        if self.state.global_step == KILLED_AT:
            raise Killed
        return step(self, model, inputs, *args, **kwargs)

    def during(action):
        with monkeypatch.context() as patch:
            patch.setattr(VisionTrainer, "compute_loss", dying)
            with pytest.raises(Killed):
                action()

    return during


def test_a_run_leaves_an_adapter_that_selects_as_it_did(go, small):
    run = go()
    assert sorted(path.name for path in run.run_dir.iterdir()) == [
        "adapter",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "run.json",
    ]
    assert run.record.kind == "vision"
    assert run.record.split == {"train": 7, "validation": 4}
    assert run.record.resolved["cached"] == [True, True]
    names = {f"accuracy_{name}" for name in ("0.25", "0.5", "dynamic", "full")}
    assert names < set(run.metrics)
    assert "eval_loss" not in run.metrics
    model = small.model()
    opened = RelevanceRealizer.from_pretrained(run.adapter_dir, model=model)
    values = VisionRunConfig().training.model_copy(update={"budgets": (0.25, 0.5)})
    batch = VisionCollator(small.processor, prompt=small.prompt)(small.questions(4, seed=1))
    found = VisionLearner(opened, values).judge(batch, 0.5)
    assert found.loss / found.targets == pytest.approx(run.metrics["loss_0.5"], rel=1e-5)
    assert go(resume=True).metrics == run.metrics  # what is finished is not done again


def test_checkpoints_hold_new_parameters_alone(go):
    run = go()
    _, newest = find_checkpoints(run.run_dir / "checkpoints")[0]
    kept = load_file(newest / "model.safetensors")
    assert {name.split(".")[0] for name in kept} == {"selector", "multiplier"}
    for name, value in weights(run).items():
        assert torch.equal(kept[f"selector.{name}"], value)


def test_the_log_tells_validation_by_hard_drop(go):
    run = go()
    rows = read_metrics(run.run_dir / "metrics.jsonl")
    last = rows[-1]
    assert last["eval_kept_0.25"] < last["eval_kept_0.5"] < 1
    assert last["eval_loss_0.5"] == pytest.approx(run.metrics["loss_0.5"], rel=1e-5)
    trained = [row for row in rows if "loss" in row]
    assert [row["gate_temperature"] for row in trained] == pytest.approx(
        [0.05 ** (2 / 5), 0.05], rel=1e-6
    )
    assert all(row["gate_multiplier"] >= 0 for row in trained)


def test_the_same_seed_gives_the_same_weights(go):
    one, again, other = go("a"), go("b"), go("c", seed=1)
    assert same(weights(one), weights(again))
    assert one.metrics["loss"] == again.metrics["loss"]
    assert not same(weights(one), weights(other))


def test_a_killed_run_ends_with_the_weights_that_it_would_have_had(go, kill):
    whole = go("whole")
    kill(lambda: go("killed"))
    resumed = go("killed", resume=True)
    assert resumed.record.resumed == [KILLED_AT]
    assert same(weights(whole), weights(resumed))
    first, second = (read_metrics(each.run_dir / "metrics.jsonl") for each in (whole, resumed))
    for row in (*first, *second):
        row.pop("tokens_per_second", None)
    assert first == second


def test_a_run_killed_after_its_last_step_is_only_written_down(go, monkeypatch):
    whole = go("whole")

    def dying(self, *args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("domainformer.training.vision.run.save_adapter", dying)
        with pytest.raises(Killed):
            go("killed")
    resumed = go("killed", resume=True)
    assert resumed.record.resumed == [STEPS]
    assert same(weights(whole), weights(resumed))
    assert resumed.metrics["loss"] == whole.metrics["loss"]


def test_forgetting_the_step_of_the_temperature_would_show(go, kill, monkeypatch):
    # The sabotage twin: a schedule that counts calls begins warm again where a run is resumed.
    whole = go("whole")
    kill(lambda: go("killed"))
    forward = VisionLearner.forward

    def forgetful(self, *, step, **batch):
        calls = self.__dict__.setdefault("calls", 0)
        schedule, self.__dict__["calls"] = self.temperature, calls + 1
        self.temperature = lambda _: schedule(calls)
        try:
            return forward(self, step=step, **batch)
        finally:
            self.temperature = schedule

    monkeypatch.setattr(VisionLearner, "forward", forgetful)
    assert not same(weights(whole), weights(go("killed", resume=True)))


def test_forgetting_the_price_of_tokens_would_show(go, kill, monkeypatch):
    # A multiplier that is not saved is the first one again.
    whole = go("whole", dynamic={"target": 0.2, "rate": 0.5, "probability": 1.0}, budgets=[])
    changed = {"dynamic": {"target": 0.2, "rate": 0.5, "probability": 1.0}, "budgets": []}
    kill(lambda: go("killed", **changed))
    load = VisionLearner.load_state_dict

    def forgetful(self, state_dict, *args, **kwargs):
        first = {**state_dict, "multiplier": torch.tensor(1.0)}
        return load(self, first, *args, **kwargs)

    monkeypatch.setattr(VisionLearner, "load_state_dict", forgetful)
    assert not same(weights(whole), weights(go("killed", resume=True, **changed)))


def test_features_change_nothing_but_the_time(go):
    kept, read = go("kept"), go("read", cache_features=0)
    assert read.record.resolved["cached"] == [False, False]
    first, second = weights(kept), weights(read)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-3, rtol=1e-3)


def test_the_tower_reads_images_where_it_is(go, monkeypatch):
    moved = []

    def on_device(batch, model):
        moved.append((set(batch), model.device.type))
        return batch

    monkeypatch.setattr(building, "on_device", on_device)
    go()
    assert moved
    assert all("pixel_values" in names and place == "cpu" for names, place in moved)


def test_an_adapter_alone_is_asked_as_it_was_trained(go, small, tmp_path, monkeypatch):
    moved = shutil.copytree(go().adapter_dir, tmp_path / "elsewhere")
    monkeypatch.setattr(opening, "open_base", lambda config: (small.model(), small.processor))
    opened = open_vision(moved, model="here", device="cpu")
    assert opened.config.model.prompt == small.prompt


def test_training_goes_on_from_an_adapter(go, small, tmp_path):
    run = go("small")
    values = {
        "compressor": {"width": 8, "heads": 2, "min_tokens": 4},
        "training": {"start_from": str(run.adapter_dir)},
    }
    started = make_realizer(build(VisionRunConfig, values), small.model())
    assert same(weights(run), started.selector.state_dict())
    assert started.selector.config.min_tokens == 4
    with pytest.raises(ConfigError, match="built otherwise") as caught:
        go("b", compressor={"use_query": False}, start_from=str(run.adapter_dir))
    assert "use_query" in caught.value.why
    with pytest.raises(ArtifactError):
        go("c", start_from=str(tmp_path / "missing"))


def test_a_run_without_validation_is_judged_by_nobody(go, split):
    run = go(questions=Split(split.train))
    assert not [name for name in run.metrics if name.startswith("accuracy")]
    assert run.metrics["steps"] == STEPS


def test_other_questions_or_another_model_are_no_continuation(go, kill, small, split):
    kill(lambda: go())
    with pytest.raises(ConfigError, match="questions changed"):
        go(resume=True, questions=Split(split.train[:-1], split.validation))
    with pytest.raises(FingerprintError, match="another model"):
        go(resume=True, model=small.tiny.tiny("qwen2_vl", seed=1, num_hidden_layers=1)[0])
    with pytest.raises(ConfigError, match="another configuration"):
        go(resume=True, learning_rate=0.1)
    assert go(resume=True).metrics["steps"] == STEPS


def test_what_is_missing_is_told(small, split, tmp_path, go):
    config = build(VisionRunConfig, {"output": {"root": str(tmp_path)}})
    with pytest.raises(VisionError, match="no model"):
        train_vision(config, questions=split)
    with pytest.raises(ConfigError, match="no questions"):
        train_vision(config, model=small.model(), processor=small.processor)
    with pytest.raises(ConfigError, match="no questions"):
        go(questions=Split([]))
    with pytest.raises(ConfigError, match="with its processor"):
        train_vision(config, model=small.model())


def test_a_path_misspelt_leaves_no_folder_behind(tmp_path, small):
    values = {
        "data": {"train": str(tmp_path / "missing.jsonl")},
        "output": {"root": str(tmp_path / "runs"), "name": "a"},
    }
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        train_vision(build(VisionRunConfig, values), model=small.model(), processor=small.processor)
    assert not (tmp_path / "runs" / "a").exists()


@pytest.mark.parametrize("cached", [True, False])
def test_a_guided_run_that_was_killed_ends_with_the_same_weights(go, kill, cached):
    # Seven questions, 18 asked: what the model looks at is kept where features are.
    training = {
        "guidance": {"alone": 0.5, "layers": [1]},
        "cache_features": 64.0 if cached else 0.0,
    }
    whole = go("whole", **training)
    kill(lambda: go("killed", **training))
    resumed = go("killed", resume=True, **training)
    assert resumed.record.resumed == [KILLED_AT]
    assert same(weights(whole), weights(resumed))


def test_what_the_model_looks_at_is_the_same_from_memory(go):
    guidance = {"alone": 1.0, "layers": [1]}
    kept, asked = (
        weights(go(name, guidance=guidance, cache_features=megabytes, dynamic=None))
        for name, megabytes in (("kept", 64.0), ("asked", 0.0))
    )
    for name, weight in kept.items():
        assert torch.allclose(weight, asked[name], atol=1e-4), name
