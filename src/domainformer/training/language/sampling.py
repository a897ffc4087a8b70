"""Text from a language model, piece by piece as it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from domainformer.data.text_policy import describe_character
from domainformer.errors import InputError


@torch.no_grad()
def stream(
    model: Any,
    tokenizer: Any,
    prompt: str = "\n",
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    context: int | None = None,
    stop: bool = True,
) -> Iterator[str]:
    """Continue a text, giving each piece as soon as it is known.

    Keys and values of earlier tokens are kept. Where the context is full, the newer half of it is
    read again and the older half forgotten, so that a text may be of any length.

    Args:
        model: A causal language model; its mode is given back.
        tokenizer: Its tokenizer.
        prompt: The beginning; it is not given again.
        tokens: Length, beyond the prompt.
        temperature: Divides the logits; 0 takes the most probable token each time.
        top_k: Draw among the k most probable tokens.
        top_p: Draw among the most probable tokens that together have the share p.
        seed: Of the draws, which touch no global generator.
        context: Tokens that the model sees at most; None: as its configuration states.
        stop: Whether the token that ends a text ends it here, too.

    Raises:
        InputError: The prompt has a character that the tokenizer does not know, or no token.

    Example:
        >>> import tempfile
        >>> from transformers import AutoTokenizer
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> from domainformer.tokenizers import CharacterTokenizer
        >>> folder = CharacterTokenizer.fit(["to be"]).save_pretrained(tempfile.mkdtemp() + "/t")
        >>> tokenizer = AutoTokenizer.from_pretrained(folder)
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=6, num_hidden_layers=1)
        >>> model = DomainTransformerForCausalLM(config)
        >>> len(list(stream(model, tokenizer, "to", tokens=9, stop=False, context=4)))
        9
    """
    ids = encode_prompt(tokenizer, prompt)
    limit = context or _context_of(model)
    draw = _Draw(model.device, temperature, top_k, top_p, seed)
    end = tokenizer.eos_token_id if stop else None
    was_training = model.training
    model.eval()
    try:
        fed, cache, length = ids[-limit:], None, 0
        given: list[int] = []
        text = ""
        for _ in range(tokens):
            if length + len(fed) > limit:
                fed, cache, length = (ids + given)[-max(1, limit // 2) :], None, 0
            output = model(
                input_ids=torch.tensor([fed], device=model.device),
                past_key_values=cache,
                use_cache=True,
            )
            cache, length = output.past_key_values, length + len(fed)
            chosen = draw(output.logits[:, -1])
            if chosen == end:
                break
            given.append(chosen)
            fed = [chosen]
            # A token may be half a character: what is not whole yet waits.
            whole = tokenizer.decode(given, clean_up_tokenization_spaces=False)
            if not whole.endswith("\ufffd"):
                yield whole[len(text) :]
                text = whole
    finally:
        model.train(was_training)


def sample(model: Any, tokenizer: Any, prompt: str = "\n", **settings: Any) -> str:
    """The prompt and its continuation at once; settings are those of :func:`stream`."""
    return prompt + "".join(stream(model, tokenizer, prompt, **settings))


def encode_prompt(tokenizer: Any, prompt: str, *, where: str | None = None) -> list[int]:
    """The ids of a prompt.

    Args:
        tokenizer: Any of Hugging Face's interface.
        prompt: The text.
        where: Where it was given, for errors.

    Raises:
        InputError: The tokenizer does not know a character of it, or it is empty.
    """
    try:
        ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    except Exception as error:
        raise InputError(
            f"the prompt {prompt!r} cannot be encoded",
            where=where,
            why=_unknown(tokenizer, prompt) or str(error).strip().splitlines()[0],
            next_step="use characters of the training text",
        ) from error
    if not ids:
        raise InputError(
            "the prompt is empty", where=where, next_step="give at least one character"
        )
    return ids


def _unknown(tokenizer: Any, prompt: str) -> str | None:
    """The first character that the tokenizer cannot read by itself; its own words name none."""
    for place, char in enumerate(prompt, start=1):
        try:
            tokenizer(char, add_special_tokens=False)
        except Exception:  # noqa: BLE001 - tokenizers raise Exception itself
            return f"character {place}, {describe_character(char)}, is not known to the tokenizer"
    return None


class _Draw:
    """Chooses the next token from logits [1, V]."""

    def __init__(
        self,
        device: torch.device,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        seed: int,
    ) -> None:
        self._greedy = temperature == 0
        warpers: list[Any] = []
        if not self._greedy and temperature != 1:
            warpers.append(TemperatureLogitsWarper(float(temperature)))
        if top_k is not None:
            warpers.append(TopKLogitsWarper(top_k))
        if top_p is not None and top_p < 1:
            warpers.append(TopPLogitsWarper(top_p))
        self._warp = LogitsProcessorList(warpers)
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> int:
        logits = logits.float()
        if self._greedy:
            return int(logits.argmax())
        chances = self._warp(None, logits).softmax(dim=-1)
        return int(torch.multinomial(chances, 1, generator=self._generator))


def _context_of(model: Any) -> int:
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit or getattr(model.config, "n_positions", None) or 2048)
