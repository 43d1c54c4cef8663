"""What a server process holds, before, during and after a load: does it give everything back?"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import psutil

from tests.support.process import Process

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds when nothing is asked of it."""

    files: int
    """Open file descriptors, sockets too."""
    threads: int
    tasks: int
    """Of the event loop."""
    permits: int
    """Batches that hold one."""
    running: int
    waiting: int
    """Inputs."""


def held(server: Process) -> Held:
    """As it is now."""
    running = psutil.Process(server.running.pid)
    _, state = server.ask("GET", "/state", observe=True)
    stats = state["stats"]
    return Held(
        files=running.num_fds(),
        threads=running.num_threads(),
        tasks=state["tasks"],
        permits=stats["active_batches"],
        running=stats["running"],
        waiting=stats["waiting"],
    )


def resident_mib(server: Process) -> float:
    """Resident memory of the process."""
    return float(psutil.Process(server.running.pid).memory_info().rss / MIB)


def grown(before: Held, after: Held) -> list[str]:
    """What is more than before, each in words."""
    pairs = [(each.name, getattr(before, each.name), getattr(after, each.name)) for each in fields(Held)]
    return [f"{name}: {first} before, {last} after" for name, first, last in pairs if last > first]


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """The straight line through (seconds, MiB) by least squares: MiB a second; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
