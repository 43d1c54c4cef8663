"""The process that runs one cluster: `python -m tests.cluster.keeper DIRECTORY`.

It prints a line for each thing that is up, then `ready`, and keeps the cluster until its starter is gone or a SIGTERM
comes; then it removes all of it. Should it be killed itself, the kernel kills the programs, and files and control
groups stay for `down`.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster import namespaces
from tests.cluster.errors import ClusterError
from tests.cluster.leftovers import clean
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes
from tests.cluster.starting import NAMESPACES, Say, bring_up

READY = "ready"
"""The last line it prints, once everything is."""

_STDIN = 0


def main(directory: Path) -> int:
    """Run the cluster that is planned in `directory`; 1 with the reason on standard error when it did not come up."""
    plan = Plan.load(directory)
    plan.keeper.write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    processes = Processes(plan.logs, lifeline=_STDIN if plan.tied else None)
    began_to_keep = lost = False
    try:
        with ExitStack() as held:
            bring_up(plan, processes, held, _teller())
            print(READY, flush=True)
            began_to_keep = True
            _write_on_to(plan.logs / "keeper.log")
            processes.wait_for_an_end()
    except ClusterError as failure:
        lost = began_to_keep  # then the logs stay, for whoever wonders
        print(failure, file=sys.stderr, flush=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill(processes)
        if not lost:
            clean(plan.directory)
    return 0


def _kill(processes: Processes) -> None:
    if outer := processes.running(NAMESPACES):
        namespaces.end(outer)
    processes.kill()


def _teller() -> Say:
    began = time.monotonic()
    return lambda what: print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)


def _write_on_to(log: Path) -> None:
    """The starter listens no more: what is still to be said goes to `log`."""
    with log.open("ab") as file:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(file.fileno(), descriptor)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
