"""Files, Hugging Face tokenizers, and tokens added to other tokenizers and models."""

import datetime as dt
import json
import shutil

import polars as pl
import pytest

from domainformer.artifacts import staged_directory
from domainformer.data import EventTable
from domainformer.errors import ArtifactError, DataError, FingerprintError, TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, DomainTokenizerBuilder, add_domain_tokens, hub
from domainformer.tokenizers.vocabulary import byte_pair, tokens_by_id
from tokenizers import Tokenizer, models

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_entity", hash_buckets=2, description="what it was for"),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        FieldSpec("count", "numerical_discrete"),
        FieldSpec("time", "temporal", elapsed_bins=4),
        FieldSpec("shop", "text"),
    ],
)
FRAME = pl.DataFrame(
    {
        "card": [1, 1, 2],
        "kind": ["fuel & oil", None, "é [x]"],
        "amount": [1.5, -20.0, float("nan")],
        "count": [1, -2, None],
        "time": [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 5, 6), dt.datetime(2024, 3, 1)],
        "shop": ["corner shop", "Café \u2028 [PAD]", None],
    }
)
TABLE = EventTable.of(FRAME, entity="card", time="time")


def fit(schema=SCHEMA, bpe_vocab_size=280):
    return DomainTokenizer(schema, bpe_vocab_size=bpe_vocab_size).fit(TABLE)


@pytest.fixture(scope="module")
def tokenizer():
    return fit()


@pytest.fixture
def saved(tokenizer, tmp_path):
    return tokenizer.save_pretrained(tmp_path / "tokenizer")


# ── files ─────────────────────────────────────────────────────────────────────────────────────


def test_save_and_load_give_an_equal_tokenizer(tokenizer, saved):
    loaded = DomainTokenizer.from_pretrained(str(saved))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab == tokenizer.vocab
    assert loaded.slots == tokenizer.slots
    assert loaded.schema == tokenizer.schema
    assert loaded.bpe_vocab_size == 280
    assert loaded.encode(TABLE) == tokenizer.encode(TABLE)
    assert loaded.decode(loaded.encode(TABLE).ids, intervals=True).equals(
        tokenizer.decode(tokenizer.encode(TABLE).ids, intervals=True), null_equal=True
    )


def test_equal_data_give_equal_bytes(saved, tmp_path):
    again = fit().save_pretrained(tmp_path / "again")
    for name in hub.FILES:
        assert (saved / name).read_bytes() == (again / name).read_bytes()


def test_ids_stand_in_the_file_itself(tokenizer, saved):
    plain = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
    assert plain["model"]["vocab"] == {t: i for i, t in enumerate(tokenizer.vocab)}
    assert [t["id"] for t in plain["added_tokens"]] == list(range(tokenizer.layout.first_bpe))
    assert all(t["special"] and not t["normalized"] for t in plain["added_tokens"])
    assert not any(t["lstrip"] or t["rstrip"] for t in plain["added_tokens"])


@pytest.mark.parametrize("text", [True, False], ids=["bpe", "word level"])
def test_auto_tokenizer_reads_the_folder(tmp_path, text):
    from transformers import AutoTokenizer

    schema = SCHEMA if text else DomainSchema("s", [f for f in SCHEMA.fields if f.name != "shop"])
    fitted = fit(schema)
    folder = fitted.save_pretrained(tmp_path / "t")
    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert loaded.unk_token_id == 3
    assert len(loaded) == fitted.vocab_size
    assert loaded.convert_ids_to_tokens(list(range(len(loaded)))) == fitted.vocab
    event = TABLE.frame.row(1, named=True)
    rendered = fitted.render_event(event)
    assert loaded(rendered)["input_ids"] == fitted.encode_event(event)
    batch = loaded([rendered, rendered + "[EOS]"], padding=True)
    assert batch["input_ids"][0][-1] == 0
    assert batch["attention_mask"][0][-1] == 0
    again = AutoTokenizer.from_pretrained(
        loaded.save_pretrained(tmp_path / "u")[0].rsplit("/", 1)[0]
    )
    assert again(rendered)["input_ids"] == fitted.encode_event(event)


def test_to_hf_is_a_copy(tokenizer):
    changed = tokenizer.to_hf()
    changed.add_tokens(["[MINE]"])
    assert tokenizer.backend.token_to_id("[MINE]") is None
    assert len(changed) == tokenizer.vocab_size + 1


def test_a_folder_is_not_replaced_unasked(tokenizer, saved):
    with pytest.raises(ArtifactError, match="exists already"):
        tokenizer.save_pretrained(saved)
    assert tokenizer.save_pretrained(saved, overwrite=True) == saved


def test_files_can_live_in_a_folder_of_others(tokenizer, tmp_path):
    with staged_directory(tmp_path / "bundle") as staging:
        (staging / "model.safetensors").write_bytes(b"weights")
        hub.write_files(tokenizer, staging)
    loaded = DomainTokenizer.from_pretrained(tmp_path / "bundle")
    assert loaded.fingerprint == tokenizer.fingerprint
    # Damage elsewhere in the folder is not the tokenizer's to judge.
    (tmp_path / "bundle" / "model.safetensors").write_bytes(b"changed")
    assert hub.read_files(tmp_path / "bundle").fingerprint == loaded.fingerprint
    DomainTokenizer.from_pretrained(tmp_path / "bundle")


@pytest.mark.parametrize("name", hub.FILES)
@pytest.mark.parametrize("harm", ["missing", "truncated", "changed"])
def test_damage_is_found_and_named(saved, name, harm):
    path = saved / name
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if harm == "truncated" else b" " + content[1:])
    with pytest.raises(ArtifactError) as caught:
        DomainTokenizer.from_pretrained(saved)
    assert caught.value.where == name
    assert caught.value.next_step


def test_an_unfinished_folder_is_not_read(saved, tmp_path):
    (saved / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="incomplete"):
        DomainTokenizer.from_pretrained(saved)
    with pytest.raises(ArtifactError, match="no folder"):
        DomainTokenizer.from_pretrained(tmp_path / "nowhere")
    with staged_directory(tmp_path / "else") as staging:
        (staging / "a.txt").write_text("a")
    with pytest.raises(ArtifactError, match="holds no tokenizer"):
        DomainTokenizer.from_pretrained(tmp_path / "else")


def other_tokenizer():
    frame = TABLE.frame.with_columns(kind=pl.lit("other"), amount=pl.col("amount") * 3)
    events = EventTable.of(frame, entity="card", time="time")
    return DomainTokenizer(SCHEMA, bpe_vocab_size=280).fit(events)


@pytest.mark.parametrize("name", ["tokenizer.json", "domain_tokenizer.json", "schema.yaml"])
def test_files_of_two_tokenizers_are_refused(saved, tmp_path, name):
    """With a manifest that is right about each file: only the content can tell."""
    other = (
        other_tokenizer()
        if name != "schema.yaml"
        else fit(DomainSchema("x", [*SCHEMA.fields[:-1], FieldSpec("shop", "text", max_tokens=3)]))
    )
    source = other.save_pretrained(tmp_path / "other")
    with staged_directory(tmp_path / "mixed") as staging:
        for file in hub.FILES:
            shutil.copy((source if file == name else saved) / file, staging / file)
    with pytest.raises(FingerprintError, match="not made together"):
        DomainTokenizer.from_pretrained(tmp_path / "mixed")


def rewritten(saved, folder, name, change):
    """A copy of a saved tokenizer with one JSON file changed, and a manifest to match."""
    with staged_directory(folder) as staging:
        for file in hub.FILES:
            shutil.copy(saved / file, staging / file)
        plain = json.loads((staging / name).read_text(encoding="utf-8"))
        change(plain)
        (staging / name).write_text(json.dumps(plain), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [
        ("domain_tokenizer.json", lambda j: j.update(version=99), ArtifactError),
        ("domain_tokenizer.json", lambda j: j.pop("fields"), ArtifactError),
        ("domain_tokenizer.json", lambda j: j["fields"].pop(), FingerprintError),
        ("domain_tokenizer.json", lambda j: j["fields"][0].update(state={}), ArtifactError),
        ("domain_tokenizer.json", lambda j: j.update(fingerprint="f00d"), FingerprintError),
        ("tokenizer.json", lambda j: j["model"].update(type="nonsense"), ArtifactError),
        ("tokenizer.json", lambda j: j["model"]["merges"].pop(), ArtifactError),
    ],
)
def test_files_changed_by_hand_are_refused(saved, tmp_path, name, change, kind):
    with pytest.raises(kind):
        DomainTokenizer.from_pretrained(rewritten(saved, tmp_path / "changed", name, change))


def test_a_text_field_needs_a_bpe_model(saved, tmp_path):
    def flatten(plain):
        vocab = plain["model"]["vocab"]
        plain["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}

    with pytest.raises(FingerprintError, match="not made together") as caught:
        DomainTokenizer.from_pretrained(
            rewritten(saved, tmp_path / "flat", "tokenizer.json", flatten)
        )
    assert "no BPE model" in caught.value.why


def test_gaps_in_the_vocabulary_are_found():
    gap = Tokenizer(models.WordLevel(vocab={"a": 0, "b": 2}, unk_token="a"))
    with pytest.raises(ArtifactError, match="not consecutive"):
        tokens_by_id(gap, where="here")


def test_bpe_ids_follow_the_tokens():
    backend = byte_pair(["[PAD]", "[A=1]"], {"low low": 3}, 258)
    assert tokens_by_id(backend, where="memory")[:2] == ["[PAD]", "[A=1]"]
    assert backend.get_vocab_size() == 2 + 258


# ── builder ───────────────────────────────────────────────────────────────────────────────────


def test_the_builder_makes_a_hugging_face_tokenizer():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed"), FieldSpec("note", "text")])
    events = [{"kind": "tea", "note": "hot"}, {"kind": "cake", "note": None}]
    builder = DomainTokenizerBuilder(schema).fit(events)
    made = builder.build_hf_tokenizer(["two teas please"] * 3, bpe_vocab_size=270)
    assert made.tokenize("[KIND=tea][NOTE]teas") == ["[KIND=tea]", "[NOTE]", "teas"]
    own = builder.build_hf_tokenizer(bpe_vocab_size=258)
    assert own.tokenize("hot") == ["hot"]
    assert builder.build(bpe_vocab_size=258).to_hf().get_vocab() == own.get_vocab()


def test_the_builder_refuses_what_is_no_table():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    with pytest.raises(TokenizerError, match="no events"):
        DomainTokenizerBuilder(schema).build_hf_tokenizer(["text"])
    with pytest.raises(DataError, match="table"):
        DomainTokenizerBuilder(schema).fit([{"kind": "a"}, {"kind": [1]}])


# ── other tokenizers and models ───────────────────────────────────────────────────────────────


def host(rows=None, tied=True):
    """A small foreign tokenizer and a GPT-2 of `rows` embedding rows."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    backend = byte_pair(["<|end|>"], {"low lower": 1}, 260)
    foreign = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=rows or len(foreign), n_positions=8, n_embd=8, n_layer=1, n_head=2,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return foreign, GPT2LMHeadModel(config)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare_rows", [0, 5, 1000])
def test_domain_tokens_join_another_vocabulary(tokenizer, tied, spare_rows):
    import torch

    foreign, _ = host()
    old_size = len(foreign)
    foreign, model = host(rows=old_size + spare_rows, tied=tied)
    before = model.get_input_embeddings().weight[:old_size].clone()
    before_out = model.get_output_embeddings().weight[:old_size].clone()
    ids = add_domain_tokens(foreign, tokenizer, model)
    n_new = tokenizer.layout.first_bpe - 4
    assert sorted(ids.values()) == list(range(old_size, old_size + n_new))
    assert foreign.tokenize("[AMOUNT=B01]low") == ["[AMOUNT=B01]", "low"]
    new = slice(old_size, old_size + n_new)
    for layer, old in (
        (model.get_input_embeddings(), before),
        (model.get_output_embeddings(), before_out),
    ):
        assert layer.weight.shape[0] == max(old_size + spare_rows, old_size + n_new)
        assert torch.equal(layer.weight[:old_size], old)
        assert torch.allclose(layer.weight[new], old.mean(0).expand(n_new, -1), atol=1e-6)
    rows = model(torch.tensor([list(ids.values())[:4]])).logits
    assert torch.isfinite(rows).all()


def test_adding_twice_changes_nothing(tokenizer):
    import torch

    foreign, model = host()
    ids = add_domain_tokens(foreign, tokenizer, model)
    with torch.no_grad():
        model.get_input_embeddings().weight[ids["[AMOUNT=B01]"]] = 7.0
    assert add_domain_tokens(foreign, tokenizer, model) == ids
    assert (model.get_input_embeddings().weight[ids["[AMOUNT=B01]"]] == 7.0).all()


def test_a_model_of_another_tokenizer_is_refused(tokenizer):
    foreign, model = host(rows=100)
    with pytest.raises(TokenizerError, match="does not belong to the model"):
        add_domain_tokens(foreign, tokenizer, model)
