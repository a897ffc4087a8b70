"""A run is an identity: one folder that says what was done, with what, and how it ended.

Before the first step a run folder holds everything that decides its result::

    runs/cards/
      run.json       id, status, config hash, code version, fingerprints, split, rules, environment
      config.yaml    the resolved configuration
      …              what the run itself adds: store, checkpoints, metrics, model

``run.json`` is replaced atomically whenever something becomes known, so a reader sees one state or
the next, also when the process is killed between two of them.

What the run *is* stands in ``identity``: a hash for each part that can change the result, and none
of what cannot::

    config      settings, without folders, verbosity, logging (`INERT_KEYS`) and rules
    code        source of the packages that training may import (`source_hash`)
    data        the events or texts that were read
    tokenizer   the fitted tokenizer
    rules       learning rules, with the source of those that users bring

Equal identities mean equal results on equal machines; :func:`result_hash` makes one name of them.

Start at :func:`start_run` (``folder.py``); the record is in ``record.py``, its hashes are made in
``identity.py``, and ``environment.py`` tells code, packages and machine. May import config,
artifacts and errors.
"""

from domainformer.run.environment import (
    code_version,
    environment,
    source_hash,
)
from domainformer.run.folder import (
    CONFIG_FILE,
    Run,
    lock_directory,
    resume_run,
    run_directory,
    start_run,
)
from domainformer.run.identity import (
    INERT_KEYS,
    SEED_KEYS,
    flatten,
    identity_of,
    is_inert,
    result_hash,
    rules_key,
    rules_of,
    settings_of,
)
from domainformer.run.record import (
    RUN_FILE,
    Identity,
    RunRecord,
    Status,
    read_run,
)

__all__ = [
    "start_run",
    "read_run",
    "resume_run",
    "run_directory",
    "lock_directory",
    "Run",
    "RunRecord",
    "Status",
    "RUN_FILE",
    "CONFIG_FILE",
    "Identity",
    "identity_of",
    "result_hash",
    "settings_of",
    "rules_of",
    "rules_key",
    "is_inert",
    "INERT_KEYS",
    "SEED_KEYS",
    "flatten",
    "code_version",
    "source_hash",
    "environment",
]
