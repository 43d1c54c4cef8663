"""The process that keeps one kind cluster: `python -m tests.kind.keeper DIRECTORY`.

Like the keeper of other clusters it prints a line for each thing that is up, then `ready`, and takes all of it away
when its starter is gone or a SIGTERM comes. Should it be killed itself, the kernel ends a Docker of our own, and files
and control groups stay for `down`; in a Docker that runs anyway the node does.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.keeper import READY
from tests.cluster.leftovers import clean
from tests.cluster.processes import Processes
from tests.kind import own_docker
from tests.kind.creating import bring_up, delete
from tests.kind.plan import KindPlan

_STDIN = 0


def main(directory: Path) -> int:
    """Run the cluster that is planned in `directory`; 1 with the reason on standard error when it did not come up."""
    plan = KindPlan.load(directory)
    plan.keeper.write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    processes = Processes(plan.logs, lifeline=_STDIN if plan.tied else None)
    began, began_to_keep, lost = time.monotonic(), False, False
    try:
        with ExitStack() as held:
            bring_up(
                plan, processes, held, lambda what: print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)
            )
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
        _take_down(plan, processes)
        if not lost:
            clean(plan.directory)
    return 0


def _take_down(plan: KindPlan, processes: Processes) -> None:
    """As a user would, and then whatever that has left of a Docker of our own."""
    try:
        delete(plan)
    except ClusterError as failure:
        print(failure, file=sys.stderr, flush=True)
    own_docker.end(processes)
    processes.kill()


def _write_on_to(log: Path) -> None:
    """The starter listens no more: what is still to be said goes to `log`."""
    with log.open("ab") as file:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(file.fileno(), descriptor)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
