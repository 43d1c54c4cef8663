"""The command line: `embedfleet serve`, `embed`, `get`, `validate`, `version`."""

import sys
from typing import NoReturn

_INTERRUPTED = 130  # what a shell gives for a process that Ctrl-C ended


def main() -> NoReturn:
    """Run the command of `sys.argv`; exit status 1: it failed, 2: wrong input or manifest, 130: Ctrl-C."""
    try:
        from embedfleet.cli.app import app

        app(prog_name="embedfleet")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(0)
