"""Tiny tokenizers of every kind, made without a network."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = (
    "to be or not to be, that is the question",
    "the quick brown fox jumps over the lazy dog",
    "fear no more the heat of the sun, nor the furious winter's rages",
)


def byte_level(size: int = 300) -> Tokenizer:
    """As GPT-2: every text comes back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_pieces() -> Tokenizer:
    """As BERT: lower case, without accents, unknown words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=120,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@cache
def hub_gpt():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="<|endoftext|>", pad_token="<pad>"
    )


@cache
def hub_bert():
    from transformers import PreTrainedTokenizerFast

    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    roles = {f"{role}_token": token for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=word_pieces(), **roles)


@cache
def hub_python():
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()
