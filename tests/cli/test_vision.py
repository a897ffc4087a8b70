"""``domainformer vision train``: from files to an adapter, and what it refuses."""

import importlib.util
import json
from pathlib import Path

import pytest

from domainformer.cli.app import main


@pytest.fixture(scope="module")
def small():
    path = Path(__file__).parents[1] / "training" / "vision" / "conftest.py"
    spec = importlib.util.spec_from_file_location("vision_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Small()


@pytest.fixture
def folder(small, tmp_path):
    """A model, pictures, questions and a configuration, as a user has them."""
    from PIL import Image

    small.save(tmp_path / "model")
    for name, seed in (("train", 0), ("validation", 1)):
        lines = []
        for index, one in enumerate(small.questions(4, seed=seed)):
            picture = f"{name}{index}.png"
            Image.fromarray(one.image).save(tmp_path / picture)
            values = {"image": picture, "question": one.question, "answer": one.answer}
            lines.append(json.dumps(values))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "run.yaml").write_text(
        f"model: {{name: {tmp_path}/model, prompt: '{small.prompt}'}}\n"
        f"data: {{train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl}}\n"
        "compressor: {width: 8, heads: 2, min_tokens: 1}\n"
        "training: {steps: 2, batch_size: 2, budgets: [0.25], device: cpu, quiet: true}\n"
        f"output: {{root: {tmp_path}/runs, name: a}}\n"
    )
    return tmp_path


def test_train_writes_an_adapter(folder, capsys):
    main_without_exit(["vision", "train", str(folder / "run.yaml"), "training.seed=3", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 2
    assert 0 <= told["accuracy_0.25"] <= 1
    assert (Path(told["adapter"]) / "adapter.safetensors").is_file()
    record = json.loads((folder / "runs" / "a" / "run.json").read_text())
    assert record["config"]["training"]["seed"] == 3
    assert record["status"] == "finished"


def test_a_mistake_is_one_message(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["vision", "train", str(folder / "run.yaml"), "training.stpes=3"])
    assert caught.value.code == 2
    assert "did you mean 'steps'" in capsys.readouterr().err


def main_without_exit(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in (0, None)
