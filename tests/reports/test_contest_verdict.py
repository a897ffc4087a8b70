"""The words of a contest's page: the first sentence, and what a positive example is."""

import pytest

from domainformer.reports.contest_verdict import Found, answer


def found(baselines, better=None, **task):
    """Two contestants, the first ahead; ``better`` is what the bootstrap says of ours."""
    figures = {name: {"auroc": {"mean": mean}} for name, mean in (("a", 0.8), ("b", 0.7))}
    best = baselines[0] if baselines else None
    other = "a" if best == "b" else "b"
    one = {"value": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.5 if better is None else 0.01}
    differences = {other: {"auroc": one | {"better": bool(better)}}} if best else {}
    return Found(
        {
            "primary": "auroc",
            "figures": figures,
            "baselines": baselines,
            "best_baseline": best,
            "differences": differences,
            "identity": {"task": task},
        }
    )


@pytest.mark.parametrize(
    ("baselines", "better", "outcome", "said"),
    [
        (["b"], True, "ahead", "a is better than b, the best baseline"),
        (["b"], False, "behind", "a is worse than b"),
        (["b"], None, "even", "No difference between a and b"),
        ([], None, "even", "a leads with AUROC 0.8000; there is no baseline."),
        (["a", "b"], None, "even", "a leads with AUROC 0.8000; all contestants are baselines."),
    ],
)
def test_the_first_sentence(baselines, better, outcome, said):
    what, sentence = answer(found(baselines, better))
    assert what == outcome
    assert sentence.startswith(said)


def test_the_page_says_what_a_positive_example_is():
    task = {"positive": 0.3, "positive_class": "stays", "record": {"label": "status"}}
    assert found([], **task).positive_class == "status is stays"
    assert found([], positive=0.3, record={"label": "no_event"}).positive_class == ""
