"""The verbs `vision evaluate` and `vision compress` on a tiny model that nobody trained."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from domainformer.cli.vision_use import parse_budget
from domainformer.config import dump_yaml
from domainformer.errors import ConfigError
from domainformer.models.vision import CompressorConfig, RelevanceCompressor, RelevanceRealizer
from domainformer.reports.vision_picture import png
from domainformer.run import start_run
from domainformer.training.vision import VisionRunConfig, open_vision, read_questions

HELPERS = Path(__file__).parents[1] / "training" / "vision" / "conftest.py"


@pytest.fixture(scope="module")
def small():
    spec = importlib.util.spec_from_file_location("vision_small", HELPERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Small()


@pytest.fixture(scope="module")
def place(small, tmp_path_factory):
    """``base`` (a model), ``run`` (with ``adapter``), ``other`` (an adapter), ``test.jsonl``."""
    root = tmp_path_factory.mktemp("vision")
    model_folder = str(small.save(root / "base"))
    lines = []
    for index, question in enumerate(small.questions(6)):
        (root / f"{index}.png").write_bytes(png(question.image))
        lines.append(
            {"image": f"{index}.png", "question": question.question, "kind": "ab"[index % 2]}
        )
        lines[-1]["answer"] = question.answer
    (root / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = open_vision(model=model_folder).realizer.model
    for seed, folder in ((0, root / "run" / "adapter"), (1, root / "other")):
        torch.manual_seed(seed)
        config = CompressorConfig(feature_size=32, width=8, heads=2, min_tokens=2)
        RelevanceRealizer(model, RelevanceCompressor(config)).save_pretrained(folder)
    values = {
        "model": {"name": model_folder, "prompt": small.prompt},
        "data": {"train": str(root / "test.jsonl"), "validation": str(root / "test.jsonl")},
    }
    (root / "run" / "config.yaml").write_text(dump_yaml(values))
    return root


@pytest.fixture(autouse=True)
def as_before():
    """Random weights drawn here leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_evaluate_judges_a_run_beside_others(invoke, place, tmp_path):
    page = tmp_path / "page.html"
    options = ("--baseline", "random", "--beside", place / "other", "--budget", "1/2")
    outcome = invoke("vision", "evaluate", place / "run", *options, "--budget", "dynamic", "--json")
    assert outcome.code == 0, outcome.err
    cells = {(one["selector"], one["budget"], one["kind"]) for one in outcome.json["cells"]}
    assert {("full", "all", "all"), ("compressor", "1/2", "a"), ("other", "dynamic", "b")} <= cells
    assert ("random", "1/2", "all") in cells
    assert ("random", "dynamic", "all") not in cells
    written = invoke(
        "vision", "evaluate", place / "run", "--limit", 3, "--pictures", 2, "--out", page
    )
    assert written.code == 0, written.err
    assert "| compressor |" in written.out
    text = page.read_text()
    assert text.count('class="asked"') == 2
    assert "img-src data:" in text
    assert "95 % intervals" in text


def test_evaluate_takes_every_baseline_that_has_what_it_needs(invoke, place):
    options = (
        "--questions",
        place / "test.jsonl",
        "--baseline",
        "all",
        "--budget",
        3,
        "--limit",
        4,
    )
    outcome = invoke("vision", "evaluate", "--model", place / "base", *options, "--json")
    assert outcome.code == 0, outcome.err
    found = {one["selector"] for one in outcome.json["cells"]}
    assert {"full", "down_sampling", "query_cosine"} <= found
    assert not {"oracle", "everything", "compressor"} & found


def test_compress_answers_and_draws(invoke, place, refused, tmp_path):
    page = tmp_path / "page.html"
    asked = ("vision", "compress", place / "run", place / "0.png", "which digit is red")
    outcome = invoke(*asked, "--budget", "1/4", "--budget", 2, "--json", "--out", page)
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert (told["grid"], told["tokens"]) == ([3, 4], 12)
    assert [one["tokens"] for one in told["budgets"]] == [3, 2]
    # What is dropped is gone from the prompt, and nothing else is.
    assert [one["length"] for one in told["budgets"]] == [told["length"] - 9, told["length"] - 10]
    assert set(told["budgets"][1]["kept"]) <= set(told["budgets"][0]["kept"])
    assert "3 of 12 (25.0 %)" in page.read_text()
    assert "exists already" in refused(*asked, "--out", page)
    shown = invoke(*asked)
    assert shown.code == 0, shown.err
    assert "kept of 12: " in shown.out
    assert "coupling 0." in shown.out


def test_the_answer_of_all_tokens_is_that_of_the_model_itself(invoke, place, small):
    outcome = invoke("vision", "compress", place / "run", place / "2.png", "red", "--json")
    opened = open_vision(place / "run")
    text = small.prompt.replace("{image}", "<image>").replace("{question}", "red")
    [image] = {
        one.image for one in read_questions(place / "test.jsonl") if one.image.name == "2.png"
    }
    from PIL import Image

    made = opened.processor(images=[np.asarray(Image.open(image))], text=[text])
    with torch.no_grad():
        new = opened.realizer.model.generate(
            **made,
            mm_token_type_ids=(made["input_ids"] == opened.processor.image_token_id).long(),
            max_new_tokens=16,
            do_sample=False,
        )[0, made["input_ids"].shape[1] :]
    answer = small.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert outcome.json["answer"] == answer


def test_what_cannot_be_used_is_told(refused, place, tmp_path):
    def compress(image, question="which", *options):
        return refused("vision", "compress", place / "run", image, question, *options)

    def evaluate(*options):
        return refused("vision", "evaluate", *options)

    (tmp_path / "clip.mp4").write_bytes(b"0")
    (tmp_path / "text.png").write_text("no image")
    assert "there is no image" in compress(tmp_path / "none.png")
    assert "videos are not compressed" in compress(tmp_path / "clip.mp4")
    assert "is no image" in compress(tmp_path / "text.png")
    assert "question" in compress(place / "0.png", " ")
    assert "'2.5' is no budget" in compress(place / "0.png", "which", "--budget", "2.5")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"image": "a.png", "ask": "which?", "answer": "1"}')
    assert "a question needs question" in evaluate(place / "run", "--questions", wrong)
    wrong.write_text('{"image": "a.png", "question": "which?", "answer": "1"}')
    assert "there is no image" in evaluate(place / "run", "--questions", wrong)
    assert "no questions to judge by" in evaluate(place / "other", "--model", place / "base")
    assert "no baseline 'rnadom'" in evaluate(place / "run", "--baseline", "rnadom")
    assert "nothing to judge" in evaluate(
        "--model", place / "base", "--questions", place / "test.jsonl"
    )
    assert "there is no model to open" in evaluate("--questions", place / "test.jsonl")
    assert "random has no dynamic budget" in evaluate(
        place / "run", "--baseline", "random", "--budget", "dynamic"
    )
    moved = evaluate(place / "run", "--model", tmp_path / "moved")
    assert "there is no model folder" in moved
    assert "--model" in moved
    assert "holds no compressor" in evaluate(tmp_path)
    assert "there is no such folder" in evaluate(tmp_path / "none")


def test_the_report_of_a_vision_run_is_written_by_another_verb(refused, tmp_path):
    with start_run(str(tmp_path), "photos", kind="vision", config=VisionRunConfig()) as run:
        told = refused("report", run.directory)
    assert "domainformer vision evaluate" in told
    assert "--out" in told


@pytest.mark.parametrize(("text", "value"), [("1/9", 1 / 9), ("1.0", 1.0), ("1", 1), ("64", 64)])
def test_budgets_are_shares_or_tokens(text, value):
    found = parse_budget(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "3/2", "1/0", "many", "", "nan"])
def test_other_budgets_are_refused(text):
    with pytest.raises(ConfigError, match="is no budget"):
        parse_budget(text)
