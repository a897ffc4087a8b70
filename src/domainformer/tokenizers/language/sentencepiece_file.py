"""A SentencePiece model as a ``tokenizers.Tokenizer``, compared with SentencePiece itself.

::

    model.model ─▶ normaliser spec ─▶ Precompiled, blanks ─┐
                   pieces, scores  ─▶ Unigram or BPE      ─┼─▶ Tokenizer ─▶ ids of 51 texts
                   control pieces  ─▶ special tokens      ─┘                    ║ equal?
                                                 SentencePieceProcessor ─▶ ids ─╝

The translation is known to be exact for most models and not for all, hence the comparison: what
differs is told, and never silently taken.

Kudo and Richardson 2018, "SentencePiece: A simple and language independent subword tokenizer".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainformer.errors import MissingExtraError, TokenizerError
from domainformer.tokenizers.language.unicode_corpus import UNICODE_CORPUS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

_UNIGRAM, _BPE = 1, 2
_UNKNOWN, _CONTROL, _USER = 2, 3, 4
_BLANK = "▁"


def sentencepiece_backend(path: Path) -> tuple[Tokenizer, dict[str, str], tuple[str, ...]]:
    """Translate a SentencePiece model.

    Args:
        path: Written by SentencePiece's trainer, often ``tokenizer.model`` or ``spiece.model``.

    Returns:
        The tokenizer; role (bos, eos, unk, pad) → token; and what a user should know.

    Raises:
        MissingExtraError: sentencepiece or protobuf is not installed.
        TokenizerError: This is no SentencePiece model, or one of words or of characters, or most
            texts would have other ids.
    """
    proto, processor = _read(path)
    backend = _translate(path, proto)
    numbers = {
        "bos": processor.bos_id(),
        "eos": processor.eos_id(),
        "unk": processor.unk_id(),
        "pad": processor.pad_id(),
    }
    roles = {role: processor.id_to_piece(i) for role, i in numbers.items() if i >= 0}
    return backend, roles, _compared(path, backend, processor)


def _read(path: Path) -> tuple[Any, Any]:
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise MissingExtraError(
            "sentencepiece", extra="sentencepiece", purpose="reading a SentencePiece model"
        ) from error
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except Exception as error:
        # protobuf and SentencePiece have errors of their own for what they cannot parse.
        raise TokenizerError(
            f"{path} is no SentencePiece model",
            why=f"{type(error).__name__}: {error}",
            next_step="give the file that its trainer wrote with the ending .model",
        ) from error
    return proto, processor


def _translate(path: Path, proto: Any) -> Tokenizer:
    trained, spec = proto.trainer_spec, proto.normalizer_spec
    fallback = bool(trained.byte_fallback)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    if trained.model_type == _UNIGRAM:
        model: Any = models.Unigram(pieces, unk_id=trained.unk_id, byte_fallback=fallback)
    elif trained.model_type == _BPE:
        model = models.BPE(
            {piece: index for index, (piece, _) in enumerate(pieces)},
            _merges(proto),
            unk_token=next((p.piece for p in proto.pieces if p.type == _UNKNOWN), None),
            fuse_unk=True,
            byte_fallback=fallback,
        )
    else:
        raise TokenizerError(
            f"{path} is a SentencePiece model of words or of characters",
            why="only the kinds unigram and bpe can be translated",
            next_step="take CharacterLevelTokenizer for characters",
        )
    backend = Tokenizer(model)
    backend.normalizer = _normalizer(spec)
    prefix = bool(spec.add_dummy_prefix)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=_BLANK,
        prepend_scheme="never",
        split=bool(trained.split_by_whitespace),
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    parts = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(parts)
    backend.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
            for piece in proto.pieces
            if piece.type in (_CONTROL, _USER)
        ]
    )
    # "<s>" inside a text is text for SentencePiece.
    backend.encode_special_tokens = True
    return backend


def _normalizer(spec: Any) -> Any:
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        # Metaspace would leave it out before a text that begins with a blank.
        steps.append(normalizers.Prepend(_BLANK))
    return normalizers.Sequence(steps) if steps else None


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Pairs of pieces that make a piece, the best piece first."""
    usable = [
        (index, piece.piece)
        for index, piece in enumerate(proto.pieces)
        if piece.type not in (_UNKNOWN, _CONTROL, _USER)
    ]
    rank = {piece: index for index, piece in usable}
    found = []
    for index, piece in usable:
        cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        pairs = [(rank[a], rank[b], a, b) for a, b in cuts if a in rank and b in rank]
        # The trainer gives the score −n to the n-th merge.
        found += [(-proto.pieces[index].score, *pair) for pair in sorted(pairs)]
    return [(a, b) for *_, a, b in sorted(found)]


def _compared(path: Path, backend: Tokenizer, processor: Any) -> tuple[str, ...]:
    """What the two say differently of texts from all over Unicode; most, and it is refused."""
    different = [
        name
        for name, text in UNICODE_CORPUS.items()
        if backend.encode(text, add_special_tokens=False).ids != processor.encode(text)
    ]
    if not different:
        return (f"{len(UNICODE_CORPUS)} texts have the ids that SentencePiece gives them",)
    if len(different) > len(UNICODE_CORPUS) // 2:
        raise TokenizerError(
            f"{path} cannot be translated",
            why=f"{len(different)} of {len(UNICODE_CORPUS)} texts would have other ids",
            next_step="give the model's own tokenizer.json",
        )
    named = ", ".join(different[:5]) + (", …" if len(different) > 5 else "")
    return (
        f"{len(different)} of {len(UNICODE_CORPUS)} texts have other ids than SentencePiece gives "
        f"them ({named}): take the model's own tokenizer.json where there is one",
    )
