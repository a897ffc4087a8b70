"""The configuration of a compressor's run: one file for everything.

::

    model:      {name: ./tiny-qwen2-vl}
    data:       {train: train.jsonl, validation: validation.jsonl}
    compressor: {width: 64, scorers: [information, salience, coupling]}
    training:   {steps: 1000, budgets: [0.25, 0.111, 0.0625], temperature: {end: 0.05}}
    output:     {root: runs, name: tiles}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from domainformer.config import StrictConfig
from domainformer.errors import DomainformerError
from domainformer.models.vision import CompressorConfig
from domainformer.training.config import OutputConfig


class VisionModelConfig(StrictConfig):
    """The frozen vision-language model.

    Args:
        name: Its folder, or its name on the Hub; None: it is given as an argument.
        revision: Of the Hub.
        prompt: How a question is asked, with ``{image}`` and ``{question}``; None: the processor's
            chat template, or ``{image}{question}`` where it has none.
        end_of_answer: Whether the token that ends a text belongs to an answer.
    """

    name: str | None = None
    revision: str | None = None
    prompt: str | None = None
    end_of_answer: bool = True

    @field_validator("prompt")
    @classmethod
    def _both_places(cls, value: str | None) -> str | None:
        if value is not None and any(value.count(key) != 1 for key in ("{image}", "{question}")):
            raise ValueError("a prompt has {image} and {question}, each once")
        return value


class QuestionsConfig(StrictConfig):
    """Questions that are generated.

    Args:
        source: A name in :data:`~domainformer.training.vision.sources.SOURCES`.
        options: What that source takes.
    """

    source: str
    options: dict[str, Any] = Field(default_factory=dict)


class VisionDataConfig(StrictConfig):
    """Images, questions and answers: from files, or generated.

    Args:
        train: JSONL or Parquet with ``image`` (a path), ``question``, ``answer`` and, where
            results shall be told apart, ``kind``.
        validation: The same, of other images.
        images: The folder that paths of images start from; None: the file's own.
        questions: Generated ones, in place of files.
    """

    train: str | None = None
    validation: str | None = None
    images: str | None = None
    questions: QuestionsConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> VisionDataConfig:
        if self.questions is not None and (self.train, self.validation) != (None, None):
            raise ValueError("give files (train, validation) or questions, not both")
        if self.validation is not None and self.train is None:
            raise ValueError("validation needs train beside it")
        return self


class TemperatureConfig(StrictConfig):
    """The temperature of the gate over the steps that have one: from soft to hard.

    Args:
        start: At the first step.
        end: At the last one. Compression is hard later: what reads through a warm gate is lost.
        shape: How it falls.
    """

    start: float = Field(1.0, gt=0)
    end: float = Field(0.05, gt=0)
    shape: Literal["exponential", "linear", "cosine"] = "exponential"


class DynamicConfig(StrictConfig):
    """Budgets that the compressor chooses by itself, held down by a price of tokens.

    ::

        loss + λ · (share kept − target)        λ ← max(0, λ + rate · (share kept − target))
        loss + price · tokens kept

    Args:
        probability: Share of the steps that train dynamic budgets; the others take a fixed one.
        target: Mean share of tokens to keep; the multiplier λ finds the price.
        price: Nats per kept token of an image, in place of a target.
        rate: Learning rate of the multiplier.
        multiplier: Its first value.
        trials: Shares of the tokens that a dynamic step tries by dropping, ascending. The first
            should be what ``compressor.min_tokens`` keeps of an image.
    """

    probability: float = Field(0.5, gt=0, le=1)
    target: float | None = Field(None, gt=0, le=1)
    price: float | None = Field(None, gt=0)
    rate: float = Field(0.05, gt=0)
    multiplier: float = Field(1.0, ge=0)
    trials: tuple[float, ...] = (0.0156, 0.0278, 0.0625, 0.111, 0.25, 0.5, 1.0)

    @model_validator(mode="after")
    def _target_or_price(self) -> DynamicConfig:
        if (self.target is None) == (self.price is None):
            raise ValueError("dynamic needs a target or a price, one of them")
        return self

    @field_validator("trials")
    @classmethod
    def _ascending_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if (
            len(value) < 2
            or list(value) != sorted(set(value))
            or not 0 < value[0] <= value[-1] <= 1
        ):
            raise ValueError("trials are two or more ascending shares of the tokens, at most 1")
        return value


class GuidanceConfig(StrictConfig):
    """The full model's own attention as a teacher of the scores.

    ::

        weight · mean over images of KL(p ‖ softmax(s))      p ∝ attention that the question's last
                                                              token pays to each image token

    A gate tells a compressor what dropping a token costs; attention tells it where to look, which
    is a far stronger signal while its scores are still chance.

    Args:
        weight: Of this loss beside the answers'.
        alone: Share of the steps, the first ones, that learn from attention alone: no pass through
            gates, and none backwards through the model.
        layers: Whose attention, counted from 1, or from -1 backwards; the mean over their heads,
            each layer's share of the image counting alike. What the last layer looks at is where
            an answer stands; what was counted or weighed was looked at before.
    """

    weight: float = Field(1.0, gt=0)
    alone: float = Field(0.5, ge=0, le=1)
    layers: tuple[int, ...] = Field((-1,), min_length=1)

    @field_validator("layers")
    @classmethod
    def _no_layer_zero(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if 0 in value:
            raise ValueError("there is no layer 0: they count from 1, or from -1 backwards")
        return value


class VisionTrainingConfig(StrictConfig):
    """The optimisation of the compressor; the model itself stays as it is.

    Args:
        steps: Optimizer steps.
        batch_size: Questions per step.
        learning_rate: Peak of the schedule.
        schedule: How the rate falls after its warm-up.
        warmup_ratio: Share of the steps with a rising rate.
        final_rate: Rate at the last step, as a share of the peak.
        betas: Decay of AdamW's two moments.
        weight_decay: On weight matrices only.
        max_grad_norm: Gradients longer than this are scaled down; 0 switches clipping off.
        budgets: Shares of an image's tokens to keep; each step draws one. Validation takes all.
        dynamic: Budgets that the compressor chooses; None: only fixed ones.
        gate: ``straight``: hard in the forward pass, smooth in the backward pass; ``smooth``: soft
            in both, which a compressor can cheat by scores that are all alike.
        temperature: Of the gate.
        distillation: Weight w of the full model's answers: loss = (1 − w) · cross-entropy +
            w · KL(full ‖ compressed), both at the positions of the answer.
        guidance: What the full model attends to, as a teacher of the scores; None: only answers.
        start_from: Folder of an adapter whose weights training begins with (of smaller grids,
            say); None: new ones.
        cache_features: Megabytes for the tower's features, computed once per image; a split whose
            features do not fit passes the tower at each step.
        feature_dtype: How cached features are kept.
        eval_every: Steps between validations by hard drop; None: ten times in the run.
        eval_questions: Validation questions at each of these, evenly spread; None: all.
        save_every: Steps between checkpoints; None: at each validation.
        log_every: Steps between lines of ``metrics.jsonl``.
        keep: Checkpoints kept.
        device: Where to train; ``auto``: a GPU if there is one, else the processor.
        seed: Of initialisation, order and budgets.
        threads: Processor threads; None leaves the process as it is.
        report_to: Further trackers, ``tensorboard`` or ``trackio``.
        quiet: No progress on stderr.
        resume: Continue the run ``output.root/output.name`` where it stopped.
    """

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    final_rate: float = Field(0.05, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    budgets: tuple[float, ...] = (0.25, 0.111, 0.0625, 0.0278)
    dynamic: DynamicConfig | None = None
    gate: Literal["straight", "smooth"] = "straight"
    temperature: TemperatureConfig = TemperatureConfig()
    distillation: float = Field(0.0, ge=0, le=1)
    guidance: GuidanceConfig | None = None
    start_from: str | None = None
    cache_features: float = Field(1024.0, ge=0)
    feature_dtype: Literal["float16", "float32"] = "float32"
    eval_every: int | None = Field(None, ge=1)
    eval_questions: int | None = Field(512, ge=1)
    save_every: int | None = Field(None, ge=1)
    log_every: int = Field(10, ge=1)
    keep: int = Field(2, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)
    report_to: tuple[Literal["tensorboard", "trackio"], ...] = ()
    quiet: bool = False
    resume: bool = False

    @model_validator(mode="after")
    def _some_budget(self) -> VisionTrainingConfig:
        if any(not 0 < share <= 1 for share in self.budgets):
            raise ValueError("budgets are shares of the tokens, above 0 and at most 1")
        if not self.budgets and self.dynamic is None:
            raise ValueError("give budgets, or dynamic, or both")
        if self.dynamic is not None and self.dynamic.probability < 1 and not self.budgets:
            raise ValueError("without budgets every step is dynamic: set dynamic.probability to 1")
        return self


class VisionRunConfig(StrictConfig):
    """Everything that decides the run of a compressor.

    Args:
        model: The frozen vision-language model.
        data: Images, questions, answers.
        compressor: Values of :class:`~domainformer.models.vision.CompressorConfig`, without the
            sizes that the model tells.
        training: The optimisation.
        output: Where the run is written.

    Example:
        >>> from domainformer.config import build
        >>> config = build(VisionRunConfig, {"training": {"steps": 50, "budgets": [0.25]}})
        >>> config.training.steps, config.training.temperature.end, config.training.dynamic
        (50, 0.05, None)
        >>> build(VisionRunConfig, {"training": {"dynamic": {"target": 0.1, "prize": 1.0}}})
        Traceback (most recent call last):
        ...
        domainformer.errors.ConfigError: the configuration has 1 error
          why:   training.dynamic.prize: unknown key (did you mean 'price'?)
    """

    model: VisionModelConfig = VisionModelConfig()
    data: VisionDataConfig = VisionDataConfig()
    compressor: dict[str, Any] = Field(default_factory=dict)
    training: VisionTrainingConfig = VisionTrainingConfig()
    output: OutputConfig = OutputConfig()

    @field_validator("compressor")
    @classmethod
    def _can_be_built(cls, value: dict[str, Any]) -> dict[str, Any]:
        for size in ("feature_size", "query_size"):
            if size in value:
                raise ValueError(f"{size} follows from the model: leave it out")
        try:
            CompressorConfig.from_dict({**value, "feature_size": 1})
            made = TypeAdapter(CompressorConfig).validate_python({**value, "feature_size": 1})
        except DomainformerError as error:
            raise ValueError("; ".join(filter(None, (error.what, error.next_step)))) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg'].lower()}") from None
        return {key: made.to_dict()[key] for key in value}

    @model_validator(mode="after")
    def _trained_as_it_selects(self) -> VisionRunConfig:
        rule = self.compressor.get("budget_rule", "gate")
        if self.training.dynamic is not None and rule != "gate":
            raise ValueError(
                "training.dynamic trains the gate at score 0, and compressor.budget_rule is "
                f"{rule}: use the rule 'gate', or train fixed budgets alone"
            )
        return self

    @model_validator(mode="after")
    def _resume_needs_a_name(self) -> VisionRunConfig:
        if self.training.resume and self.output.name is None:
            raise ValueError("training.resume needs output.name, the run to continue")
        return self
