"""What every training records of itself."""

from __future__ import annotations

import pytest

from domainformer.errors import RuleError
from domainformer.run import start_run
from domainformer.training.rules import chain
from domainformer.training.running import record_rules


def test_a_run_does_not_go_on_with_another_source_of_its_rules(tmp_path):
    run = start_run(tmp_path, "demo", kind="train", config={})
    record_rules(run, chain(), {"mine.py": "a"})
    record_rules(run, chain(), {"mine.py": "b"})  # nothing was trained yet
    before = run.record.identity
    run.update(resolved={"plan": {"steps": 3}})
    record_rules(run, chain(), {"mine.py": "b"})
    with pytest.raises(RuleError, match=r"source of learning rules changed[\s\S]*mine\.py"):
        record_rules(run, chain(), {"mine.py": "c"})
    assert run.record.identity == before
