"""Whether fetched files are what the hub says they are, told by the store alone.

The Hugging Face cache names each blob by its digest: the sha256 of a large file, the Git blob id of a small one. So a
store can be checked without a hub. A store on a file system without links has no blobs, and no digests either.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from embedfleet_server.models.fingerprint import sha256
from embedfleet_server.models.safety import ModuleFiles

DIGESTS = ".sha256"
"""The folder of a store that keeps the sha256s of its weights."""
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A file of a snapshot whose bytes are not those its digest stands for."""

    file: Path
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file.name} has the digest {self.found}, and must have {self.expected}"


def mismatches(snapshot: Path, *, cache: Path) -> list[Mismatch]:
    """The files below `snapshot` that are not what they should be; `cache` is the directory of known sha256s."""
    files = sorted(path for path in snapshot.rglob("*") if path.is_symlink() and path.is_file())
    return [found for file in files if (found := _mismatch(file, cache)) is not None]


def keep(modules: Iterable[ModuleFiles], *, cache: Path) -> None:
    """Have the sha256s of all weights in `cache`, where a server finds them that may not write there.

    `mismatches` keeps those of files whose blobs are named by them. Others are hashed for the fingerprint alone: all of
    a store without links, and what the hub keeps in Git itself.
    """
    for module in modules:
        for file in module.weights:
            sha256(file, cache=cache)


def forget(mismatch: Mismatch) -> None:
    """Remove the file and its blob, so that they are fetched anew."""
    blob = mismatch.file.resolve()
    mismatch.file.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _mismatch(file: Path, cache: Path) -> Mismatch | None:
    expected = file.resolve().name
    if _SHA256.fullmatch(expected):
        found: tuple[str, ...] = (sha256(file, cache=cache),)
    elif _SHA1.fullmatch(expected):
        found = _sha1s(file.read_bytes())
    else:
        return None  # a hub that names its files by something else
    return None if expected in found else Mismatch(file, expected, found[0])


def _sha1s(content: bytes) -> tuple[str, ...]:
    """Git's blob id; and the plain sha1, by which some mirrors name files."""
    git = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    git.update(content)
    return git.hexdigest(), hashlib.sha1(content, usedforsecurity=False).hexdigest()
