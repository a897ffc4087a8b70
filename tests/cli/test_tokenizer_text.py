"""tokenizer bpe and tokenizer characters: from text files to a model that trains on them."""

import pytest

WORDS = "the quick brown fox jumps over the lazy dog Größe 漢字\n"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name in "ab":
        (folder / f"{name}.txt").write_text(WORDS * 30, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("verb", "options"), [("bpe", ("--vocab-size", 5_000)), ("characters", ("--vocab-size", 120))]
)
def test_a_folder_is_made_that_train_takes(invoke, texts, tmp_path, verb, options):
    folder = tmp_path / "tok"
    made = invoke("tokenizer", verb, texts, *options, "--output", folder, "--json")
    assert made.code == 0, made.err
    size = made.json["vocab_size"]
    assert size <= options[1]
    assert f"next: domainformer train data.path={texts} tokenizer.path={folder}" in made.err
    trained = invoke(
        "train",
        f"data.path={texts}",
        f"tokenizer.path={folder}",
        f"output.root={tmp_path / 'runs'}",
        "output.name=it",
        "model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
        *("training.context=16", "training.batch_tokens=64", "training.max_steps=2"),
        *("sampling.tokens=2", "--no-report", "--json"),
    )
    assert trained.code == 0, trained.err
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(trained.json["model"])
    again = AutoTokenizer.from_pretrained(trained.json["model"])
    assert model.config.vocab_size == len(again) == size
    assert (model.config.pad_token_id, model.config.eos_token_id) == (0, 1)
    assert again.decode(again(WORDS)["input_ids"]) == WORDS


def test_what_is_told_and_what_is_refused(invoke, refused, texts, tmp_path):
    told = invoke("tokenizer", "bpe", texts / "*.txt", "--output", tmp_path / "t")
    assert "the text cannot give 32,000 entries" in told.out
    assert "exists already" in refused("tokenizer", "bpe", texts, "--output", tmp_path / "t")
    few = ("tokenizer", "bpe", texts, "--vocab-size", 400, "--output", tmp_path / "u")
    assert "400 entries cannot be made" in refused(*few)
    alone = invoke("tokenizer", "characters", "--output", tmp_path / "c", "--special", "<|user|>")
    assert "every text comes back" in alone.out
    lost = refused("tokenizer", "characters", tmp_path / "none", "--output", tmp_path / "d")
    assert "there is no file or folder" in lost
