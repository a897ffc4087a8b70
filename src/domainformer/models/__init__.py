"""Transformers over event tokens, at home in Hugging Face transformers.

Start at ``modeling_domain_transformer.py`` (the models), then ``layers_domain_transformer.py``
(their parts), ``packed_attention.py`` (many documents per row, none seeing another),
``configuration_domain_transformer.py`` (sizes, presets) and ``batching.py`` (rows to model
inputs, hidden states to one vector per document).

``fusion.py`` (with ``configuration_fusion.py`` and ``numeric.py``) joins a history with tabular
features; ``item_transformer.py`` (with ``item_softmax.py``) scores all items of a catalogue;
``families/`` opens language models of any family, this one and others, behind one interface;
``surgery/`` changes what a model is made of; ``vision/`` keeps, of an image's tokens, those that
a question needs.

``universal/`` puts any module of the user's own behind one way to call it (``bind``).

The first four are copied into every saved model, so that it opens with ``trust_remote_code=True``
where domainformer is not installed: they import torch, transformers and each other, relatively,
and raise ``ValueError`` where other parts raise a DomainformerError. The others may import
``artifacts``, ``weights`` and ``errors`` too. Nothing here imports ``tokenizers``.

Importing this package registers the models with the Auto classes.
"""

from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from domainformer.models import surgery
from domainformer.models.batching import IGNORED_LABEL, Collator, Pooling, pool_hidden
from domainformer.models.configuration_domain_transformer import PRESETS, DomainTransformerConfig
from domainformer.models.configuration_fusion import JointFusionConfig
from domainformer.models.families import (
    AutoModelAdapter,
    BaseAdapter,
    CustomTransformerAdapter,
    QwenAdapter,
    UniversalAdapter,
    adapter_class,
    adapter_for,
)
from domainformer.models.fusion import (
    DCNv2CrossLayer,
    JointFusionModel,
    JointFusionOutput,
    TabularEncoder,
)
from domainformer.models.item_transformer import ItemAttributes, ItemTransformer
from domainformer.models.modeling_domain_transformer import (
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    DomainTransformerModel,
    DomainTransformerPreTrainedModel,
)
from domainformer.models.numeric import (
    NumericEncoder,
    NumericScaler,
    PeriodicLinearReLU,
    PiecewiseLinearEncoding,
)
from domainformer.models.universal import (
    BoundModel,
    ComputationalGraphExecutor,
    ModelSignatureInspector,
    bind,
)
from domainformer.models.universal.configuration import UniversalConfig
from domainformer.models.universal.identity import given_module
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.vision import (
    CompressorConfig,
    RelevanceCompressor,
    RelevanceRealizer,
    VisionBase,
)

if TYPE_CHECKING:
    from domainformer.models.universal.module import UniversalModelAdapter

AutoConfig.register(DomainTransformerConfig.model_type, DomainTransformerConfig, exist_ok=True)
DomainTransformerConfig.register_for_auto_class()
for _auto, _model in (
    (AutoModel, DomainTransformerModel),
    (AutoModelForCausalLM, DomainTransformerForCausalLM),
    (AutoModelForSequenceClassification, DomainTransformerForSequenceClassification),
):
    _auto.register(DomainTransformerConfig, _model, exist_ok=True)
    _model.register_for_auto_class(_auto.__name__)
AutoConfig.register(JointFusionConfig.model_type, JointFusionConfig, exist_ok=True)
AutoModel.register(JointFusionConfig, JointFusionModel, exist_ok=True)

__all__ = [
    "PRESETS",
    "DomainTransformerConfig",
    "DomainTransformerModel",
    "DomainTransformerForCausalLM",
    "DomainTransformerForSequenceClassification",
    "DomainTransformerPreTrainedModel",
    "JointFusionConfig",
    "JointFusionModel",
    "JointFusionOutput",
    "TabularEncoder",
    "ItemTransformer",
    "ItemAttributes",
    "DCNv2CrossLayer",
    "PeriodicLinearReLU",
    "PiecewiseLinearEncoding",
    "NumericScaler",
    "NumericEncoder",
    "Collator",
    "pool_hidden",
    "Pooling",
    "IGNORED_LABEL",
    "BaseAdapter",
    "CustomTransformerAdapter",
    "QwenAdapter",
    "AutoModelAdapter",
    "UniversalAdapter",
    "UniversalConfig",
    "UniversalForCausalLM",
    "UniversalModelAdapter",
    "given_module",
    "adapter_for",
    "adapter_class",
    "surgery",
    "bind",
    "BoundModel",
    "ModelSignatureInspector",
    "ComputationalGraphExecutor",
    "VisionBase",
    "RelevanceRealizer",
    "RelevanceCompressor",
    "CompressorConfig",
]


def __getattr__(name: str) -> Any:
    # It is a LightningModule, and Lightning is an extra that takes a second to import.
    if name == "UniversalModelAdapter":
        from domainformer.models.universal.module import UniversalModelAdapter

        return UniversalModelAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
