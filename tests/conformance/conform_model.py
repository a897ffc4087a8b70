"""transformers' common model tests, on the domain transformer."""

import sys
import unittest

import torch
from distribution import folder, has_generation
from transformers.models.auto import modeling_auto

from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    DomainTransformerModel,
)

ROOT = folder()
sys.path.insert(0, str(ROOT))
from transformers_tests.generation.test_utils import GenerationTesterMixin  # noqa: E402
from transformers_tests.test_configuration_common import ConfigTester  # noqa: E402
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor  # noqa: E402

# The mixins ask transformers' tables what a class is for.
modeling_auto.MODEL_MAPPING_NAMES["domain_transformer"] = "DomainTransformerModel"
modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["domain_transformer"] = (
    "DomainTransformerForCausalLM"
)
modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["domain_transformer"] = (
    "DomainTransformerForSequenceClassification"
)


class DomainTransformerTester:
    """What the mixins ask for: a small configuration and inputs for it."""

    batch_size, seq_length, vocab_size = 3, 7, 99
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    num_labels = type_sequence_label_size = 3
    is_training = True

    def __init__(self, parent, **options):
        self.parent, self.options = parent, options

    def get_config(self):
        return DomainTransformerConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            num_labels=self.num_labels,
            **self.options,
        )

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        mask = torch.tril(torch.ones_like(ids))
        return self.get_config(), {"input_ids": ids.clamp(min=3), "attention_mask": mask}


class _Common(ModelTesterMixin, GenerationTesterMixin):
    all_model_classes = (
        DomainTransformerModel,
        DomainTransformerForCausalLM,
        DomainTransformerForSequenceClassification,
    )
    pipeline_model_mapping = {}
    options: dict = {}

    def setUp(self):
        self.model_tester = DomainTransformerTester(self, **self.options)
        self.config_tester = ConfigTester(
            self, config_class=DomainTransformerConfig, hidden_size=32, common_properties=[]
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skipIf(not has_generation(ROOT), "the distribution lacks tests/generation")
    def test_generation_tester_mixin_inheritance(self):
        super().test_generation_tester_mixin_inheritance()


class TestWithoutPositions(_Common, unittest.TestCase):
    """The default."""


class TestRotary(_Common, unittest.TestCase):
    options = {"position_encoding": "rope", "mlp": "swiglu", "norm": "rmsnorm"}


class TestLearned(_Common, unittest.TestCase):
    options = {"position_encoding": "learned"}


del _Common, ModelTesterMixin, GenerationTesterMixin
