"""What an argument is for: the user's word, whole names, evidence, annotation; never a prefix."""

import pytest

from domainformer.errors import AdapterError
from domainformer.models.universal import ALIASES, ModelSignatureInspector, Role, read_source
from domainformer.models.universal.aliases import AMBIGUOUS, NEUTRAL, role_of

from .corpus import architectures, broken, signatures
from .corpus.signatures import AmbiguousMaskRequired, Keywords, NeutralName


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("attention_mask", Role.MASK),
        ("attention_output", Role.INTERMEDIATE),
        ("attention_outputs_please", Role.UNKNOWN),
        ("input_0_tokens", Role.TOKENS),
        ("input_0_tokens_mask", Role.UNKNOWN),
        ("mhsa_0_output", Role.INTERMEDIATE),
        ("residual_12_output", Role.INTERMEDIATE),
        ("embedding_0_token_output", Role.INTERMEDIATE),
        ("mhsa", Role.UNKNOWN),
        ("input_ids_of_something", Role.UNKNOWN),
        ("labels_count", Role.UNKNOWN),
        ("output_attentions", Role.OPTION),
        ("encoder_hidden_states", Role.ENCODER),
        ("Input_IDs", Role.TOKENS),
    ],
)
def test_whole_names_decide(name, role):
    assert role_of(name)[0] is role


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_an_alias_means_nothing_as_a_prefix(name):
    found = role_of(f"{name}_xyz")[0]
    assert found is Role.UNKNOWN


def test_the_tables_do_not_contradict_each_other():
    assert not ALIASES.keys() & AMBIGUOUS.keys()
    assert not ALIASES.keys() & NEUTRAL
    assert not AMBIGUOUS.keys() & NEUTRAL


def test_the_user_goes_before_the_table():
    inspector = ModelSignatureInspector(AmbiguousMaskRequired(), {"mask": "mask"})
    assert inspector.of("mask") == ("mask",)
    assert inspector.parameters[1].why == "the user says so"
    assert "forward at " in inspector.render()
    assert "the user says so" in inspector.render()
    assert inspector.to_json()["parameters"][1]["required"]


def test_what_the_user_says_is_checked():
    with pytest.raises(AdapterError, match=r"is no role(.|\n)*did you mean 'tokens'"):
        ModelSignatureInspector(NeutralName(), {"x": "token"})
    with pytest.raises(AdapterError, match="no argument 'y'"):
        ModelSignatureInspector(NeutralName(), {"y": "tokens"})
    # Further keywords take any name.
    assert ModelSignatureInspector(Keywords(), {"more": "mask"}).of("mask")[-1] == "more"


CLASSES = [
    (module, case.make)
    for module in (signatures, architectures, broken)
    for case in module.CASES
    if isinstance(case.make, type) and "forward" in vars(case.make)
    # Decorators and lambdas are applied when a file runs.
    if not case.make.__name__.startswith(("Wrapped", "Lambda"))
]


@pytest.mark.parametrize(("module", "kind"), CLASSES, ids=lambda value: value.__name__)
def test_reading_a_file_tells_what_running_it_tells(module, kind):
    read = ModelSignatureInspector.of_source(read_source(module.__file__, kind.__name__))
    live = ModelSignatureInspector(kind)
    shown = [(p.name, p.kind, p.role, p.required) for p in read.parameters]
    assert shown == [(p.name, p.kind, p.role, p.required) for p in live.parameters]
    assert read.source.line == live.source.line
