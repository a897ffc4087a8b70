"""What a text tokenizer promises, one function per promise; each takes a view and tells.

::

    check_size         as many ids as the model expects, and every id has a token
    check_specials     pad, bos, eos, … exist, are one id each, and are told apart
    check_round_trip   decode(encode(text)) is the text
    check_id_range     no id lies outside the vocabulary
    check_offsets      spans lie in the text, in order, and leave no character out
    check_batch        a batch gives the ids of its texts alone, and masks its filling
    check_rows         the embedding has a row for every id
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from domainformer.errors import DomainformerError
from domainformer.tokenizers.language.view import TextView

Status = Literal["pass", "warn", "fail", "skip"]
Texts = Mapping[str, str]

_EXAMPLES = 3
PADDING = 0.02
"""Share of the expected size that may be rows without a token (Phi-2, padded most, has 1.8 %)."""


@dataclass(frozen=True)
class TextCheck:
    """What one check found.

    Args:
        name: Short name.
        status: ``pass``; ``warn`` for what a user should know and may want; ``fail``; ``skip``
            where there was nothing to look at.
        reason: What was found, as a sentence.
        examined: How many things were looked at.
        examples: The first of those that are not as they should be.
        remedy: What to do about it.
    """

    name: str
    status: Status
    reason: str
    examined: int = 0
    examples: tuple[str, ...] = ()
    remedy: str | None = None


def check_size(view: TextView, expected: int | None, rows: int | None) -> TextCheck:
    """Number of ids against the expectation, and whether the ids are 0 … size − 1."""
    name, size = "vocabulary size", view.size
    ids = list(view.vocab().values())
    holes = size - len({index for index in ids if 0 <= index < size})
    outside = [index for index in ids if not 0 <= index < size]
    if outside:
        why = f"{len(outside):,} ids of the vocabulary lie outside 0 … {size - 1:,}"
        return TextCheck(name, "fail", why, size, tuple(map(str, outside[:_EXAMPLES])))
    has = f"it has {size:,} ids"
    if holes:
        # Usual where files reserve ids; such an id is never made from text.
        has += f", {holes:,} of them without a token of their own"
    if expected is None or size == expected:
        status: Status = "warn" if holes else "pass"
        return TextCheck(name, status, has if expected is None else f"{has}, as expected", size)
    said = f"{has}, expected were {expected:,}"
    if size > expected:
        remedy = "resize the model's embeddings, or take the tokenizer that belongs to the model"
        return TextCheck(name, "fail", said, size, remedy=remedy)
    if rows == expected or expected - size <= PADDING * expected:
        padded = f"{has}; {expected - size:,} of {expected:,} are padding that no text reaches"
        return TextCheck(name, "pass" if rows == expected and not holes else "warn", padded, size)
    remedy = "take the tokenizer that belongs to the model, or train one of this size"
    return TextCheck(name, "fail", said, size, remedy=remedy)


def check_specials(view: TextView) -> TextCheck:
    """Every named special token is one id of the vocabulary, and padding can be told apart."""
    name, specials = "special tokens", view.specials()
    token_of = {index: token for token, index in view.vocab().items()}
    wrong = [
        f"{role} {token!r} " + ("is not in the vocabulary" if index is None else f"is id {index}")
        for role, (token, index) in specials.items()
        if index is None or not 0 <= index < view.size or token_of.get(index) != token
    ]
    for one in ("bos", "eos", "unk", "cls", "sep"):
        pair = (specials.get(one), specials.get("mask"))
        if None not in pair and pair[0] == pair[1]:
            wrong.append(f"{one} and mask are both {pair[0][0]!r}")  # type: ignore[index]
    if wrong:
        remedy = "name the tokens as the vocabulary spells them"
        return _told(name, "fail", "special tokens are wrong", wrong, len(specials), remedy)
    missing = [role for role in ("pad", "eos") if role not in specials]
    if "pad" in specials and specials["pad"] == specials.get("eos"):
        told = "padding is the end token: mask it by attention_mask, never by its id"
        return TextCheck(name, "warn", told, len(specials))
    if missing:
        told = f"there is no {' and no '.join(missing)} token"
        remedy = "set it, for example tokenizer.pad_token = tokenizer.eos_token"
        return TextCheck(name, "warn", told, len(specials), remedy=remedy)
    names = ", ".join(f"{role} {index}" for role, (_, index) in specials.items())
    return TextCheck(name, "pass", names, len(specials))


def check_round_trip(view: TextView, texts: Texts) -> TextCheck:
    """Whether texts come back; those that do not are normalised, unknown, refused or lost.

    A text that comes back changed is *normalised* where the change is stable, that is where what
    came back has the same ids, and letters did not become nothing; otherwise it was lost.
    """
    name = "round trip"
    kinds: dict[str, list[str]] = {"normalised": [], "unknown": [], "refused": [], "lost": []}
    for label, text in texts.items():
        kind, told = _came_back(view, text)
        if kind != "exact":
            kinds[kind].append(f"{label}: {told}")
    total, lost = len(texts), kinds["lost"]
    if lost:
        return _told(name, "fail", f"{len(lost)} of {total} texts are lost", lost, total)
    changed = [entry for entries in kinds.values() for entry in entries]
    if not changed:
        return TextCheck(name, "pass", f"all {total} texts come back exactly", total)
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items() if found)
    exact = total - len(changed)
    return _told(name, "warn", f"{exact} of {total} texts come back: {counts}", changed, total)


def check_id_range(view: TextView, texts: Texts) -> TextCheck:
    """Whether every id of every text lies in [0, size)."""
    name, wrong, looked = "id range", [], 0
    for label, text in texts.items():
        ids = _or_none(view.encode, text) or []
        looked += len(ids)
        outside = [index for index in ids if not 0 <= index < view.size]
        if outside:
            wrong.append(f"{label}: id {outside[0]:,} of {view.size:,}")
    if wrong:
        return _told(name, "fail", f"{len(wrong)} texts have ids outside", wrong, looked)
    return TextCheck(name, "pass", f"{looked:,} ids lie within 0 … {view.size - 1:,}", looked)


def check_offsets(view: TextView, texts: Texts) -> TextCheck:
    """Whether spans lie in the text and in order, and cover what comes back exactly."""
    name, wrong, looked = "offsets", [], 0
    if view.offsets("a") is None:
        told = "a Python tokenizer gives no offset_mapping (and transformers raises no error)"
        remedy = "take its fast form where character positions are needed"
        return TextCheck(name, "skip", told, remedy=remedy)
    for label, text in texts.items():
        exact = _came_back(view, text)[0] == "exact"
        problem = _misplaced(view, text, covers=exact)
        looked += 1
        if problem is not None:
            wrong.append(f"{label}: {problem}")
    if wrong:
        return _told(name, "fail", f"{len(wrong)} texts have wrong spans", wrong, looked)
    return TextCheck(name, "pass", f"the spans of {looked} texts are where they say", looked)


def check_batch(view: TextView, texts: Texts) -> TextCheck:
    """Whether a batch has the ids that its texts have alone, with and without padding."""
    name = "batch equals single"
    alone = {label: _or_none(view.encode, text) for label, text in texts.items()}
    kept = {label: ids for label, ids in alone.items() if ids is not None}
    given = [texts[label] for label in kept]
    wrong = _differing(kept, view.encode_all(given), "alone {a}, in a batch {b}")
    rows = view.padded(given) if not wrong else None
    if rows is not None:
        masked = [
            [index for index, real in zip(ids, mask, strict=True) if real]
            for ids, mask in zip(*rows, strict=True)
        ]
        wrong = _differing(kept, masked, "alone {a}, padded and masked {b}")
        if len({len(ids) for ids in rows[0]}) > 1:
            wrong.append("padded rows have different lengths")
    if wrong:
        return _told(name, "fail", f"{len(wrong)} of {len(kept)} texts differ", wrong, len(kept))
    also = ", padded too" if rows is not None else ""
    return TextCheck(name, "pass", f"{len(kept)} texts have equal ids{also}", len(kept))


def check_rows(view: TextView, rows: int | None) -> TextCheck:
    """Whether the embedding has a row for every id."""
    name, size = "embedding rows", view.size
    if rows is None:
        return TextCheck(name, "skip", "no model was given")
    if rows < size:
        remedy = f"model.resize_token_embeddings({size}), or the model's own tokenizer"
        told = f"{size - rows:,} of {size:,} ids have no row: the embedding has {rows:,}"
        return TextCheck(name, "fail", told, rows, remedy=remedy)
    spare = f", {rows - size:,} more than ids" if rows > size else ""
    return TextCheck(name, "pass", f"the embedding has {rows:,} rows{spare}", rows)


def _came_back(view: TextView, text: str) -> tuple[str, str]:
    """What became of a text: exact, normalised, unknown, refused or lost; and an example."""
    try:
        ids = view.encode(text)
    except DomainformerError as error:
        return "refused", error.what
    except Exception as error:  # noqa: BLE001  (a foreign tokenizer may raise anything)
        return "lost", f"{type(error).__name__}: {error}"
    try:
        back = view.decode(ids)
        again = ids if back == text else view.encode(back)
    except Exception as error:  # noqa: BLE001
        return "lost", f"{type(error).__name__}: {error}"
    if back == text:
        return "exact", ""
    told = f"{text[:40]!r} became {back[:40]!r}"
    unknown = view.specials().get("unk", ("", None))[1]
    if unknown is not None and unknown in ids:
        return "unknown", told
    emptied = not back.strip() and any(map(str.isalnum, text))
    return ("normalised" if again == ids and not emptied else "lost"), told


def _misplaced(view: TextView, text: str, *, covers: bool) -> str | None:
    """What is wrong with the spans of a text, or None."""
    ids = _or_none(view.encode, text)
    if ids is None:
        return None
    found = view.offsets(text)
    if found is None or found[0] != ids or len(found[1]) != len(ids):
        return "they are not those of its ids"
    reached = 0
    covered = bytearray(len(text))
    for start, stop in found[1]:
        if not 0 <= start <= stop <= len(text):
            return f"({start}, {stop}) lies outside a text of {len(text)}"
        if start < reached:
            return f"({start}, {stop}) goes back behind {reached}"
        reached = start
        covered[start:stop] = b"\1" * (stop - start)
    left_out = (i for i, char in enumerate(text) if not covered[i] and not char.isspace())
    place = next(left_out, None) if covers else None
    return None if place is None else f"character {place}, {text[place]!r}, is in no span"


def _differing(alone: Mapping[str, list[int]], batch: list[list[int]], told: str) -> list[str]:
    if len(batch) != len(alone):
        return [f"{len(alone)} texts gave {len(batch)} rows"]
    pairs = zip(alone.items(), batch, strict=True)
    return [
        f"{label}: " + told.format(a=one[:6], b=other[:6])
        for (label, one), other in pairs
        if one != other
    ]


def _or_none(encode: Callable[[str], list[int]], text: str) -> list[int] | None:
    """The ids, or None where the tokenizer cannot take the text: the round trip tells that."""
    try:
        return encode(text)
    except Exception:  # noqa: BLE001
        return None


def _told(
    name: str,
    status: Status,
    reason: str,
    entries: list[str],
    examined: int,
    remedy: str | None = None,
) -> TextCheck:
    return TextCheck(name, status, reason, examined, tuple(entries[:_EXAMPLES]), remedy)
