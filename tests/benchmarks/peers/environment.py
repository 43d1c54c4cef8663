"""Peers' own virtual environments, made on demand under the user's cache and pinned by a file beside this one."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_HOME = Path("~/.cache/embedfleet/peers").expanduser()
_INSTALLING = 3600.0  # seconds: PyTorch through a slow index


class PeerMissing(Exception):
    """The peer cannot be had on this machine; the message says why."""


def installed(name: str, pins: Path, *, size: str) -> Path:
    """Folder of the environment `name` with exactly what `pins` lists, made if it is not there.

    `size` is what making it takes, for the user who waits. Raises `PeerMissing`.
    """
    home, wanted = _HOME / name, pins.read_text(encoding="utf-8")
    stamp = home / ".pins"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted):
        print(f"installing {name} and its libraries ({size}, once)", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(home)], seconds=_INSTALLING)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pins)]
        run(pip, seconds=_INSTALLING)
        stamp.write_text(wanted, encoding="utf-8")
    return home


def run(command: list[str], *, seconds: float, environ: Mapping[str, str] | None = None) -> None:
    """Run it to its end; raises `PeerMissing` where it fails or takes longer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environ)
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"{command[1:3]} did not end within {seconds:.0f} s") from None
    if done.returncode != 0:
        raise PeerMissing(f"{command[1:3]} ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
