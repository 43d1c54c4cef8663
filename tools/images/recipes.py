"""The images that there are, and the digests by which what was built of them is found again."""

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.images import pins

ROOT = Path(__file__).resolve().parents[2]
Variant = Literal["cpu", "cuda"]
_TOOLS = Path("tools", "images")
_IN_RUNTIME = (_TOOLS / "stubs.py", _TOOLS / "sbom.py")
_IN_CODE = (_TOOLS / "unpack.py", _TOOLS / "sbom.py")
_PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "src")


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image: its Dockerfile, and the projects whose packages are its last layer."""

    name: str
    dockerfile: Path
    projects: tuple[Path, ...]
    variant: Variant | None = None
    """Of the server alone: whether it has what GPUs need."""
    root: Path = ROOT

    @property
    def label(self) -> str:
        """For people and for the names of folders."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def version(self) -> str:
        """The version of the last of its projects, which the image has too."""
        told = tomllib.loads((self.root / self.projects[-1] / "pyproject.toml").read_text(encoding="utf-8"))
        version: str = told["project"]["version"]
        return version

    def runtime_key(self, base: str) -> str:
        """Changes with all that the layers below the last one are made of, on a base that is called `base`."""
        told = [self.label, base, self._pins(), _text(self.root / self.dockerfile)]
        return _digest(told + [_text(self.root / path) for path in _IN_RUNTIME])

    def code_key(self) -> str:
        """Changes with all that the last layer is made of."""
        files = [path for project in self.projects for path in _sources(self.root / project)]
        files += [self.root / path for path in _IN_CODE]
        return _digest(f"{path.relative_to(self.root)}\0{_text(path)}" for path in files)

    def _pins(self) -> str:
        found = pins.read(_text(self.root / "constraints.txt"))
        projects = [tomllib.loads(_text(self.root / path / "pyproject.toml")) for path in self.projects]
        names = pins.needed(found, pins.roots(projects))
        chosen = pins.without_cuda(names) if self.variant == "cpu" else names
        return "\n".join(line for name in chosen for line in found[name].lines)


def server(variant: Variant = "cpu", root: Path = ROOT) -> Recipe:
    """The server: `cpu` runs on CPUs alone, `cuda` on both."""
    projects = (Path("sdk"), Path("images", "server"))
    return Recipe("embedfleet-server", Path("images", "server", "Dockerfile"), projects, variant, root)


def operator(root: Path = ROOT) -> Recipe:
    """The operator."""
    projects = (Path("sdk"), Path("operator"))
    return Recipe("embedfleet-operator", Path("images", "operator", "Dockerfile"), projects, None, root)


def _sources(project: Path) -> list[Path]:
    tops = [project / name for name in _PACKAGED]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return sorted(file for file in files if "__pycache__" not in file.parts)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _digest(told: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
