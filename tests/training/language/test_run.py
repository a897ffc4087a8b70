"""train: the run folder, its figures, resuming, rules, the registry."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainformer.errors import CheckpointError, ConfigError, DataError, RegistryError, RuleError
from domainformer.registry import Registry
from domainformer.run import read_run
from domainformer.training import checkpoints
from domainformer.training.checkpoints import newest_checkpoint
from domainformer.training.language import open_language_model, score, train
from domainformer.training.language.samples import read_samples
from domainformer.training.progress import read_metrics
from domainformer.training.trainer import EventTrainer

RULES = (
    "rules=[{activation_noise: {std: 0.05}}, {gradient_noise: {}}, z_loss, muon,"
    " {ema_weights: {decay: 0.8}}]"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text_file):
    from domainformer.config import build
    from domainformer.training.language import TextRunConfig

    root = tmp_path_factory.mktemp("runs")
    config = build(
        TextRunConfig,
        {
            "data": {"path": str(text_file)},
            "model": {
                "overrides": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
            },
            "training": {
                "context": 16,
                "batch_tokens": 256,
                "max_steps": 60,
                "eval_every": 20,
                "learning_rate": 0.01,
                "precision": "fp32",
                "log_every": 1,
                "quiet": True,
            },
            "sampling": {"tokens": 20, "every": 20, "prompts": ["to be"]},
            "output": {"root": str(root), "name": "whole"},
        },
    )
    return train(config)


def last_weights(result):
    return load_file(newest_checkpoint(result.run_dir / "checkpoints").path / "model.safetensors")


def final_weights(result):
    return load_file(result.model_dir / "model.safetensors")


def test_the_run_folder_tells_everything(whole):
    record = read_run(whole.run_dir)
    assert (record.status, record.kind, record.rules) == ("finished", "train", [])
    assert {path.name for path in whole.run_dir.iterdir()} == {
        *("run.json", "config.yaml", "metrics.jsonl", "samples.jsonl"),
        *("tokenizer", "checkpoints", "model"),
    }
    assert record.split["validation_characters"] == whole.metrics["scored_characters"]
    assert record.data_fingerprint
    assert record.tokenizer_fingerprint
    assert record.resolved["parent"] is None


def test_it_learns_and_its_score_is_the_loss_of_every_token(whole):
    assert whole.metrics["nats"] < 2.0 < math.log(20)
    with open_language_model(whole.run_dir) as opened:
        ids = opened.tokenizer(
            "".join(whole_validation(whole)), add_special_tokens=False, return_tensors="pt"
        )["input_ids"]
        # The slow twin: windows one after the other, a cross-entropy for each token.
        total, count = 0.0, 0
        for start in range(0, ids.shape[1] - 1, 16):
            window = ids[:, start : start + 17]
            with torch.no_grad():
                chances = opened.model(window[:, :-1]).logits.log_softmax(-1)
            for place in range(window.shape[1] - 1):
                total -= chances[0, place, window[0, place + 1]].item()
                count += 1
    assert count == whole.metrics["scored_tokens"]
    assert whole.metrics["nats"] == pytest.approx(total / count, abs=1e-5)
    assert whole.metrics["bits_per_character"] == pytest.approx(total / count / math.log(2))
    assert whole.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)


def test_counting_alone_is_the_yardstick(whole):
    record = read_run(whole.run_dir)
    text = "".join(whole_validation(whole))[1:]  # what begins the text is not scored
    counts = Counter(whole_training(whole)[1:])
    by_hand = -sum(math.log(counts[one] / counts.total()) for one in text) / len(text)
    assert whole.metrics["unigram_nats"] == pytest.approx(by_hand, abs=0.01)  # but for smoothing
    assert whole.metrics["nats"] < whole.metrics["unigram_nats"] < math.log(20)
    assert record.split["train_characters"] == len(whole_training(whole))


def whole_training(result):
    from domainformer.config import build
    from domainformer.training.language import TextRunConfig
    from domainformer.training.language.preparation import read_split

    config = build(TextRunConfig, read_run(result.run_dir).config)
    return "".join(one.text for one in read_split(config.data, characters=True).train)


def whole_validation(result):
    from domainformer.config import build
    from domainformer.training.language import TextRunConfig
    from domainformer.training.language.preparation import read_split

    config = build(TextRunConfig, read_run(result.run_dir).config)
    return [document.text for document in read_split(config.data, characters=True).validation]


def test_transformers_reads_the_model_as_it_is(whole):
    tokenizer = AutoTokenizer.from_pretrained(whole.model_dir)
    model = AutoModelForCausalLM.from_pretrained(whole.model_dir)
    ids = tokenizer("to be or", return_tensors="pt")
    assert model(**ids).logits.shape == (1, 8, len(tokenizer))


def test_samples_come_at_their_cadence(whole):
    samples = read_samples(whole.run_dir / "samples.jsonl")
    assert [one["step"] for one in samples] == [20, 40, 60]
    assert all(one["text"].startswith("to be") for one in samples)


def test_samples_do_not_change_what_is_learned(config_for, tmp_path):
    often = train(config_for(tmp_path, "often", "sampling.every=1", "model.overrides.dropout=0.1"))
    never = train(config_for(tmp_path, "never", "sampling.every=0", "model.overrides.dropout=0.1"))
    one, other = final_weights(often), final_weights(never)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (never.run_dir / "samples.jsonl").read_text()


class Interrupted(Exception):
    pass


def stopped_after(monkeypatch, step):
    original = EventTrainer._save_checkpoint

    def save_and_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.state.global_step >= step:
            raise Interrupted

    monkeypatch.setattr(EventTrainer, "_save_checkpoint", save_and_stop)


@pytest.mark.parametrize("rules", ["rules=[]", RULES], ids=["plain", "rules"])
def test_a_resumed_run_is_bit_identical(config_for, tmp_path, monkeypatch, rules):
    dropout = "model.overrides.dropout=0.1"
    straight = train(config_for(tmp_path, "straight", rules, dropout))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 6)
        train(config_for(tmp_path, "resumed", rules, dropout))
    resumed = train(config_for(tmp_path, "resumed", rules, dropout, "training.resume=true"))
    for weights in (last_weights, final_weights):
        one, other = weights(straight), weights(resumed)
        assert all(torch.equal(one[key], other[key]) for key in one)
    losses = [
        [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
        for run in (straight.run_dir, resumed.run_dir)
    ]
    assert losses[0] == losses[1]
    texts = [read_samples(run / "samples.jsonl") for run in (straight.run_dir, resumed.run_dir)]
    assert texts[0] == texts[1]
    if rules == RULES:
        states = [
            torch.load(newest_checkpoint(run / "checkpoints").path / "rules.pt", weights_only=True)
            for run in (straight.run_dir, resumed.run_dir)
        ]
        assert flat(states[0]) == flat(states[1])


def flat(value):
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps", "forgets"])
def test_a_line_of_the_log_that_spans_a_kill_is_the_same(
    config_for, tmp_path, monkeypatch, forgets
):
    # Killed at step 6, where the next line is the mean of steps 6 to 10.
    log = "training.log_every=5"
    straight = train(config_for(tmp_path, "straight", log))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 6)
        train(config_for(tmp_path, "resumed", log))
    if forgets:
        monkeypatch.setattr(checkpoints, "load_window", lambda path: {})
    resumed = train(config_for(tmp_path, "resumed", log, "training.resume=true"))
    told = [
        [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
        for run in (straight.run_dir, resumed.run_dir)
    ]
    assert [step for step, _ in told[0]] == [5, 10, 12]
    assert (told[0] == told[1]) != forgets


@pytest.mark.parametrize(
    "dropped",
    [
        ("training.language.run", "rules"),
        ("optimizer", None),
        ("rng", None),
    ],
    ids=["rules", "optimizer", "generators"],
)
def test_dropping_one_state_shows(config_for, tmp_path, monkeypatch, dropped):
    """The sabotage twin: what a resumed run needs, it needs."""
    dropout = "model.overrides.dropout=0.1"
    straight = train(config_for(tmp_path, "straight", RULES, dropout))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 6)
        train(config_for(tmp_path, "resumed", RULES, dropout))
    what = dropped[0] if dropped[1] is None else dropped[1]
    if what == "rules":
        from domainformer.training.rules import Attached

        monkeypatch.setattr(Attached, "load_state_dict", lambda self, state: None)
    elif what == "optimizer":
        monkeypatch.setattr(
            checkpoints, "load_training_state", lambda path, optimizer, scheduler: None
        )
    else:
        monkeypatch.setattr(checkpoints, "load_rng", lambda path: None)
    resumed = train(config_for(tmp_path, "resumed", RULES, dropout, "training.resume=true"))
    one, other = last_weights(straight), last_weights(resumed)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_no_rules_and_rules_that_do_nothing_are_bit_identical(config_for, tmp_path):
    plain = train(config_for(tmp_path, "plain"))
    recorder = train(config_for(tmp_path, "same", "rules=[activation_recorder, sgd]"))
    neutral = train(
        config_for(tmp_path, "nothing", "rules=[activation_recorder, {activation_noise: {std: 0}}]")
    )
    one, same = last_weights(plain), last_weights(neutral)
    assert all(torch.equal(one[key], same[key]) for key in one)
    other = last_weights(recorder)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_averaged_weights_are_those_that_are_judged_and_kept(config_for, tmp_path):
    result = train(config_for(tmp_path, "ema", "rules=[{ema_weights: {decay: 0.9}}]"))
    kept, trained = final_weights(result), last_weights(result)
    assert not all(torch.equal(kept[key], trained[key]) for key in kept)
    rows = read_metrics(result.run_dir / "metrics.jsonl")
    assert min(row["eval_loss"] for row in rows if "eval_loss" in row) == pytest.approx(
        result.metrics["eval_loss"]
    )


def test_a_rule_that_changes_the_function_belongs_to_the_model(config_for, tmp_path):
    rules = "rules=[{replace_activation: {function: squared_relu}}]"
    result = train(config_for(tmp_path, "relu", rules))
    from domainformer.config import build
    from domainformer.training.language import TextRunConfig
    from domainformer.training.language.preparation import make_windows, read_split

    config = build(TextRunConfig, read_run(result.run_dir).config)
    with open_language_model(result.run_dir) as opened:
        texts = read_split(config.data, characters=True)
        windows = make_windows(config, texts, opened.adapter)
        assert score(opened.model, windows.validation).nats == pytest.approx(
            result.metrics["nats"], abs=1e-6
        )
    assert score(opened.model, windows.validation).nats != pytest.approx(
        result.metrics["nats"], abs=1e-6
    )


def test_a_child_has_the_rules_that_its_parent_needs(config_for, tmp_path):
    root = f"registry.root={tmp_path / 'models'}"
    relu = "rules=[{replace_activation: {function: squared_relu}}]"
    parent = train(config_for(tmp_path, "parent", root, "registry.publish=parent", relu))
    child = train(
        config_for(
            tmp_path,
            "child",
            *(root, "registry.publish=child", "model_name=parent", "model={}", "rules=[z_loss]"),
            "training.learning_rate=0.000001",
        )
    )
    assert read_run(child.run_dir).rules == ["0:replace_activation", "1:z_loss"]
    # Hardly trained further, it is as good as its parent: with another activation it is not.
    assert child.metrics["nats"] == pytest.approx(parent.metrics["nats"], abs=0.01)
    with open_language_model("child", registry=tmp_path / "models") as opened:
        assert opened.adapter.record["needs_rules"]


def test_train_publish_train_further_lineage(config_for, tmp_path):
    models = tmp_path / "models"
    root = f"registry.root={models}"
    train(config_for(tmp_path, "first", root, "registry.publish=first"))
    for name, parent in (("second", "first"), ("third", "second")):
        config = config_for(
            tmp_path, name, root, f"model_name={parent}", f"registry.publish={name}", "model={}"
        )
        result = train(config)
        assert read_run(result.run_dir).parent_id == Registry(models).resolve(parent).model_id
    lineage = Registry(models).lineage("third")
    assert set(lineage.ancestors) == {"first", "second"}
    entry = Registry(models).resolve("third")
    assert entry.fine_tuned_from == "second"
    assert entry.metrics["nats"] == result.metrics["nats"]
    manifest = json.loads(
        (newest_checkpoint(result.run_dir / "checkpoints").path / "manifest.json").read_text()
    )
    assert manifest["meta"]["parent"]["model_name"] == "second"


def test_a_name_that_is_taken_is_refused_before_training(config_for, tmp_path):
    root = f"registry.root={tmp_path / 'models'}"
    train(config_for(tmp_path, "first", root, "registry.publish=taken"))
    with pytest.raises(RegistryError, match="taken"):
        train(config_for(tmp_path, "second", root, "registry.publish=taken"))
    assert not (tmp_path / "second" / "checkpoints").exists()


def test_a_run_that_was_killed_after_it_published_ends_well(config_for, tmp_path, monkeypatch):
    from domainformer.run import Run

    root = (f"registry.root={tmp_path / 'models'}", "registry.publish=mine")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Run, "finish", lambda self, results: (_ for _ in ()).throw(Interrupted))
        train(config_for(tmp_path, "run", *root))
    result = train(config_for(tmp_path, "run", *root, "training.resume=true"))
    assert Registry(tmp_path / "models").resolve("mine").metrics["nats"] == result.metrics["nats"]


def test_resuming_needs_neither_registry_nor_model_section(config_for, tmp_path, monkeypatch):
    models = tmp_path / "models"
    root = f"registry.root={models}"
    train(config_for(tmp_path, "first", root, "registry.publish=first"))
    again = ("second", root, "model_name=first", "model={}")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 6)
        train(config_for(tmp_path, *again))
    Registry(models).remove("first")
    result = train(config_for(tmp_path, *again, "training.resume=true"))
    assert result.metrics["steps"] == 12


@pytest.mark.slow
def test_compiled_training_is_checked_and_equals_eager_training(config_for, tmp_path):
    eager = train(config_for(tmp_path, "eager"))
    compiled = train(config_for(tmp_path, "compiled", "training.compile=aot_eager"))
    assert compiled.metrics["nats"] == pytest.approx(eager.metrics["nats"], abs=1e-3)


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("rules=[muno]", RuleError, "muon"),
        ("rules=[{activation_noise: {sites: ['blocks.*.mpl']}}]", RuleError, r"blocks\.\*\.mlp"),
        ("rules=[{activation_noise: {sd: 1}}]", ConfigError, "std"),
        ("rules=[muon, lion]", ConfigError, "several rules bring an optimizer"),
        ("rule_code=[own.py]", ConfigError, "allow_rule_code"),
        ("training.context=5000", DataError, "window"),
        ("model_name=nobody", ConfigError, "leave it out"),
        ("data.path=nowhere.txt", DataError, "nowhere.txt"),
        ("data.path=${NOT_SET_ANYWHERE}/a.txt", ConfigError, "NOT_SET_ANYWHERE"),
        ("training.device=cuda", ConfigError, "no device 'cuda'"),
        ("model.overrides.copy_heads=2", ConfigError, "copy_heads"),
    ],
)
def test_bad_input_is_told(config_for, tmp_path, override, error, said):
    if "cuda" in override and torch.cuda.is_available():
        override = "training.device=mps"
        said = "no device 'mps'"
    with pytest.raises(error, match=said):
        train(config_for(tmp_path, "bad", override))


def test_an_unknown_model_is_told(config_for, tmp_path):
    with pytest.raises(RegistryError, match="nobody"):
        train(config_for(tmp_path, "bad", "model_name=nobody", "model={}"))


def test_resuming_with_other_rules_is_refused(config_for, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 6)
        train(config_for(tmp_path, "run", RULES))
    with pytest.raises((ConfigError, CheckpointError), match="rules"):
        train(config_for(tmp_path, "run", "rules=[z_loss]", "training.resume=true"))
