"""How full this process's memory is: of its control group where that has a limit, else of the machine."""

from collections.abc import Mapping
from pathlib import Path

from embedfleet_server.batching.pressure import Reading

_GROUPS = (
    (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)
"""Version 2 and version 1, as a container sees its own."""
_MEMINFO = Path("/proc/meminfo")


def host(meminfo: Path = _MEMINFO, groups: tuple[tuple[Path, Path, Path], ...] = _GROUPS) -> Mapping[str, Reading]:
    """The host's reading; none on a system that tells nothing."""
    machine = _machine(meminfo)
    if machine is None:
        return {}
    for usage, limit, stat in groups:
        group = _group(usage, limit, stat)
        if group is not None and group.total < machine.total:
            return {"host": group}
    return {"host": machine}


def _machine(meminfo: Path) -> Reading | None:
    """What is not available, of all there is; kilobytes."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (float(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return Reading(total - available, total)


def _group(usage: Path, limit: Path, stat: Path) -> Reading | None:
    """What the control group holds without the file pages it would give up, of its limit."""
    try:
        most = float(limit.read_text())  # "max" is no number: no limit
        numbers = dict(line.split() for line in stat.read_text().splitlines())
        return Reading(float(usage.read_text()) - float(numbers.get("inactive_file", 0)), most)
    except (OSError, ValueError):
        return None
