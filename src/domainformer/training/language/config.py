"""The configuration of a language model's run: one file for everything.

::

    data:       {path: shakespeare.txt}
    model:      {preset: tiny}                # or model_name: a registered model to train further
    training:   {context: 64, max_steps: 2000}
    rules:      [muon]
    surgery:    {layer_decay: 0.9}        # or freeze, unfreeze, lora
    sampling:   {every: 500, prompts: ["ROMEO:"]}
    registry:   {publish: shakespeare}
    output:     {root: runs, name: shakespeare}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from domainformer.config import StrictConfig
from domainformer.data.text_policy import Policy, Unknown
from domainformer.training.config import ModelConfig, OutputConfig
from domainformer.training.optimisation_config import OptimisationConfig
from domainformer.training.rules.config import RulesConfig
from domainformer.training.surgery_config import SurgeryConfig


class TextDataConfig(StrictConfig):
    """The text.

    Args:
        path: A file, a pattern such as ``books/*.txt``, or a folder of ``.txt`` files;
            ``${NAME}`` stands for a variable of the environment.
        policy: Characters that the text may hold (see :mod:`domainformer.data.text_policy`);
            ``auto``: printable ASCII, newline and tab for a character tokenizer, and text as it
            is for a tokenizer that came with a model.
        unknown: What happens to other characters: ``error``, ``replace`` or ``drop``.
        split_by: ``position``: the last part of each document is validation; ``document``: whole
            documents are drawn for it.
        validation: Share of the characters, or of the documents.
        split_seed: Of the draw of documents.
        stride: Tokens from one training window to the next; None: the context.
        cross_documents: Whether windows run over the ends of documents, which are then marked by
            the token that ends a text.
    """

    path: str | None = None
    policy: Policy | Literal["auto"] = "auto"
    unknown: Unknown = "error"
    split_by: Literal["position", "document"] = "position"
    validation: float = Field(0.1, gt=0, lt=1)
    split_seed: int = Field(0, ge=0)
    stride: int | None = Field(None, ge=1)
    cross_documents: bool = False


class TextTokenizerConfig(StrictConfig):
    """The tokenizer of a new model; a registered model has its own.

    Args:
        alphabet: Of the character tokenizer: ``fitted`` to the training text, or all of ``ascii``
            that the policy admits.
        path: A folder with any Hugging Face tokenizer, in place of characters.
    """

    alphabet: Literal["fitted", "ascii"] = "fitted"
    path: str | None = None


class TextTrainingConfig(OptimisationConfig):
    """The optimisation, with the defaults that small language models like.

    Args:
        context: Tokens that a prediction sees at most, and predictions of a row.
    """

    context: int = Field(256, ge=8)
    batch_tokens: int | Literal["auto"] = 4096
    final_rate: float = Field(0.1, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.99)
    eval_rows: int | None = Field(None, ge=1)


class ScoringConfig(StrictConfig):
    """How the whole validation text is scored at the end.

    Args:
        rows: Windows at once.
        history: Tokens that each window repeats, unscored, from the one before it, so that what it
            scores sees at least so many; 0 is the usual measure, and the fastest.
    """

    rows: int = Field(64, ge=1)
    history: int = Field(0, ge=0)


class SamplingConfig(StrictConfig):
    """Texts that the model writes while it trains, for the run and its report.

    Args:
        every: Steps between samples; None: only at the end. 0: never.
        prompts: Beginnings; each gives one text. None: the first words of the validation text.
        tokens: Length of each text beyond its prompt.
        temperature: Of the draw; 0 takes the most probable.
        top_k: Draw among the k most probable.
        top_p: Draw among the likeliest share p.
        seed: Of the draws.
    """

    every: int | None = Field(None, ge=0)
    prompts: tuple[str, ...] = ()
    tokens: int = Field(200, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = Field(0, ge=0)


class RegistryConfig(StrictConfig):
    """Where models are registered.

    Args:
        root: Folder of the registry.
        publish: Name under which the trained model is entered; None: it is not.
        overwrite: Replace a model of that name, provided that none descends from it.
    """

    root: str = "models"
    publish: str | None = None
    overwrite: bool = False


class TextRunConfig(RulesConfig):
    """Everything that decides the run of a language model.

    Args:
        data: The text.
        tokenizer: Of a new model.
        model_name: A registered model to train further, with its adapter and native tokenizer;
            None: a new Transformer of our own.
        model: The new Transformer; its positions are ``learned`` unless ``overrides`` say
            otherwise.
        training: The optimisation.
        surgery: What of the model learns, when, how fast, and through what.
        evaluation: The score of the whole validation text.
        sampling: Texts that the model writes.
        registry: Where models are registered.
        output: Where the run is written.

    Example:
        >>> from domainformer.config import build
        >>> config = build(TextRunConfig, {"data": {"path": "a.txt"}, "rules": ["muon"]})
        >>> config.training.context, config.model_name, config.rules
        (256, None, ('muon',))
    """

    data: TextDataConfig = TextDataConfig()
    tokenizer: TextTokenizerConfig = TextTokenizerConfig()
    model_name: str | None = None
    model: ModelConfig = ModelConfig()
    training: TextTrainingConfig = TextTrainingConfig()
    surgery: SurgeryConfig = SurgeryConfig()
    evaluation: ScoringConfig = ScoringConfig()
    sampling: SamplingConfig = SamplingConfig()
    registry: RegistryConfig = RegistryConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _belong_together(self) -> TextRunConfig:
        if self.training.resume and self.output.name is None:
            raise ValueError("training.resume needs output.name, the run to continue")
        if self.model_name is not None and self.model != ModelConfig():
            raise ValueError("model describes a new model: leave it out, or set model_name to null")
        if self.model_name is not None and self.tokenizer != TextTokenizerConfig():
            raise ValueError("a registered model has its own tokenizer: leave tokenizer out")
        if self.evaluation.history >= self.training.context:
            raise ValueError("evaluation.history must be smaller than training.context")
        if self.model.overrides.get("copy_heads"):
            raise ValueError("copy_heads belong to models of events")
        return self
