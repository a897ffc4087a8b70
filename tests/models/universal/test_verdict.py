import json

import pytest
from rich.console import Console

from domainformer.models.universal.verdict import CheckResult, Verdict

GOOD = tuple(
    CheckResult(name, "pass", "seen")
    for name in ("shapes", "determinism", "causality", "batch_invariance")
)


def printed(verdict: Verdict) -> str:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(verdict.render())
    return capture.get()


def test_running_and_being_a_causal_language_model_are_two_lines():
    lines = printed(Verdict(GOOD)).splitlines()
    assert "✓ it runs" in lines
    assert "✓ it is a causal language model" in lines


@pytest.mark.parametrize("name", ["determinism", "causality", "batch_invariance"])
@pytest.mark.parametrize("status", ["fail", "skip", "warn"])
def test_what_was_not_shown_is_not_claimed(name, status):
    results = tuple(
        CheckResult(one.name, status, "because") if one.name == name else one for one in GOOD
    )
    verdict = Verdict(results)
    assert verdict.runs
    assert not verdict.is_causal_language_model
    assert f"not shown ({name}: because)" in " ".join(printed(verdict).split())


def test_an_absent_check_is_not_a_pass():
    assert not Verdict(()).runs
    assert not Verdict(()).passed
    assert not Verdict(GOOD[:1]).is_causal_language_model


def test_skipped_checks_do_not_fail_the_whole():
    assert Verdict((*GOOD, CheckResult("cache", "skip", "it has none"))).passed
    assert not Verdict((*GOOD, CheckResult("cache", "fail", "it forgets"))).passed


def test_remedies_and_figures_are_shown_and_markup_is_not_read():
    result = CheckResult("cache", "fail", "at [bold]", remedy="count on", value=0.25, limit=1e-4)
    text = printed(Verdict((result,)))
    assert "at [bold]" in text
    assert "→ count on" in text
    assert "0.25" in text


def test_json_is_strict_also_for_what_is_not_finite():
    verdict = Verdict((CheckResult("shapes", "fail", "nan", value=float("nan"), limit=1.0),))
    facts = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert facts["results"][0]["value"] == "nan"
    assert facts["runs"] is False


def test_results_by_name():
    assert Verdict(GOOD)["causality"].passed
    with pytest.raises(KeyError):
        Verdict(GOOD)["cache"]
