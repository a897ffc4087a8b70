"""A plain module goes: HF Trainer; our engine with a rule; Lightning. Saved, loaded, generated."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from domainformer.config import build
from domainformer.errors import ConfigError
from domainformer.models.families import adapter_for
from domainformer.models.families.universal import UniversalAdapter
from domainformer.models.universal.binding import bind
from domainformer.models.universal.identity import given_module
from domainformer.models.universal.module import UniversalModelAdapter
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.universal.verification import verify
from domainformer.registry import Registry
from domainformer.tokenizers.language import CharacterTokenizer
from domainformer.training.language import TextRunConfig
from domainformer.training.language.preparation import read_tokenizer
from domainformer.training.language.run import train

lightning = pytest.importorskip("lightning")
V = 24
# Lightning and what it stands on, about themselves; none of it is about the model.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists.*"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed.*"),
    pytest.mark.filterwarnings("ignore:.*GPU available.*"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*dataloader_iter.*|.*mid-epoch.*|.*isn't resumable.*"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]


class Plain(nn.Module):
    """Blocks of running means; nothing in it knows of transformers."""

    def __init__(self, size: int = V, width: int = 16, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.table = nn.Embedding(size, width)
            self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
            self.head = nn.Linear(width, size)

    def forward(self, tokens):
        x = self.table(tokens)
        for block in self.blocks:
            counts = torch.arange(1, x.shape[1] + 1)[None, :, None]
            x = x + torch.tanh(block(x.cumsum(1) / counts))
        return {"scores": self.head(x)}


def rows(count=48, length=10):
    """The first token of a row again and again: easily learnt."""
    first = torch.randint(4, V, (count, 1), generator=torch.Generator().manual_seed(0))
    return first.expand(count, length).contiguous()


def nats(model):
    with torch.no_grad():
        logits = model(rows())["logits"]
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), rows()[:, 1:].flatten()))


def test_the_module_is_what_it_says():
    assert verify(bind(Plain()), vocab_size=V).passed


def test_hugging_face_trainer(tmp_path):
    model = UniversalForCausalLM.wrap(Plain())
    before = nats(model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=12,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.03,
        save_steps=6,
        logging_steps=100,
        disable_tqdm=True,
        use_cpu=True,
        report_to=[],
    )
    data = [{"input_ids": row, "labels": row} for row in rows()]
    Trainer(model, arguments, train_dataset=data).train()
    assert nats(model) < before - 0.5
    # Interrupted after six steps and resumed, it ends with the same weights.
    again = UniversalForCausalLM.wrap(Plain(seed=1))
    resumed = Trainer(again, arguments, train_dataset=data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    loaded = UniversalForCausalLM.from_pretrained(
        tmp_path / "out" / "checkpoint-12", module=Plain()
    )
    assert nats(loaded) == nats(model.eval())
    found = loaded.generate(rows(2, 4), max_new_tokens=3, do_sample=False)
    assert found.shape == (2, 7)


def test_our_engine_with_rules_registered_loaded_generated(tmp_path):
    draw = random.Random(0)
    words = ["to", "be", "or", "not", "that", "is"]
    text = "\n".join(" ".join(draw.choice(words) for _ in range(8)) + "." for _ in range(60))
    (tmp_path / "play.txt").write_text(text)
    CharacterTokenizer.fit([text]).save_pretrained(tmp_path / "tokenizer")
    tokenizer = read_tokenizer(tmp_path / "tokenizer")
    size = len(tokenizer)
    model = UniversalForCausalLM.wrap(Plain(size), arguments={"size": size})
    adapter = UniversalAdapter(model, tokenizer, folder=tmp_path / "tokenizer")
    registry = Registry(tmp_path / "models")
    registry.publish(adapter.save_checkpoint(tmp_path / "first"), "first")
    config = build(
        TextRunConfig,
        {
            "data": {"path": str(tmp_path / "play.txt")},
            "model_name": "first",
            "model": {},
            "rules": [{"activation_noise": {"std": 0.05, "sites": ["blocks.*"]}}, "z_loss"],
            "training": {
                "context": 16,
                "batch_tokens": 64,
                "max_steps": 8,
                "eval_every": 4,
                "save_every": 4,
                "learning_rate": 0.02,
                "eval_rows": 8,
                "precision": "fp32",
                "quiet": True,
            },
            "sampling": {"tokens": 4, "every": 8},
            "registry": {"root": str(tmp_path / "models"), "publish": "second"},
            "output": {"root": str(tmp_path), "name": "run"},
        },
    )
    with given_module(Plain):
        result = train(config)
        loaded = registry.load("second")
        folder = adapter_for(result.run_dir / "model")
    assert result.metrics["nats"] < result.metrics["unigram_nats"]
    assert registry.lineage("second").ancestors == ("first",)
    ids = torch.tensor([tokenizer("to be")["input_ids"]])
    assert torch.equal(loaded.forward(ids).logits, folder.forward(ids).logits)
    assert not torch.equal(loaded.forward(ids).logits, model(ids).logits)
    found = loaded.model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert len(tokenizer.decode(found[0])) >= len("to be") + 5


def fitted(root, steps, *, seed=0, resume=None, **options):
    adapter = UniversalModelAdapter(Plain(seed=seed), learning_rate=0.03, max_steps=12)
    keeps = lightning.pytorch.callbacks.ModelCheckpoint(
        dirpath=root, save_last=True, every_n_train_steps=6
    )
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=[keeps],
        **options,
    )
    loader = torch.utils.data.DataLoader(rows(), batch_size=8)
    trainer.fit(adapter, loader, loader, ckpt_path=resume)
    return adapter, trainer


def test_lightning_learns_and_resumes_to_the_same_weights(tmp_path):
    straight, trainer = fitted(tmp_path / "straight", 12)
    told = trainer.callback_metrics
    assert float(told["val_perplexity"]) == pytest.approx(float(told["val_loss"].exp()))
    assert float(told["val_loss"]) == pytest.approx(nats(straight.model.eval()), abs=1e-5)
    assert nats(straight.model) < nats(UniversalForCausalLM.wrap(Plain())) - 0.5
    fitted(tmp_path / "cut", 6)
    last = str(tmp_path / "cut" / "last.ckpt")
    state = torch.load(last, weights_only=False)  # our own, of a moment ago
    resumed, _ = fitted(tmp_path / "cut", 12, seed=1, resume=last)
    weights = [list(one.model.parameters()) for one in (straight, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    # The twin that forgot its momentum ends elsewhere, so that the comparison means something.
    for moments in state["optimizer_states"][0]["state"].values():
        moments["exp_avg"].zero_()
    torch.save(state, tmp_path / "forgot.ckpt")
    forgot, _ = fitted(tmp_path / "other", 12, seed=1, resume=str(tmp_path / "forgot.ckpt"))
    assert not torch.equal(forgot.model.model.module.head.weight, weights[0][-2])


def test_a_checkpoint_is_read_without_running_a_pickle(tmp_path):
    adapter, _ = fitted(tmp_path, 6)
    again = UniversalModelAdapter.load_from_checkpoint(
        tmp_path / "last.ckpt", model=Plain(seed=2), weights_only=True
    )
    for one, other in zip(adapter.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.hparams["learning_rate"] == 0.03


def test_lightning_in_bf16_with_accumulation(tmp_path):
    adapter, trainer = fitted(
        tmp_path, 3, precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=1.0
    )
    assert trainer.global_step == 3
    assert adapter.model.dtype == torch.float32
    assert bool(torch.isfinite(trainer.callback_metrics["val_loss"]))


def test_the_schedule_warms_up_and_falls():
    adapter = UniversalModelAdapter(Plain(), learning_rate=1.0, warmup=0.2, max_steps=10)
    made = adapter.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[10] == pytest.approx(0.0, abs=1e-12)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == len(list(adapter.parameters()))
    module = adapter.model.model.module
    assert decays[id(module.blocks[0].weight)] == 0.1
    assert decays[id(module.table.weight)] == decays[id(module.head.bias)] == 0.0


def test_sampling_is_what_it_says():
    adapter = UniversalModelAdapter(Plain())
    ids = rows(2, 4)
    likeliest = adapter.generate(ids, max_new_tokens=4, temperature=0)
    assert torch.equal(likeliest, adapter.generate(ids, max_new_tokens=4, top_k=1))
    assert torch.equal(likeliest, adapter.generate(ids, max_new_tokens=4, top_p=1e-9))
    drawn = [adapter.generate(ids, max_new_tokens=8, temperature=2.0, seed=n) for n in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    state = torch.get_rng_state()
    adapter.generate(ids, seed=3, max_new_tokens=2)
    assert torch.equal(state, torch.get_rng_state())
    assert adapter.model.training
    # Without a limit everything can be drawn, also what is not among the 50 likeliest.
    wide = UniversalModelAdapter(Plain(400))
    many = wide.generate(rows(64, 2), max_new_tokens=8, temperature=50.0, seed=0)[:, 2:]
    assert len(many.unique()) > 150


@pytest.mark.parametrize(
    "given",
    [{"learning_rate": 0}, {"learning_rate": float("nan")}, {"warmup": 2}, {"weight_decay": -1}],
)
def test_numbers_out_of_range_are_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        UniversalModelAdapter(Plain(), **given)


@pytest.mark.parametrize("given", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 2}])
def test_sampling_out_of_range_is_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        UniversalModelAdapter(Plain()).generate(rows(1, 2), **given)
