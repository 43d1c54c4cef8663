"""The part of constraints.txt that an image installs, hashes included: `python pins.py CONSTRAINTS PYPROJECT…`.

It runs while an image is built, on the standard library alone. What tests and tools need stays out, and so a newer
linter leaves the image's large layer as it is. Who needs whom stands in the lock's own `# via` comments.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==")
_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*")
_CUDA = re.compile(r"nvidia-|cuda-|triton$")
_WITHOUT_A_GPU_TOO = frozenset({"nvidia-cuda-runtime", "nvidia-cuda-cupti"})
"""Small, and called on a CPU too: the one to learn that there is no GPU, the other by the profiler."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution of the lock: its lines, and the distributions that need it."""

    lines: tuple[str, ...]
    via: frozenset[str]


def normalised(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(lock: str) -> dict[str, Pin]:
    """The pins of constraints.txt by normalised name, in its order."""
    blocks: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lock.splitlines():
        if match := _PIN.match(line):
            current = blocks.setdefault(normalised(match["name"]), [])
        current.append(line)
    return {name: _pin(lines) for name, lines in blocks.items()}


def _pin(lines: list[str]) -> Pin:
    remarks = " ".join(line.strip(" #") for line in lines if line.lstrip().startswith("#"))
    pinned = tuple(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return Pin(pinned, frozenset(map(normalised, remarks.removeprefix("via ").split())))


def needed(pins: Mapping[str, Pin], roots: Iterable[str]) -> list[str]:
    """`roots` and everything they bring along, in the lock's order. Raises `ValueError` for a root without a pin."""
    found = set(roots)
    if absent := sorted(found - pins.keys()):
        raise ValueError(f"constraints.txt pins no {', '.join(absent)}: make lock")
    while more := {name for name, pin in pins.items() if name not in found and pin.via & found}:
        found |= more
    return [name for name in pins if name in found]


def without_cuda(names: Iterable[str]) -> list[str]:
    """`names` without what only a GPU uses."""
    return [name for name in names if name in _WITHOUT_A_GPU_TOO or not _CUDA.match(name)]


def roots(projects: Sequence[Mapping[str, Any]]) -> list[str]:
    """What these pyproject tables ask for with all their extras, beside each other."""
    asked = [line for project in projects for line in _asked(project["project"])]
    ours = {normalised(project["project"]["name"]) for project in projects}
    return sorted({name for name in map(_name, asked) if name not in ours})


def _asked(project: Mapping[str, Any]) -> list[str]:
    extras = project.get("optional-dependencies", {}).values()
    return [*project.get("dependencies", ()), *(line for extra in extras for line in extra)]


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    assert match, f"no requirement: {requirement!r}"
    return normalised(match[0])


def main(arguments: Sequence[str]) -> int:
    """Print the pins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("constraints", type=Path)
    parser.add_argument("projects", type=Path, nargs="*", help="pyproject.toml files")
    parser.add_argument("--also", action="append", default=[], metavar="NAME", help="one more distribution; repeatable")
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cuda", help="cpu: without the CUDA libraries")
    asked = parser.parse_args(arguments)
    pins = read(asked.constraints.read_text(encoding="utf-8"))
    projects = [tomllib.loads(path.read_text(encoding="utf-8")) for path in asked.projects]
    names = needed(pins, {*roots(projects), *map(normalised, asked.also)})
    for name in without_cuda(names) if asked.variant == "cpu" else names:
        print(*pins[name].lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
