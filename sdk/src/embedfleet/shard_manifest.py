"""The manifest of a directory of shards, and how a file is written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from embedfleet.errors import BadInput, ResumeRefused
from embedfleet.shard_formats import ShardFormat
from embedfleet.wire import InputType

MANIFEST = "manifest.json"
DRAFT = ".part"
"""The ending of a file that is not whole yet."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Bad(_Record):
    """A row that is NaN."""

    index: int
    code: str
    message: str
    text: str | None = None


class Shard(_Record):
    """One whole file; `digest` is of its texts."""

    file: str
    rows: int
    bytes: int
    digest: str
    errors: tuple[Bad, ...] = ()


class Manifest(_Record):
    """What the directory holds."""

    version: Literal[1] = 1
    format: ShardFormat
    shard_rows: int
    input_type: InputType | None = None
    asked_dimensions: int | None = None
    dimensions: int | None = None
    model: str | None = None
    fingerprint: str | None = None
    precision: str | None = None
    complete: bool = False
    shards: tuple[Shard, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all its shards."""
        return sum(shard.rows for shard in self.shards)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory; `BadInput` where there is none, `ResumeRefused` where it cannot be read."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"{directory} holds no vectors: there is no {MANIFEST} in it") from error
    except ValidationError as error:
        raise ResumeRefused(f"{directory / MANIFEST} was not written by embed_to of this version") from error


def check_files(directory: Path, manifest: Manifest) -> None:
    """`ResumeRefused` unless every shard is there as it was written."""
    for shard in manifest.shards:
        file = directory / shard.file
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise ResumeRefused(f"{file} is missing or was changed since it was written; begin in a new directory")


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> int:
    """Write a file whole or not at all, and onto the disk; its size in bytes."""
    draft = path.with_name(path.name + DRAFT)
    try:
        with draft.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync_directory(path.parent)
    return size


def _sync_directory(directory: Path) -> None:
    """A new name is on the disk only once its directory is."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
