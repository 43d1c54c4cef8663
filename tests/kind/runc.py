"""runc for a root who is not allowed everything: `python runc.py RUNC ARGUMENT…`, as Docker calls it.

`docker run --privileged` asks for every capability and for a process that memory pressure spares. Where this machine's
root lacks CAP_SYS_RESOURCE (in a container, in CI) the kernel refuses both; so what cannot be had is not asked for.
Runs once for each step of a container: standard library alone, and little of it.
"""

import json
import os
import sys
from itertools import pairwise

_NAME, _BIT = "CAP_SYS_RESOURCE", 24  # capabilities(7)
_BUNDLE, _PROCESS = ("--bundle", "-b"), ("--process", "-p")


def may(status: str) -> bool:
    """Whether a process of which /proc says this may have the capability."""
    (bounds,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")]
    return bool(int(bounds, 16) >> _BIT & 1)


def files(arguments: list[str]) -> list[str]:
    """The files among runc's arguments that tell how a process is to be."""
    pairs = list(pairwise(arguments))
    bundles = [f"{value}/config.json" for option, value in pairs if option in _BUNDLE]
    return bundles + [value for option, value in pairs if option in _PROCESS]


def without(told: dict[str, object]) -> dict[str, object]:
    """A container's configuration, or a process's, that asks for nothing of the capability."""
    if isinstance(inner := told.get("process"), dict):
        return {**told, "process": without(inner)}
    made = dict(told)
    if isinstance(sets := told.get("capabilities"), dict):
        made["capabilities"] = {kind: [name for name in names if name != _NAME] for kind, names in sets.items()}
    score = told.get("oomScoreAdj")
    if isinstance(score, int) and score < 0:
        made["oomScoreAdj"] = 0
    return made


def main(program: str, arguments: list[str]) -> None:
    """Become runc."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - pathlib would be half of the time
        allowed = may(status.read())
    for file in [] if allowed else files(arguments):
        if os.path.exists(file):  # noqa: PTH110 - as above
            _rewrite(file)
    os.execv(program, ["runc", *arguments])


def _rewrite(file: str) -> None:
    with open(file, "r+", encoding="utf-8") as told:  # noqa: PTH123 - as above
        made = without(json.load(told))
        told.seek(0)
        json.dump(made, told)
        told.truncate()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
