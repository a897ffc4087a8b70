"""Data modules: sources, splits, padding and packing, workers, and resuming in mid-epoch."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch

from domainformer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FingerprintError,
    MissingExtraError,
)
from domainformer.tokenizers import CharacterTokenizer
from domainformer.training.lightning import (
    AdaptiveTokenizerDataModule,
    EpochLoader,
    SimpleDataModule,
    TextRows,
)

pytestmark = pytest.mark.filterwarnings(
    # Lightning and what it imports still use what others have deprecated.
    "ignore::DeprecationWarning:lightning",
    "ignore::FutureWarning:lightning",
)

TEXTS = [f"verse {number}: " + "to be or not to be, " * (1 + number % 4) for number in range(24)]
CHARACTERS = CharacterTokenizer.ascii()


def module(source=TEXTS, **options):
    given = {"context": 48, "batch_size": 4} | options
    return SimpleDataModule(source, CHARACTERS, **given)


def texts_of(batches):
    """The documents' pieces that batches hold, whatever their order."""
    found = []
    for batch in batches:
        for number, row in enumerate(batch["input_ids"]):
            if "attention_mask" in batch:
                found.append(row[batch["attention_mask"][number].bool()].tolist())
                continue
            starts = torch.nonzero(batch["position_ids"][number] == 0)[:, 0].tolist()
            cuts = [*starts, len(row)]
            parts = [row[a:b].tolist() for a, b in itertools.pairwise(cuts)]
            found += [part for part in parts if any(part)]  # the filling is id 0 alone
    return sorted(found)


def pieces(texts, context=48):
    """What `texts_of` shall find, in the plainest way."""
    ids = [[*CHARACTERS.encode(text), 0] for text in texts]
    cut = [one[start : start + context] for one in ids for start in range(0, len(one), context)]
    return sorted(part for part in cut if any(part))


# ── batches ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("collate", ["pad", "pack"])
def test_every_epoch_holds_each_text_once_in_another_order(collate):
    data = module(collate=collate)
    data.setup()
    train = [document.text for document in data._texts["train"]]
    loader = data.train_dataloader()
    epochs = [list(loader), list(loader)]
    for batches in epochs:
        assert len(batches) == len(loader) == data.describe()["train"]["batches"]
        assert texts_of(batches) == pieces(train)
    first, second = (torch.cat([b["input_ids"].flatten() for b in e]) for e in epochs)
    assert first.shape != second.shape or not torch.equal(first, second)
    again = list(module(collate=collate).train_dataloader())
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(epochs[0], again, strict=True))


def test_labels_leave_out_filling_and_the_first_of_each_text():
    batch = module(collate="pad").sample_batch()
    real = batch["attention_mask"].bool()
    scored = batch["labels"] != -100
    assert not scored[~real].any()
    assert not scored[:, 0].any()
    assert torch.equal(batch["labels"][scored], batch["input_ids"][scored])
    packed = module(collate="pack").sample_batch()
    assert (packed["labels"][packed["position_ids"] == 0] == -100).all()


def test_packing_leaves_fewer_places_empty():
    padded, packed = module(collate="pad"), module(collate="pack")
    assert packed.describe()["train"]["filling"] < padded.describe()["train"]["filling"] / 2


@pytest.mark.parametrize("left_out", [None, "position_ids", "use_cache"])
def test_a_model_keeps_packed_texts_apart(left_out):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=98, num_hidden_layers=1, **sizes)
    model = LlamaForCausalLM(config).eval()
    batch = module(collate="pack").sample_batch()
    start = int(torch.nonzero(batch["position_ids"][0] == 0)[1, 0])
    row = batch["input_ids"]
    stop = start + 5
    with torch.no_grad():
        alone = model(input_ids=row[:1, start:stop]).logits
        given = {name: value for name, value in batch.items() if name != left_out}
        together = model(**given).logits[:1, start:stop]
    assert torch.allclose(alone, together, atol=1e-5) == (left_out is None)


def test_workers_give_the_same_batches():
    here, there = module().train_dataloader(), module(workers=1).train_dataloader()
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["input_ids"], b["input_ids"])


def test_nothing_moves_a_global_generator():
    before = torch.random.get_rng_state()
    list(module(collate="pack").train_dataloader())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_sample_batch_is_the_one_of_the_epoch_and_moves_nothing():
    data = module()
    loader = data.train_dataloader()
    sample = data.sample_batch(epoch=1, index=2)
    list(loader)
    assert torch.equal(list(loader)[2]["input_ids"], sample["input_ids"])
    validation = data.sample_batch("validation")
    assert torch.equal(validation["input_ids"], next(iter(data.val_dataloader()))["input_ids"])
    assert data.render_sample().count("\n") == 3
    assert "verse" in data.render_sample()
    with pytest.raises(CheckpointError, match="no batch 99"):
        data.sample_batch(index=99)
    with pytest.raises(ConfigError, match="validation"):
        data.sample_batch("valid")


# ── sources and splits ───────────────────────────────────────────────────────────────────────


def test_sources_of_every_kind_give_the_same(tmp_path):
    from datasets import Dataset

    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number:02}.txt").write_text(text)
    wanted = texts_of(module().train_dataloader())
    table = Dataset.from_dict({"text": TEXTS, "label": [0] * len(TEXTS)})
    for source in (tmp_path / "texts", str(tmp_path / "texts"), iter(TEXTS), table):
        assert texts_of(module(source).train_dataloader()) == wanted
    assert texts_of(module(table.to_iterable_dataset()).train_dataloader()) == wanted
    other = Dataset.from_dict({"body": TEXTS})
    assert texts_of(module(other, text_column="body").train_dataloader()) == wanted
    with pytest.raises(DataError, match="no column 'text'"):
        module(other).setup()


def test_the_validation_is_disjoint_repeatable_and_may_be_given():
    from datasets import Dataset, DatasetDict

    data = module(TEXTS + TEXTS)  # copies stay on one side
    data.setup()
    train, held = ({d.text for d in data._texts[part]} for part in ("train", "validation"))
    assert not train & held
    assert train | held == set(TEXTS)
    again = module(TEXTS + TEXTS)
    again.setup()
    assert {d.text for d in again._texts["validation"]} == held
    assert module(validation=["other"]).describe()["validation"]["texts"] == 1
    parts = DatasetDict(
        train=Dataset.from_dict({"text": TEXTS}), validation=Dataset.from_dict({"text": ["a", "b"]})
    )
    assert module(parts).describe()["validation"]["texts"] == 2
    one = module(["to be or not to be " * 20])
    assert one.describe()["train"]["texts"] == 1  # one text is cut by position


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "no texts"),
        ([1], "text 0 is int"),
        (7, "int is no source"),
        ({"test": ["a"]}, "no part 'train'"),
        (["a"], "too short to be split"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(DataError, match=message):
        module(source).setup()


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"workers": -1}, {"seed": -1}, {"context": 1}, {"collate": "pak"},
     {"validation": 1.5}],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(ConfigError):
        module(**options).setup()


def test_rows_refuse_what_is_empty():
    with pytest.raises(DataError, match="no ids"):
        TextRows([[]], context=4, eos_id=0)
    with pytest.raises(IndexError):
        TextRows([[1, 2]], context=4)[1]
    with pytest.raises(ConfigError, match="epoch"):
        TextRows([[1, 2]], context=4).set_epoch(-1)


# ── the adaptive one ─────────────────────────────────────────────────────────────────────────


def test_the_tokenizer_is_fitted_on_training_texts_alone(monkeypatch):
    from domainformer.training.lightning import data_modules

    seen = []
    fit = data_modules.AdaptiveTokenizer.fit
    monkeypatch.setattr(
        data_modules.AdaptiveTokenizer,
        "fit",
        lambda texts, **options: (seen.extend(texts), fit(texts, **options))[1],
    )
    data = AdaptiveTokenizerDataModule(TEXTS, 600, context=48, collate="pack")
    data.setup()
    assert sorted(seen) == sorted(document.text for document in data._texts["train"])
    assert data.tokenizer.choice.tier == "characters"
    assert data.sample_batch()["input_ids"].max() < len(data.tokenizer)


# ── resuming ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_where_it_was(taken, workers):
    whole = module().train_dataloader()
    epochs = [list(whole), list(whole)]
    loader = module(workers=workers).train_dataloader()
    list(loader)
    running = iter(loader)
    for _ in range(taken):
        next(running)
    state = loader.state_dict()
    assert state == {"epoch": 1, "batch": taken}
    after = module().train_dataloader()
    after.load_state_dict(state)
    rest = list(after)
    assert [b["input_ids"].tolist() for b in rest] == [
        b["input_ids"].tolist() for b in epochs[1][taken:]
    ]
    with pytest.raises(CheckpointError):
        after.load_state_dict({"epoch": 0, "batch": 99})


def train(folder, data, *, steps, resume=None, saved_after=None, seen):
    """Train with Lightning, and note the batches."""
    from lightning.pytorch import LightningModule, Trainer

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, index):
            seen.append(batch["input_ids"].tolist())
            return self.weight**2

        def validation_step(self, batch, index):
            validated.append(batch["input_ids"].tolist())

        def on_train_batch_end(self, outputs, batch, index):
            if self.global_step == saved_after:
                self.trainer.save_checkpoint(folder / "mid.ckpt")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        enable_model_summary=False,
        default_root_dir=folder,
        **quiet,
    )
    validated: list[object] = []
    trainer.fit(Model(), datamodule=data, ckpt_path=resume, weights_only=False)
    assert validated


@pytest.mark.filterwarnings("ignore")  # Lightning has much to say to a loop without a model
@pytest.mark.parametrize("sabotaged", [False, True])
def test_lightning_resumes_in_mid_epoch(tmp_path, sabotaged, monkeypatch):
    whole, rest = [], []
    # Seven batches an epoch: the checkpoint lies in the second one.
    data = module(batch_size=3, context=96)
    batches = data.describe()["train"]["batches"]
    train(tmp_path, data, steps=2 * batches, saved_after=batches + 2, seen=whole)
    if sabotaged:
        monkeypatch.setattr(EpochLoader, "load_state_dict", lambda self, state: None)
    again = module(batch_size=3, context=96)
    train(tmp_path, again, steps=2 * batches, resume=tmp_path / "mid.ckpt", seen=rest)
    assert len(whole) == 2 * batches
    assert (rest == whole[batches + 2 :]) != sabotaged


def test_other_data_are_not_resumed_on():
    data = module()
    state = data.state_dict()
    module().load_state_dict(state)
    for other in (module(TEXTS[:-1]), module(batch_size=5), module(collate="pack")):
        other.load_state_dict(state)  # told where the data are there
        with pytest.raises(FingerprintError, match="other data"):
            other.setup()


def test_without_lightning_the_extra_is_named(monkeypatch):
    name = "domainformer.training.lightning.data_modules"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    import domainformer.training.lightning as package

    monkeypatch.delattr(package, "data_modules", raising=False)
    with pytest.raises(MissingExtraError, match="domainformer\\[lightning\\]"):
        package.SimpleDataModule  # noqa: B018
