"""How a local server is found: one small file per service in the user's runtime directory.

Written by the server (0600), read by the SDK; a file whose process is gone is ignored.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from embedfleet.api.base import ContractModel


class LocalRecord(ContractModel):
    """A server running on this machine."""

    service: str
    """Name of the service."""
    pid: int
    """The server's process."""
    url: str
    """Address of the public port."""
    observe_url: str
    """Address of the observation port."""
    models: list[str]
    """Names of its models."""
    socket: str | None = None
    """Path of the control socket."""


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """`$XDG_RUNTIME_DIR/embedfleet`, else a folder of this user's own in the temporary directory."""
    given = environ.get("XDG_RUNTIME_DIR")
    return Path(given) / "embedfleet" if given else Path(tempfile.gettempdir()) / f"embedfleet-{os.getuid()}"


def private_directory(directory: Path) -> Path:
    """`directory`, made with mode 0700; `PermissionError` when it is somebody else's or open to others."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{directory} must belong to this user and be writable by no other")
    return directory


def write_record(directory: Path, record: LocalRecord) -> Path:
    """Write the record so that a reader sees all of it or nothing; returns the file."""
    path = private_directory(directory) / f"{record.service}.json"
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(record.model_dump_json(by_alias=True))
    draft.replace(path)
    return path


def read_records(directory: Path) -> list[LocalRecord]:
    """The records whose process lives, by name; what cannot be read is passed over."""
    found = (_read(path) for path in sorted(directory.glob("*.json")))
    return [record for record in found if record is not None and _alive(record.pid)]


def remove_record(directory: Path, record: LocalRecord) -> None:
    """Remove the record if it is still this one (another server may have taken the name)."""
    path = directory / f"{record.service}.json"
    if _read(path) == record:
        path.unlink(missing_ok=True)


def _read(path: Path) -> LocalRecord | None:
    try:
        return LocalRecord.model_validate_json(path.read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
