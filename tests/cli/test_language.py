"""train and sample; import → train further → train further → resume → lineage, as typed."""

import json
import sys

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from domainformer.run import read_run
from domainformer.tokenizers import CharacterTokenizer
from domainformer.training.trainer import EventTrainer

TEXT = "To be, or not to be, that is the question.\n" * 40
TINY = (
    "model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
    "training.learning_rate=0.01",
)
SHORT = ("training.context=16", "training.batch_tokens=64", "training.max_steps=4")


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "play.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def train(invoke, play, tmp_path):
    def run(name, *overrides, config=None):
        place = (f"data.path={play}", f"output.root={tmp_path / 'runs'}", f"output.name={name}")
        given = [] if config is None else [config]
        return invoke("train", *given, *place, *SHORT, "sampling.tokens=4", *overrides, "--json")

    return run


def test_train_then_sample(invoke, train, tmp_path):
    trained = train("play", *TINY)
    assert trained.code == 0, trained.err
    assert trained.json["nats"] > 0
    run = tmp_path / "runs" / "play"
    assert f"next: domainformer sample {run}" in trained.err
    assert trained.json["report"] == str(run / "report.html")
    assert "frequencies of characters alone" in (run / "report.html").read_text()
    written = invoke("sample", run, "--prompt", "To be", "--tokens", 20, "--samples", 2)
    assert written.code == 0, written.err
    assert written.out.count("To be") == 2
    options = ("--prompt", "To", "--tokens", 9, "--temperature", 0, "--json")
    greedy = invoke("sample", run, *options).json
    assert greedy == invoke("sample", run, *options).json
    assert len(greedy[0]["text"]) == 11


def test_the_page_may_be_left_out_or_cannot_be_drawn(train, invoke, tmp_path, monkeypatch):
    quiet = train("quiet", *TINY, "--no-report")
    assert (quiet.code, "report" in quiet.json) == (0, False)
    page = tmp_path / "runs" / "quiet" / "report.html"
    assert not page.exists()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "altair", None)
        bare = train("bare", *TINY)
    assert (bare.code, "report" in bare.json) == (0, False)
    assert "domainformer[report]" in bare.err
    assert invoke("report", page.parent).out.strip() == str(page)


def test_import_train_twice_resume_lineage(invoke, train, tmp_path, monkeypatch):
    folder, models = tmp_path / "download", tmp_path / "models"
    tokenizer = CharacterTokenizer.ascii()
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    ).save_pretrained(folder)
    tokenizer.write_files(folder)
    registry = f"registry.root={models}"
    assert invoke("import-model", folder, "--name", "base", "--registry", models).code == 0

    first = train("first", "model_name=base", "registry.publish=first", registry)
    assert first.code == 0, first.err
    again = ("model_name=first", "registry.publish=second", registry, "rules=[muon, z_loss]")
    with monkeypatch.context() as patch:
        save = EventTrainer._save_checkpoint

        def save_and_stop(self, *args, **kwargs):
            save(self, *args, **kwargs)
            raise KeyboardInterrupt

        patch.setattr(EventTrainer, "_save_checkpoint", save_and_stop)
        assert train("second", *again, "training.save_every=2").code == 130
    assert read_run(tmp_path / "runs" / "second").status == "interrupted"
    assert not (models / "second").exists()
    second = train("second", *again, "training.save_every=2", "training.resume=true")
    assert second.code == 0, second.err

    assert invoke("models", "verify", "--registry", models).code == 0
    tree = invoke("models", "lineage", "second", "--registry", models).out
    assert tree.index("base") < tree.index("first") < tree.index("second")
    shown = invoke("models", "show", "second", "--registry", models, "--json").json
    assert (shown["fine_tuned_from"], shown["architecture_type"]) == ("first", "Qwen3ForCausalLM")
    assert shown["metrics"]["nats"] == pytest.approx(second.json["nats"])
    weights = next((models / "second").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert invoke("models", "verify", "--registry", models).code == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rules=[muno]", "did you mean 'muon'"),
        ("trainig.max_steps=3", "did you mean 'training'"),
        ("data.policy=strict", "error"),
        ("training.context=4000", "window"),
    ],
)
def test_bad_input_is_refused(train, play, override, said, tmp_path):
    if "strict" in override:
        other = tmp_path / "naive.txt"
        other.write_text("line one\nna\u00efve\n" * 50)
        outcome = train("bad", override, f"data.path={other}")
        assert "line 2, column 3" in outcome.err
    else:
        outcome = train("bad", override)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_the_schema_and_the_reference(invoke, tmp_path):
    assert json.loads(invoke("config", "schema", "train").out)["title"] == "domainformer train"
    target = tmp_path / "schema.json"
    assert invoke("config", "schema", "pretrain", target).code == 0
    assert "pretrain" in json.loads(target.read_text())["title"]
    assert invoke("config", "reference").out.startswith("# Configuration reference")
    assert invoke("config", "schema", "trian").code == 2
