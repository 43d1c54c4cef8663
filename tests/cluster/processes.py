"""The programs of a cluster as children of one process, which end with it whatever it ends by."""

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import StartFailed
from tests.cluster.machine import ADMIN_PATH

READY_SECONDS = 120
"""How long anything may take to be ready; a busy machine needs ten times what an idle one does."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOOK_SECONDS = 0.05
_TAIL_LINES = 25


class Processes:
    """The running programs, each with a log of its own.

    Args:
        logs: the folder for `NAME.log`.
        lifeline: a descriptor that becomes readable when the starter is gone; `None` when nobody holds one.
    """

    def __init__(self, logs: Path, lifeline: int | None = None) -> None:
        self._logs = logs
        self._lifeline = lifeline
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, *command: str | Path, keep: Sequence[int] = (), folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Run `command` in `folder` (that of the logs); the descriptors in `keep` stay open in it.

        It is killed when this thread ends.
        """
        parent = os.getpid()
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder or self._logs,
                env=environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=keep,
                preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509 - the keeper has one thread while it starts them
            )
        return process

    def running(self, name: str) -> subprocess.Popen[bytes] | None:
        """The program that was started as `name`."""
        return self._running.get(name)

    def name_of(self, pid: int) -> str | None:
        """The program that has process id `pid`."""
        return next((name for name, process in self._running.items() if process.pid == pid), None)

    def check(self) -> None:
        """Raises `StartFailed` when a program has ended, or the starter has."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise StartFailed(f"{name} ended with status {process.returncode}\n{self.tail(name)}")
        if self._lifeline is not None and select.select([self._lifeline], [], [], 0)[0]:
            raise StartFailed("its starter is gone")

    def wait_for(self, what: str, done: Callable[[], bool], log: str) -> None:
        """Return once `done` is true; raises `StartFailed` with the end of `log` after 120 s, or as `check` does."""
        limit = time.monotonic() + READY_SECONDS
        while not done():
            self.check()
            if time.monotonic() > limit:
                raise StartFailed(f"{what}: not within {READY_SECONDS} s\n{self.tail(log)}")
            time.sleep(_LOOK_SECONDS)

    def wait_for_an_end(self) -> None:
        """Block until the starter is gone; raises `StartFailed` when a program ends before."""
        watched = [os.pidfd_open(process.pid) for process in self._running.values()]
        lifeline = [] if self._lifeline is None else [self._lifeline]
        ended, _, _ = select.select([*watched, *lifeline], [], [])
        if not set(lifeline) & set(ended):
            self.check()

    def kill(self) -> None:
        """End them all, at once."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def tail(self, name: str) -> str:
        """The end of what the program `name` wrote."""
        return tail(self._logs / f"{name}.log", _TAIL_LINES)


def tail(log: Path, lines: int) -> str:
    """The last lines of `log`; says so where there is none."""
    if not log.exists():
        return f"({log.name} was not written)"
    told = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"--- {log.name}", *told[-lines:]])


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a program of the cluster: without the host's proxies, with the folders of an administrator.

    A proxy could not reach the cluster's own addresses, and not every root has /usr/sbin on the path.
    """
    kept = {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"PATH": f"{environ.get('PATH', os.defpath)}:{ADMIN_PATH}"}


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(1)
