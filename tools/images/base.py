"""A base image where no registry is in reach: Debian's own packages, as the machine's apt gets them."""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tools.images.engine import Engine
from tools.images.errors import BuildFailed, CannotBuild

PACKAGES = ("ca-certificates", "python3", "python3-venv")
"""What the published base has too."""

_TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
_LEFT = ("var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "var/log/*.log")
_ROOT_ONLY = ("unshare", "--mount")  # debootstrap mounts /proc below its folder: none of it outlives this


def name(release: str) -> str:
    """What the base is called; other packages or another release have another name."""
    told = hashlib.sha256(" ".join([release, *PACKAGES]).encode()).hexdigest()[:8]
    return f"embedfleet-base:{release}-{told}"


def release() -> str:
    """The code name of this Debian. Raises `CannotBuild` where there is none."""
    file = Path("/etc/os-release")
    told = file.read_text(encoding="utf-8") if file.exists() else ""
    found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    if found.get("ID") != "debian" or "VERSION_CODENAME" not in found:
        here = found.get("PRETTY_NAME", "an unknown system")
        raise CannotBuild(f"neither Docker nor Podman runs, and this is {here}: one can be started on Debian alone")
    return found["VERSION_CODENAME"].strip('"')


def import_base(engine: Engine, bases: Path) -> Engine:
    """`engine` with the base in it, made first where `bases` has none. Raises `BuildFailed`."""
    tag = name(release())
    archive = bases / f"{tag.replace(':', '-')}.tar"
    if not archive.exists():
        _make(release(), archive)
    os.utime(archive)
    engine.run("import", str(archive), tag)
    return replace(engine, base=tag)


def mirror(told: str, codename: str) -> str:
    """Where apt gets the packages of `codename` from, by what `apt-get indextargets` told. Raises `BuildFailed`."""
    for line in told.splitlines():
        where, release_of, component = line.split()
        if (release_of, component) == (codename, "main"):
            return where
    raise BuildFailed(f"apt has no source for the component main of {codename}")


def _make(codename: str, archive: Path) -> None:
    print(f"making a base of Debian's packages: {archive}", file=sys.stderr)
    archive.parent.mkdir(parents=True, exist_ok=True)
    targets = subprocess.run(_TARGETS, capture_output=True, text=True, check=False).stdout
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root = Path(folder) / "root"
        _run(*_ROOT_ONLY, "debootstrap", *options, codename, str(root), mirror(targets, codename))
        for left in _LEFT:
            for file in root.glob(left):
                file.unlink()
        draft = Path(folder) / archive.name
        _run("tar", "-C", str(root), "--numeric-owner", "-cf", str(draft), ".")
        draft.rename(archive)


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command[:3])} … ended with status {done.returncode}")
