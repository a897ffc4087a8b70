"""The command line: verbs parse their arguments, call one public function, and print.

Results go to stdout, messages and progress to stderr, ``--json`` prints what a program may read,
and bad input ends with a message that teaches and exit code 2. May import everything; holds no
logic. Start at :mod:`domainformer.cli.app`.
"""

from domainformer.cli.app import app, main

__all__ = ["app", "main"]
