"""`embedfleet embed`: lines in, one .npy file out, in memory that does not grow with either."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from embedfleet.errors import BadInput

_LONGEST_LINE = 4 * 1_000_000 + 2
"""Bytes: the most characters that a server takes in one text, of four bytes each, and the line's end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which service, which model of it, and what the texts are for."""

    service: str | None
    url: str | None
    model: str | None
    input_type: Literal["query", "document"] | None
    namespace: str | None = None
    context: str | None = None


def embed_lines(wanted: Wanted, output: Path | None) -> None:
    """Embed standard input's lines into `output`, or standard output when None; float32 (lines, d).

    Raises `BadInput` for a line that is empty or no UTF-8, for no lines, and for a terminal as output; and whatever
    `connect` and `Service.embed_stream` raise. `output` is then left as it was.
    """
    if output is None and sys.stdout.isatty():
        raise BadInput("vectors are no text for a terminal: name a file by --output, or redirect (> vectors.npy)")
    with _target(output) as out:
        _embed(wanted, sys.stdin.buffer, out)


def _embed(wanted: Wanted, given: BinaryIO, out: BinaryIO) -> None:
    from embedfleet import connect
    from embedfleet.cli import npy

    where = {"namespace": wanted.namespace, "context": wanted.context}
    with connect(wanted.service, url=wanted.url, model=wanted.model, **where) as service:
        try:
            rows = npy.write(out, service.embed_stream(lines(given), input_type=wanted.input_type))
        except BadInput as error:
            raise _by_line(error) from error
    if not rows:
        raise BadInput("standard input has no lines: there is nothing to embed")


def _by_line(error: BadInput) -> BadInput:
    """`error` in terms of lines, which are counted from 1."""
    told = [f"line {wrong.index + 1}: {wrong.message}" for wrong in error.errors]
    return BadInput("\n".join(told), error.errors) if told else error


def lines(given: BinaryIO) -> Iterator[str]:
    """The lines of `given` as text, without their ends (LF or CR LF)."""
    for number, line in enumerate(iter(lambda: given.readline(_LONGEST_LINE), b""), start=1):
        yield _text(line, number)


def _text(line: bytes, number: int) -> str:
    if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
        raise BadInput(f"line {number} has more than 1,000,000 characters, more than a service takes as one text")
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"line {number} is not UTF-8: byte {error.start} of it is {line[error.start]:#04x}") from error
    if not text:
        raise BadInput(f"line {number} is empty: each line gets a row, and nothing cannot be embedded")
    return text


@contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    """Where to write: seekable, and complete or as it was before once the block is left."""
    if output is not None:
        with _replaced(output.resolve()) as out:
            yield out
    elif _seekable(sys.stdout.buffer):
        with _undone(sys.stdout.buffer) as out:
            yield out
    else:
        with tempfile.TemporaryFile() as out:
            yield out
            out.seek(0)
            shutil.copyfileobj(out, sys.stdout.buffer)
            sys.stdout.buffer.flush()


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A draft beside `path` that takes its place at the end."""
    if path.exists() and not path.is_file():
        raise BadInput(f"--output {path} is no regular file")
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as out:
            yield out
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _undone(out: BinaryIO) -> Iterator[BinaryIO]:
    """`out`, cut to what it was if the block fails: half an array must not look like a whole one."""
    start = out.tell()
    try:
        yield out
        out.flush()
    except BaseException:
        out.seek(start)
        out.truncate()
        raise


def _seekable(out: BinaryIO) -> bool:
    """Whether what is written can be changed: not in a pipe, and not in a file opened to append to."""
    appends = fcntl.fcntl(out.fileno(), fcntl.F_GETFL) & os.O_APPEND
    return out.seekable() and not appends
