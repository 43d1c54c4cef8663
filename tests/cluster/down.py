"""Ending a cluster that another process started."""

from pathlib import Path

import psutil

from tests.cluster.leftovers import clean

_END_SECONDS = 60


def keeper_of(directory: Path) -> psutil.Process | None:
    """The process that keeps the cluster in `directory`; `None` when none does."""
    try:
        process = psutil.Process(int((directory / "keeper.pid").read_text(encoding="utf-8")))
        return process if str(directory) in process.cmdline() else None  # else the number was given anew
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def stop(directory: Path) -> None:
    """End the cluster in `directory` and remove all of it; does nothing when there is none."""
    keeper = keeper_of(directory)
    if keeper:
        keeper.terminate()
        keeper.wait(_END_SECONDS)
    clean(directory)
