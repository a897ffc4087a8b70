"""What a model writes while it learns: ``samples.jsonl`` in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from domainformer.artifacts import write_text
from domainformer.training.language.config import SamplingConfig
from domainformer.training.language.sampling import encode_prompt, sample

SAMPLES_FILE = "samples.jsonl"


class Samples(TrainerCallback):
    """Writes texts at a cadence; draws touch no generator of the training.

    Args:
        path: The file.
        config: Cadence and settings.
        model: The model.
        tokenizer: Its tokenizer.
        context: Tokens that it was trained to see.
        beginning: The prompt where the configuration has none.
        after: Samples beyond this step are dropped first: a resumed run writes them again.

    Raises:
        InputError: The tokenizer cannot read a prompt.
    """

    def __init__(
        self,
        path: Path,
        config: SamplingConfig,
        model: Any,
        tokenizer: Any,
        *,
        context: int,
        beginning: str,
        after: int = 0,
    ) -> None:
        self._path, self._config, self._context = path, config, context
        self._model, self._tokenizer = model, tokenizer
        self._prompts = config.prompts or (beginning,)
        if config.every != 0:
            for prompt in self._prompts:  # a prompt that fails shall fail before the training
                encode_prompt(tokenizer, prompt, where="sampling.prompts")
        kept = [one for one in read_samples(path) if one["step"] <= after]
        write_text(path, "".join(_line(one) for one in kept))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a sample where one is due; the last step's are written with the final weights."""
        every = self._config.every
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            self.write(state.global_step)

    def write(self, step: int) -> None:
        """Write one text for each prompt."""
        settings = self._config
        with self._path.open("a", encoding="utf-8") as handle:
            for prompt in self._prompts:
                text = sample(
                    self._model,
                    self._tokenizer,
                    prompt,
                    tokens=settings.tokens,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    seed=settings.seed,
                    context=self._context,
                )
                handle.write(_line({"step": step, "prompt": prompt, "text": text}))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The samples of a run; a last line that was cut off by a kill is left out."""
    found: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found


def _line(sample_: dict[str, Any]) -> str:
    return json.dumps(sample_, ensure_ascii=False) + "\n"
