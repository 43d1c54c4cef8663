"""Runs of `embed_to` that are killed at a random moment and begun again, as often as is wanted."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedfleet import Service, load

TEXTS = [f"text {number}" for number in range(3000)]
SHARD_ROWS = 256
_MOST_STEPS = 60
"""Steps after which a run dies at the latest; a whole one has some 150."""
_EVENTS = ("open", "os.rename", "os.remove")


@dataclass(frozen=True, slots=True)
class Told:
    """How many runs were killed, how many ended by themselves, and how many of these had all vectors right."""

    killed: int
    whole: int
    right: int


def embed(url: str, directory: str, steps: int | None) -> None:
    """One run; it kills itself before the step of that number: a file opened, renamed or removed, an answer."""
    left = steps if steps is not None else -1

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS and isinstance(arguments[0], str | Path) and directory in str(arguments[0]):
            step()

    sys.addaudithook(hook)
    with Service(url) as service:
        service.embed_to(directory, iter(TEXTS), shard_rows=SHARD_ROWS, progress=lambda *_: step())


def run(url: str, folder: Path, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Told:
    """Runs into `folder` until so many were killed and one ended after that."""
    spawning = multiprocessing.get_context("forkserver")
    spawning.set_forkserver_preload(["embedfleet.client", "embedfleet.shards", "tests.support.resuming"])
    chance, killed, whole, right = random.Random(seed), 0, 0, 0
    expected = _uninterrupted(url, folder / "expected")
    directory = folder / "killed"
    while True:
        steps = chance.randint(1, _MOST_STEPS) if killed < kills else None
        process = spawning.Process(target=embed, args=(url, str(directory), steps))
        process.start()
        process.join(120)
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            say(f"killed {killed}")
            continue
        assert process.exitcode == 0
        whole += 1
        right += np.asarray(load(directory)).tobytes() == expected and not list(directory.glob("*.part"))
        if killed >= kills:
            return Told(killed, whole, right)
        shutil.rmtree(directory)


def _uninterrupted(url: str, directory: Path) -> bytes:
    with Service(url) as service:
        service.embed_to(directory, TEXTS, shard_rows=SHARD_ROWS)
    return np.asarray(load(directory)).tobytes()
