"""Docker or Podman, by the little that a build needs of them."""

import ast
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.images import layout
from tools.images.errors import BuildFailed

PUBLISHED_BASE = "python:3.11-slim-bookworm"
_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""Settings of pip that a build takes over: how to reach an index. Folders of this machine are not there."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One that runs.

    Args:
        command: the client and the options by which it finds its daemon.
        base: name of the image to build on.
        options: for every `build`.
    """

    command: tuple[str, ...]
    base: str = PUBLISHED_BASE
    options: tuple[str, ...] = ()

    def build(self, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build the image `tag`. Raises `BuildFailed`."""
        with _secrets() as secrets:
            given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
            where = ["-f", str(context / dockerfile), "-t", tag, str(context)]
            self.run("build", *self.options, "--build-arg", f"BASE={self.base}", *given, *secrets, *where)

    def save(self, tag: str, folder: Path) -> layout.Image:
        """The image `tag`, its layers as files in `folder`. Raises `BuildFailed`."""
        saving = subprocess.Popen([*self.command, "save", tag], stdout=subprocess.PIPE)
        assert saving.stdout is not None
        with saving.stdout:
            image = layout.read(saving.stdout, folder)
            while saving.stdout.read(layout.PIECE):  # what pads the archive; unread it would end the client by a signal
                pass
        if saving.wait() != 0:
            raise BuildFailed(f"{self.command[0]} save {tag} ended with status {saving.returncode}")
        return image

    def run(self, *arguments: str) -> None:
        """Run the client; what it says goes to standard error. Raises `BuildFailed`."""
        environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run([*self.command, *arguments], env=environ, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise BuildFailed(f"{self.command[0]} {arguments[0]} ended with status {done.returncode}")


def running(answers: Callable[[Sequence[str]], bool] | None = None) -> Engine | None:
    """The Docker or else the Podman that runs here and takes orders."""
    ask = answers or _answers
    for command in ("docker", "podman"):
        if ask((command, "info")):
            return Engine((command,))
    return None


def _answers(command: Sequence[str]) -> bool:
    if not shutil.which(command[0]):
        return False
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0 and b"Cannot connect" not in done.stderr  # some versions of the client end with 0


@contextmanager
def _secrets() -> Iterator[list[str]]:
    """The options that hand this machine's settings of pip to a build, which keeps none of them."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings, certificate = pip_settings(told)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pip.conf"
        file.write_text(settings, encoding="utf-8")
        options = ["--secret", f"id=pip_conf,src={file}"]
        authority = certificate or ssl.get_default_verify_paths().cafile
        yield [*options, "--secret", f"id=ca,src={authority}"] if authority and Path(authority).is_file() else options


def pip_settings(told: str) -> tuple[str, str | None]:
    """A pip.conf with what `pip config list` tells of the way to an index, and the file of certificates it names."""
    found: dict[str, str] = {}
    for line in told.splitlines():
        name, separator, value = line.partition("=")
        if separator:  # the first wins: pip tells of the environment, which goes before files, first
            found.setdefault(name.rpartition(".")[2], ast.literal_eval(value))
    lines = [f"{name} = {_continued(found[name])}" for name in _PIP if name in found]
    return "\n".join(["[global]", *lines, ""]), found.get("cert")


def _continued(value: str) -> str:
    return "\n    ".join(value.split("\n"))
