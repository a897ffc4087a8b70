"""domainformer: turn tables of events into small Transformers worth having.

::

    events ─▶ schema ─▶ tokenizer ─▶ token store ─▶ Transformer ─▶ evaluation, embeddings, report

Start with :func:`domainformer.quickstart.quickstart` (all of it in one call), or step by step with
:class:`EventTable`, :class:`DomainSchema`, :class:`DomainTokenizer`, :func:`pretrain` and
:func:`evaluate`. The public names stand here; each is imported when it is first asked for
(PEP 562), so that ``import domainformer`` costs nothing and a worker that only tokenizes never
loads torch.

Example:
    >>> import domainformer
    >>> domainformer.FINANCE_SCHEMA.special_token_count
    97
    >>> domainformer.EventTabel
    Traceback (most recent call last):
    ...
    AttributeError: module 'domainformer' has no attribute 'EventTabel': did you mean 'EventTable'?
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from domainformer.errors import nearest
from domainformer.version import __version__

if TYPE_CHECKING:
    # Functions that share their name with a file come from the file: mypy knows them only there.
    from domainformer.data import (
        Budgets,
        DomainSequenceDataset,
        EventTable,
        SequenceBuilder,
        Split,
        TokenizedEvents,
        TokenStore,
        combine_sources,
        normalise,
        pack,
        plan_windows,
        read_meds,
        read_texts,
        simulate,
        split_by_entity,
        split_by_time,
        split_text,
        write_simulated,
    )
    from domainformer.distributed import TokenizePlan, fit_files, tokenize_files
    from domainformer.errors import DomainformerError
    from domainformer.evaluation import (
        Ablation,
        AblationConfig,
        Evaluation,
        GradientBoosting,
        TabularBaseline,
        Task,
        TaskFeatures,
        ablate,
        aggregate_features,
        check_leaks,
        evaluate_predictions,
        next_item_task,
        next_value_task,
        public_plan,
        public_task,
        run_model,
        task_at_cuts,
        task_from_labels,
    )
    from domainformer.evaluation.evaluate import evaluate
    from domainformer.evaluation.next_event import next_event
    from domainformer.evaluation.probe import probe
    from domainformer.inference import (
        Bundle,
        Explanation,
        IntegratedGradients,
        ItemRecommender,
        Occlusion,
        attention_map,
        explain,
        extend_bundle,
        linear_head,
        load_bundle,
        permutation_check,
        save_bundle,
        summarise,
    )
    from domainformer.inference.embed import embed, embed_to_parquet
    from domainformer.inference.fusion import FusionPredictor
    from domainformer.inference.generate import generate
    from domainformer.inference.late_fusion import late_fusion_frame
    from domainformer.inference.recommend import recommend
    from domainformer.models import (
        Collator,
        DCNv2CrossLayer,
        DomainTransformerConfig,
        DomainTransformerForCausalLM,
        DomainTransformerForSequenceClassification,
        DomainTransformerModel,
        JointFusionConfig,
        JointFusionModel,
        PeriodicLinearReLU,
        pool_hidden,
    )
    from domainformer.reports import write_report
    from domainformer.schema import (
        ECOMMERCE_SCHEMA,
        FINANCE_SCHEMA,
        HEALTH_SCHEMA,
        DomainSchema,
        FieldSpec,
        FieldType,
        InferredSchema,
        Source,
        infer_schema,
    )
    from domainformer.tokenizers import (
        ActionPieceMerges,
        CalendarTokenizer,
        CategoricalTokenizer,
        CharacterTokenizer,
        DiscreteTokenizer,
        DomainTokenizer,
        DomainTokenizerBuilder,
        ElapsedTimeTokenizer,
        EntityFeaturePlan,
        EntityIdTokenizer,
        FitStatistics,
        MagnitudeBucketTokenizer,
        SemanticIds,
        SemanticIdTokenizer,
        SignTokenizer,
        TextTokenizer,
        ValidationReport,
        add_domain_tokens,
        annotate_event,
        describe_tokenizer,
        diff_tokenizers,
        drift,
        extend,
        fit_semantic_ids,
        learn_merges,
        validate_tokenizer,
    )
    from domainformer.training import (
        Batcher,
        FusionConfig,
        HorizonConfig,
        ItemsConfig,
        MaskedFieldConfig,
        RunConfig,
        RunResult,
        fit_fusion,
        fit_items,
        pretrain,
    )
    from domainformer.training.finetune import finetune

__all__ = [
    "FieldType",
    "FieldSpec",
    "DomainSchema",
    "Source",
    "infer_schema",
    "InferredSchema",
    "FINANCE_SCHEMA",
    "ECOMMERCE_SCHEMA",
    "HEALTH_SCHEMA",
    "EventTable",
    "read_meds",
    "combine_sources",
    "simulate",
    "write_simulated",
    "Split",
    "split_by_time",
    "split_by_entity",
    "TokenizedEvents",
    "TokenStore",
    "plan_windows",
    "pack",
    "Budgets",
    "DomainSequenceDataset",
    "read_texts",
    "normalise",
    "split_text",
    "SequenceBuilder",
    "SignTokenizer",
    "MagnitudeBucketTokenizer",
    "DiscreteTokenizer",
    "CategoricalTokenizer",
    "EntityIdTokenizer",
    "SemanticIdTokenizer",
    "SemanticIds",
    "EntityFeaturePlan",
    "fit_semantic_ids",
    "CalendarTokenizer",
    "ElapsedTimeTokenizer",
    "TextTokenizer",
    "CharacterTokenizer",
    "DomainTokenizer",
    "DomainTokenizerBuilder",
    "FitStatistics",
    "fit_files",
    "tokenize_files",
    "TokenizePlan",
    "add_domain_tokens",
    "extend",
    "drift",
    "diff_tokenizers",
    "ActionPieceMerges",
    "learn_merges",
    "describe_tokenizer",
    "annotate_event",
    "validate_tokenizer",
    "ValidationReport",
    "DomainTransformerConfig",
    "DomainTransformerModel",
    "DomainTransformerForCausalLM",
    "DomainTransformerForSequenceClassification",
    "JointFusionConfig",
    "JointFusionModel",
    "DCNv2CrossLayer",
    "PeriodicLinearReLU",
    "Collator",
    "pool_hidden",
    "Batcher",
    "RunConfig",
    "MaskedFieldConfig",
    "HorizonConfig",
    "RunResult",
    "pretrain",
    "finetune",
    "FusionConfig",
    "fit_fusion",
    "FusionPredictor",
    "late_fusion_frame",
    "ItemsConfig",
    "fit_items",
    "ItemRecommender",
    "recommend",
    "Bundle",
    "load_bundle",
    "save_bundle",
    "extend_bundle",
    "embed",
    "embed_to_parquet",
    "generate",
    "explain",
    "Explanation",
    "IntegratedGradients",
    "Occlusion",
    "summarise",
    "permutation_check",
    "linear_head",
    "attention_map",
    "evaluate",
    "Evaluation",
    "ablate",
    "Ablation",
    "AblationConfig",
    "next_event",
    "probe",
    "aggregate_features",
    "Task",
    "TaskFeatures",
    "TabularBaseline",
    "GradientBoosting",
    "public_plan",
    "task_from_labels",
    "task_at_cuts",
    "next_value_task",
    "next_item_task",
    "public_task",
    "run_model",
    "evaluate_predictions",
    "check_leaks",
    "write_report",
    "DomainformerError",
    "__version__",
]

# Which package each name comes from; tests hold it equal to the imports above.
_PACKAGES = {
    "data": (
        "Budgets",
        "DomainSequenceDataset",
        "EventTable",
        "SequenceBuilder",
        "Split",
        "TokenizedEvents",
        "TokenStore",
        "combine_sources",
        "normalise",
        "pack",
        "plan_windows",
        "read_meds",
        "read_texts",
        "simulate",
        "split_by_entity",
        "split_by_time",
        "split_text",
        "write_simulated",
    ),
    "distributed": ("TokenizePlan", "fit_files", "tokenize_files"),
    "errors": ("DomainformerError",),
    "evaluation": (
        "Ablation",
        "AblationConfig",
        "Evaluation",
        "GradientBoosting",
        "TabularBaseline",
        "Task",
        "TaskFeatures",
        "ablate",
        "aggregate_features",
        "check_leaks",
        "evaluate",
        "evaluate_predictions",
        "next_event",
        "next_item_task",
        "next_value_task",
        "probe",
        "public_plan",
        "public_task",
        "run_model",
        "task_at_cuts",
        "task_from_labels",
    ),
    "inference": (
        "Bundle",
        "Explanation",
        "FusionPredictor",
        "IntegratedGradients",
        "ItemRecommender",
        "Occlusion",
        "attention_map",
        "explain",
        "linear_head",
        "permutation_check",
        "summarise",
        "late_fusion_frame",
        "embed",
        "embed_to_parquet",
        "extend_bundle",
        "generate",
        "load_bundle",
        "recommend",
        "save_bundle",
    ),
    "models": (
        "Collator",
        "DomainTransformerConfig",
        "DomainTransformerForCausalLM",
        "DomainTransformerForSequenceClassification",
        "DomainTransformerModel",
        "DCNv2CrossLayer",
        "JointFusionConfig",
        "JointFusionModel",
        "PeriodicLinearReLU",
        "pool_hidden",
    ),
    "reports": ("write_report",),
    "schema": (
        "ECOMMERCE_SCHEMA",
        "FINANCE_SCHEMA",
        "HEALTH_SCHEMA",
        "DomainSchema",
        "FieldSpec",
        "FieldType",
        "InferredSchema",
        "Source",
        "infer_schema",
    ),
    "tokenizers": (
        "ActionPieceMerges",
        "CalendarTokenizer",
        "CategoricalTokenizer",
        "CharacterTokenizer",
        "DiscreteTokenizer",
        "DomainTokenizer",
        "DomainTokenizerBuilder",
        "ElapsedTimeTokenizer",
        "EntityIdTokenizer",
        "EntityFeaturePlan",
        "FitStatistics",
        "MagnitudeBucketTokenizer",
        "SemanticIdTokenizer",
        "SemanticIds",
        "SignTokenizer",
        "TextTokenizer",
        "ValidationReport",
        "add_domain_tokens",
        "learn_merges",
        "annotate_event",
        "describe_tokenizer",
        "diff_tokenizers",
        "drift",
        "extend",
        "fit_semantic_ids",
        "validate_tokenizer",
    ),
    "training": (
        "Batcher",
        "FusionConfig",
        "HorizonConfig",
        "ItemsConfig",
        "MaskedFieldConfig",
        "RunConfig",
        "RunResult",
        "finetune",
        "fit_fusion",
        "fit_items",
        "pretrain",
    ),
}
_HOMES = {name: package for package, names in _PACKAGES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        hint = "" if name.startswith("_") else f": {nearest(name, _HOMES)}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether or not they have been imported yet."""
    return sorted({*globals(), *__all__})
