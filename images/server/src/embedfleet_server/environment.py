"""Variables that torch's libraries read as they are imported; what the user's environment says wins.

OpenMP: how many threads, and that those which wait soon sleep. Torch computes on a CPU with OpenMP's threads. At each
end of a parallel part they wait for each other, and by default they spin for milliseconds while they wait: where
another process has one of the cores, the others burn theirs until it is back. Asleep they leave it to whoever has work,
but to be woken takes longer than many a part does: so they spin for a moment, and sleep then. Where each core has one,
each is bound to its own: the system wakes a thread on the core of the one that wakes it, where it waits for that one,
though the next core is idle (decision 0013).

oneDNN: how many of the kernels that it makes for each shape are kept.

torch.compile: where it keeps what it made.
"""

import contextlib
import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_POLICY = "OMP_WAIT_POLICY"
_SPINS = "GOMP_SPINCOUNT"
_SPINNING = (_POLICY, _SPINS, "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables that say how threads wait, of OpenMP and of its two implementations; with any the user has decided."""
_BOUND = {"OMP_PLACES": "cores", "OMP_PROC_BIND": "true"}  # to cores, not to the threads that a core may have
_BINDING = (*_BOUND, "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
"""Variables that say where threads run; with any the user has decided."""
_POD = "KUBERNETES_SERVICE_HOST"
_GPUS = tuple(Path("/dev", name) for name in ("nvidiactl", "kfd", "dxg"))  # NVIDIA's, AMD's, and either in WSL
_MOMENT = 10_000
"""Looks of a waiting thread before it sleeps, in GNU's OpenMP; decision 0013 has what 0 to 30,000 cost and gain."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
KERNELS = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Of torch's bridge to oneDNN, and of oneDNN itself: each keeps 1,024 unless it is told otherwise."""
_KEPT = 256
"""Kernels, some 0.4 MiB each; the lengths of rows of one model need 208 (decision 0015). A server of MiniLM grew by 18
to 42 MiB over 50,000 texts after 20,000, where with 1,024 kept, and rows of any length, it had grown by 150 to 520."""
COMPILED = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_V2 = (Path("/sys/fs/cgroup/cpu.max"),)
_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def variables(environ: Mapping[str, str], cores: int, quota: float) -> dict[str, str]:
    """Variables to set in addition to `environ`; `quota` is how many cores' time the process may use, or infinite."""
    others = {name: str(_KEPT) for name in KERNELS} | compiling(environ)
    return threads(environ, cores, quota) | {name: value for name, value in others.items() if name not in environ}


def compiling(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of torch.compile. Its own place is one in the directory for temporary files, whose files it would run."""
    home = Path(environ.get("HOME") or Path.home())
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "embedfleet"
    places = {COMPILED[0]: cache / "inductor", COMPILED[1]: cache / "triton"}
    return {name: str(place) for name, place in places.items()}


def threads(environ: Mapping[str, str], cores: int, quota: float) -> dict[str, str]:
    """Those of OpenMP. Threads beyond the quota would use it up together, and all stand still until it is anew."""
    told: dict[str, str] = {}
    if quota <= cores - 1 and not any(name in environ for name in _THREADS):
        told[_THREADS[0]] = str(math.ceil(quota))
    if not any(name in environ for name in _SPINNING):
        told[_POLICY] = "PASSIVE"
        if quota >= _count({**environ, **told}, cores):  # else what is spun away is missing to the others
            told[_SPINS] = str(_MOMENT)
    return told


def binding(environ: Mapping[str, str], cores: int, quota: float, given: int | None = None) -> dict[str, str]:
    """Those that bind OpenMP's threads, for a process that computes on the CPU; `given` is how many the user asks for.

    Nothing unless each core has its thread: fewer would all stand on the first cores, as those of other processes do.
    Nor where the quota is less than the cores, which leaves some to others. Nor in a pod: the node may take cores away
    from it, and OpenMP ends the process when it is to start a thread on one of these.
    """
    count = given or _count(environ, cores)
    is_said = any(name in environ for name in (*_BINDING, _POD))
    return dict(_BOUND) if 1 < count == cores <= quota and not is_said else {}


def can_bind() -> bool:
    """Whether the system lets a thread choose its cores; OpenMP ends the process where it does not."""
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux; a sandbox
        return False
    return True


def has_gpu(devices: tuple[Path, ...] = _GPUS) -> bool:
    """Whether there is a GPU, as far as can be told without torch."""
    return any(device.exists() for device in devices)


def unbind(environ: MutableMapping[str, str]) -> None:
    """Let processes that are started from here on be bound to nothing; torch has been imported."""
    for name in _BOUND:
        environ.pop(name, None)


def run_anywhere() -> None:
    """Let this thread run wherever the process' first one may, which computes nothing and is never bound.

    A thread begins with the binding of the one that starts it.
    """
    with contextlib.suppress(AttributeError, OSError):  # as `can_bind`; cores may be taken away meanwhile
        os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))


def _count(environ: Mapping[str, str], cores: int) -> int:
    """How many threads torch will compute with."""
    said = next((environ[name] for name in _THREADS if name in environ), "")
    return int(said) if said.isdecimal() else cores


def quota(files: tuple[tuple[Path, ...], ...] = (_V2, _V1)) -> float:
    """Cores' time that the control group allows, as a container sees its own; infinite where it sets no limit."""
    for group in files:
        try:
            numbers = [float(word) for file in group for word in file.read_text(encoding="ascii").split()]
        except (OSError, ValueError):  # not there, or "max" for no limit
            continue
        if len(numbers) == 2 and min(numbers) > 0:  # version 1 says -1 for no limit
            return numbers[0] / numbers[1]
    return math.inf


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
