"""What ``evaluate --task`` does: run a contest, show it, write its page."""

from __future__ import annotations

from pathlib import Path

from domainformer.cli.output import next_command, progress, quoted, results, say, show


def run_contest(file: Path, out: Path | None, overrides: list[str], *, as_json: bool) -> None:
    """Run the contest that FILE describes."""
    from domainformer.config import load_config
    from domainformer.evaluation.contest import ContestConfig, contest
    from domainformer.reports.contest_page import write_contest_report

    if out is not None:
        overrides = [*overrides, f"output={quoted(out)}"]
    config = load_config(ContestConfig, file, overrides)
    with progress("fitting models") as bar:
        done = contest(config, progress=bar, tell=say)
    show(done.to_json() if as_json else done.render(), as_json=as_json)
    if not as_json:
        results.print(str(done.folder / "comparison.json"), markup=False)
    next_command(f"open {write_contest_report(done.folder)}")
