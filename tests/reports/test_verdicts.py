import pytest

from domainformer.reports.verdicts import verdict


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("accuracy", 0.01, 0.2, "ahead"),
        ("accuracy", -0.2, -0.01, "behind"),
        ("accuracy", 0.0, 0.0, "even"),
        ("log_loss", -0.2, -0.01, "ahead"),
        ("log_loss", 0.01, 0.2, "behind"),
        ("log_loss", -0.1, 0.1, "even"),
        ("rmse", -2.0, -1.0, "ahead"),
        ("auroc", -0.1, 0.0, "even"),
    ],
)
def test_only_intervals_without_zero_decide(metric, low, high, expected):
    assert verdict({"value": (low + high) / 2, "low": low, "high": high}, metric) == expected
