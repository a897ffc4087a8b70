"""Optional trackers: fed with the same rows, absent with an error that helps."""

from __future__ import annotations

import sys

import pytest

from domainformer.errors import MissingExtraError
from domainformer.training.trackers import make_trackers

ROWS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("trackio", "trackio")]
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"domainformer\[track\]"):
        make_trackers((name,), tmp_path, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = make_trackers(("tensorboard",), tmp_path, {})
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.0)]


def test_trackio_gets_every_row(tmp_path, monkeypatch):
    calls = []

    class Fake:
        init = staticmethod(lambda **values: calls.append(("init", values)))
        log = staticmethod(lambda numbers, step: calls.append((step, numbers)))
        finish = staticmethod(lambda: calls.append("finish"))

    monkeypatch.setitem(sys.modules, "trackio", Fake)
    (tracker,) = make_trackers(("trackio",), tmp_path / "cards", {"a": 1})
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    assert calls == [
        ("init", {"project": "domainformer", "name": "cards", "config": {"a": 1}}),
        (1, {"loss": 2.0}),
        (2, {"loss": 1.0}),
        "finish",
    ]
