"""Run folders as a training leaves them, without the training."""

import json

import pytest

from domainformer.run import start_run


@pytest.fixture
def make_run(tmp_path):
    """``make_run("a", loss=2.0, config={…}, curve=[…], data_fingerprint=…)``: a finished run."""

    def make(name, *, loss=2.0, config=None, curve=(), code=None, finish=True, **record):
        values = {"training": {"learning_rate": 0.1, "seed": 0}}
        for section, content in (config or {}).items():
            merge = isinstance(content, dict)
            values[section] = {**values.get(section, {}), **content} if merge else content
        run = start_run(tmp_path, name, kind="pretrain", config=values)
        known = {"data_fingerprint": "d0", "tokenizer_fingerprint": "t0"}
        run.update(status="running", **{**known, **record})
        if code is not None:
            identity = run.record.identity.model_copy(update={"code": code})
            run.record = run.record.model_copy(update={"identity": identity})
        rows = [{"step": step, "eval_loss": value} for step, value in curve]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (run.directory / "metrics.jsonl").write_text(text)
        if finish:
            run.finish({"eval_loss": loss, "seconds": 1.0, "steps": 4})
        return run.directory

    return make


@pytest.fixture
def seeds_of(make_run):
    """``seeds_of("slow", [2.0, 2.1], config={…})``: a run for each value, seeds 0, 1, …"""

    def make(name, losses, *, first=0, config=None, **more):
        folders = []
        for seed, loss in enumerate(losses, start=first):
            content = dict(config or {})
            content["training"] = {**content.get("training", {}), "seed": seed}
            folders.append(make_run(f"{name}-{seed}", loss=loss, config=content, **more))
        return folders

    return make
