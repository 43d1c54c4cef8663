"""The cluster's programs, compiled once from the pinned sources of Go's module index and kept in the user's cache."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import BuildFailed, MachineLacks

SOURCE = Path(__file__).parent / "kubebox"
LINKS = (
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)
"""The names that `kubebox` answers to: each is a link to it."""

_ALWAYS = ("kubebox", "pause")
_KEEP_SECONDS = 14 * 24 * 3600
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one program is compiled: its package, and what the linker writes into it."""

    package: str
    values: tuple[str, ...] = ()


def say_to_stderr(line: str) -> None:
    """The usual `say`: progress is told, and stays out of what a command prints as its result."""
    print(line, file=sys.stderr, flush=True)


def binaries(*extra: str, say: Callable[[str], None] = say_to_stderr) -> Path:
    """The folder that holds `kubebox` and its links, `pause`, and the `extra` ones of helm, kind and kwok.

    What is missing is built first, by one process at a time; that takes about ten minutes for kubebox when Go's own
    cache is empty, and some 15 s for each of the others. Raises `MachineLacks` without Go and `BuildFailed`.
    """
    recipes = known((SOURCE / "go.mod").read_text(encoding="utf-8"))
    folder = place()
    with _locked(folder.parent):
        if not folder.exists():
            _forget_old(folder.parent, time.time())
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        for name in (*_ALWAYS, *extra):
            if not (folder / name).exists():
                _build(name, recipes[name], folder, say)
        _link(folder)
    return folder


def place() -> Path:
    """Where the programs of these sources are kept, whether they are built yet or not. Raises `MachineLacks`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "embedfleet" / "cluster" / digest(_go_version())


def digest(go_version: str, source: Path = SOURCE) -> str:
    """A name for what would be built of `source`: it changes with any file of it, any pin and the Go version."""
    sources = sorted(path for path in source.rglob("*") if path.name in {"go.mod", "go.sum"} or path.suffix == ".go")
    told = [f"{path.relative_to(source)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sources]
    return hashlib.sha256("\n".join([go_version, *told]).encode()).hexdigest()[:16]


def known(go_mod: str) -> dict[str, Recipe]:
    """Every program that can be built, with the versions that `go_mod` pins written into it.

    Kubernetes and helm take theirs from the linker; without it they call themselves v0.0.0 and v3.20.
    """
    kubernetes, helm = _pinned(go_mod, "k8s.io/kubernetes"), _pinned(go_mod, "helm.sh/helm/v3")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    said = {"gitVersion": kubernetes, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return {
        "kubebox": Recipe(".", tuple(f"{_VERSION}.{key}={value}" for key, value in said.items())),
        "pause": Recipe("./pause"),
        "helm": Recipe("helm.sh/helm/v3/cmd/helm", (f"helm.sh/helm/v3/internal/version.version={helm}",)),
        "kind": Recipe("sigs.k8s.io/kind"),
        "kwok": Recipe("sigs.k8s.io/kwok/cmd/kwok"),
    }


def _pinned(go_mod: str, module: str) -> str:
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", go_mod, flags=re.MULTILINE)
    assert found, f"go.mod pins no {module}"
    return found[1]


def command(recipe: Recipe, target: Path) -> list[str]:
    """The compiler's command line. No debug information: nobody debugs these, and it is a third of the work."""
    linker = " ".join(["-s", "-w", *(f"-X {value}" for value in recipe.values)])
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", f"-ldflags={linker}"]
    return ["go", "build", *flags, "-o", str(target), recipe.package]


def _go_version() -> str:
    if not shutil.which("go"):
        raise MachineLacks(["Go, which builds Kubernetes from source (https://go.dev/doc/install)"], curable=True)
    asked = subprocess.run(["go", "env", "GOVERSION"], cwd=SOURCE, capture_output=True, text=True, check=False)
    if asked.returncode != 0:  # too old for go.mod, and not allowed to fetch a newer one
        raise MachineLacks([f"a newer Go: {asked.stderr.strip()}"], curable=True)
    return asked.stdout.strip()


def _build(name: str, recipe: Recipe, folder: Path, say: Callable[[str], None]) -> None:
    long = " (once; about 10 minutes, less when Go has built it before)" if name == "kubebox" else ""
    say(f"building {name} into {folder}{long}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        made = Path(unfinished) / name
        # The compiler's garbage collector costs a third of the time and its processes live for seconds.
        environ = os.environ | {"CGO_ENABLED": "0", "GOGC": "off"}
        done = subprocess.run(command(recipe, made), cwd=SOURCE, env=environ, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise BuildFailed(f"go build of {recipe.package} in {SOURCE} ended with status {done.returncode}")
        made.rename(folder / name)
    say(f"built {name} in {time.monotonic() - began:.0f} s")


def _forget_old(cache: Path, now: float) -> None:
    """Programs of other sources that nobody asked for lately: each set takes 300 MB."""
    for folder in cache.iterdir():
        if folder.is_dir() and now - folder.stat().st_mtime > _KEEP_SECONDS:
            shutil.rmtree(folder)


def _link(folder: Path) -> None:
    for name in LINKS:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to("kubebox")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
