"""Vectors on disk: shards of a fixed number of rows and a manifest that names those that are whole.

A shard, then the manifest that names it, is written beside its place, flushed to the disk and renamed. So whatever
stops a run at whatever moment, the manifest names only whole shards, and the next run goes on behind them.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from embedfleet import chunks
from embedfleet.errors import BadInput, InputError, ModelChanged, ResumeRefused
from embedfleet.shard_formats import FORMATS, ShardFormat
from embedfleet.shard_manifest import DRAFT, MANIFEST, Bad, Manifest, Shard, check_files, read_manifest, replace_file
from embedfleet.tally import Tally
from embedfleet.wire import Options, Rows

SHARD_ROWS = 16_384
"""Rows of one shard by default: 25 MB of 384 numbers each, what a stopped run computes again at most."""

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Written:
    """What `embed_to` did. `embedfleet.load(path)` gives the vectors."""

    path: Path
    rows: int
    """In the directory, all together."""
    resumed: int
    """Of these, made by earlier runs."""
    dimensions: int
    fingerprint: str | None
    errors: tuple[InputError, ...]
    """The texts without a vector, where `on_error` is "collect"."""


class Reader:
    """Texts read once, in order, with a digest for every `size` of them."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        self._texts = iter(chunks.readable(texts))
        self._size = size
        self.digests: list[str] = []

    def skip(self, count: int) -> str | None:
        """Pass over `count` texts; their digest, or None when there are not so many."""
        digest = sha256()
        for _ in range(count):
            try:
                _feed(digest, next(self._texts))
            except StopIteration:
                return None
        self.digests.append(digest.hexdigest())
        return self.digests[-1]

    def rest(self) -> Iterator[str]:
        """The texts that are left; a digest is added as the last of its texts is given out."""
        digest, held = sha256(), 0
        for text in self._texts:
            _feed(digest, text)
            held += 1
            if held == self._size:
                self.digests.append(digest.hexdigest())
                digest, held = sha256(), 0
            yield text
        if held:
            self.digests.append(digest.hexdigest())

    def is_at_end(self) -> bool:
        """Whether no text is left; reads one."""
        return next(self._texts, self) is self


def _feed(digest: Any, text: object) -> None:
    """Each text with its length before it, so that no two lists of texts are alike; what is no text by its repr."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else f"\0{text!r}".encode()
    digest.update(len(data).to_bytes(8, "little") + data)


class Writer:
    """Takes rows in order and writes a shard whenever one is full. `manifest` is what is on the disk."""

    def __init__(self, directory: Path, manifest: Manifest, reader: Reader, *, note_errors: bool) -> None:
        self._directory, self._reader, self._note_errors = directory, reader, note_errors
        self.manifest = manifest
        self.resumed = manifest.rows
        self.tally = Tally(expected=manifest.fingerprint)
        self._buffer: Rows | None = None
        self._held = 0
        self._warned = False

    def add(self, rows: Rows) -> None:
        """Take rows of shape (k, d); whole shards are on the disk afterwards. Raises `OSError` when it is full."""
        while len(rows):
            room = self._room(rows.shape[1])
            piece, rows = rows[: len(room)], rows[len(room) :]
            room[: len(piece)] = piece
            self._held += len(piece)
            if self._held == self.manifest.shard_rows:
                self._write_shard()

    def check(self, fingerprint: str | None) -> None:
        """`ResumeRefused` where the model's fingerprint is known, and not that of the vectors that are there."""
        before = self.manifest.fingerprint
        if before and fingerprint and before != fingerprint:
            raise ResumeRefused(
                f"{self._directory} has vectors of the fingerprint {before}; the model's is {fingerprint}: they "
                "cannot be compared, begin in a new directory"
            )

    def finish(self, dimensions: int) -> None:
        """Write what is held, and that this was all."""
        if self._held:
            self._write_shard()
        known = self.manifest.dimensions or dimensions
        self._save(self.manifest.model_copy(update={"complete": True, "dimensions": known}))

    def warnings(self) -> list[str]:
        """What the caller is to be warned of now, each once."""
        before, now = self.manifest.precision, self.tally.precisions
        if self._warned or not self.resumed or before is None or not now or now == {before}:
            return []
        self._warned = True
        return [
            f"{self._directory} has vectors made in {before}; those to come are made in {', '.join(sorted(now))}:"
            " of one model, but not equal to the last digits"
        ]

    @property
    def has_rows(self) -> bool:
        """Whether there is any row, on the disk or held."""
        return self._held > 0 or self.manifest.rows > 0

    def written(self) -> Written:
        """What came of it."""
        errors = [
            InputError(bad.index, bad.code, bad.message, bad.text) for one in self.manifest.shards for bad in one.errors
        ]
        made, rows = self.manifest, self.manifest.rows
        return Written(self._directory, rows, self.resumed, made.dimensions or 0, made.fingerprint, tuple(errors))

    def _room(self, dimensions: int) -> Rows:
        known = self.manifest.dimensions
        if known is not None and known != dimensions:
            raise ResumeRefused(f"{self._directory} has vectors of {known} numbers, those to come have {dimensions}")
        if self._buffer is None:
            self._buffer = np.empty((self.manifest.shard_rows, dimensions), np.float32)
        return self._buffer[self._held :]

    def _write_shard(self) -> None:
        assert self._buffer is not None
        number, rows = len(self.manifest.shards), self._buffer[: self._held]
        kind = FORMATS[self.manifest.format]
        name = f"shard-{number:05d}{kind.ending}"
        size = replace_file(self._directory / name, lambda out: kind.write(out, rows))
        shard = Shard(
            file=name, rows=len(rows), bytes=size, digest=self._reader.digests[number], errors=self._bad(len(rows))
        )
        self._save(self._with(shard, rows.shape[1]))
        self._held = 0

    def _with(self, shard: Shard, dimensions: int) -> Manifest:
        precisions = self.tally.precisions
        seen = {
            "shards": (*self.manifest.shards, shard),
            "dimensions": dimensions,
            "model": self.manifest.model or self.tally.model,
            "fingerprint": self.manifest.fingerprint or self.tally.fingerprint,
            "precision": self.manifest.precision or (min(precisions) if precisions else None),
        }
        return self.manifest.model_copy(update=seen)

    def _bad(self, rows: int) -> tuple[Bad, ...]:
        """The errors of the shard that begins where the manifest ends; those before are not needed any more."""
        start = self.manifest.rows
        wrong = [self.tally.errors.pop(i) for i in sorted(self.tally.errors) if i < start + rows]
        noted = wrong if self._note_errors else []
        return tuple(Bad(index=e.index, code=e.code, message=e.message, text=e.text) for e in noted)

    def _save(self, manifest: Manifest) -> None:
        text = manifest.model_dump_json(indent=1).encode()
        replace_file(self._directory / MANIFEST, lambda out: out.write(text))
        self.manifest = manifest


@contextmanager
def writing(
    path: str | os.PathLike[str],
    texts: Iterable[str],
    options: Options,
    *,
    kind: ShardFormat = "npy",
    shard_rows: int = SHARD_ROWS,
    note_errors: bool = False,
) -> Iterator[tuple[Writer, Iterator[str]]]:
    """A writer behind the whole shards of `path`, and the texts that are left.

    Raises:
        BadInput: `path` is no directory, or the options make no sense.
        ResumeRefused: what is there is of other texts or options, or another process writes to it.
        ExtraMissing: the format needs pyarrow.
        OSError: the disk is full, or refuses; what was whole stays.
    """
    directory = _directory(Path(path))
    wanted = _wanted(kind, shard_rows, options)
    with _locked(directory):
        manifest = _resumed(directory, wanted)
        reader = Reader(texts, shard_rows)
        _same_texts(directory, manifest, reader)
        writer = Writer(directory, manifest, reader, note_errors=note_errors)
        try:
            yield writer, iter(()) if manifest.complete else reader.rest()
        except ModelChanged as error:
            if writer.resumed:
                raise ResumeRefused(f"{directory} has vectors of another model: {error}") from error
            raise
        except OSError as error:
            error.add_note(_stays(writer))
            raise


def _stays(writer: Writer) -> str:
    return f"{writer.manifest.rows} rows are whole on the disk; embed_to with the same arguments goes on behind them."


def _directory(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise BadInput(f"path is {str(path)!r}, a file; it must be a directory, or a name for one")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _wanted(kind: str, shard_rows: int, options: Options) -> Manifest:
    if kind not in FORMATS:
        raise BadInput(f"format is {kind!r}; it must be one of {', '.join(FORMATS)}")
    if shard_rows < 1:
        raise BadInput(f"shard_rows is {shard_rows}; it must be 1 or more")
    FORMATS[kind].check()
    return Manifest(
        format=kind,  # type: ignore[arg-type]  # a key of the table
        shard_rows=shard_rows,
        input_type=options.input_type,
        asked_dimensions=options.dimensions,
    )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """No other process writes meanwhile; the lock ends with the process, however that ends."""
    with (directory / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResumeRefused(f"another process is writing to {directory}") from error
        yield


def _resumed(directory: Path, wanted: Manifest) -> Manifest:
    """The manifest to go on from; drafts of a run that was stopped are removed."""
    for draft in directory.glob(f"*{DRAFT}"):
        draft.unlink()
    if not (directory / MANIFEST).exists():
        return wanted
    found = read_manifest(directory)
    for name in ("format", "shard_rows", "input_type", "asked_dimensions"):
        before, now = getattr(found, name), getattr(wanted, name)
        if before != now:
            shown = name.removeprefix("asked_")
            raise ResumeRefused(f"{directory} was begun with {shown}={before!r}; it cannot go on with {shown}={now!r}")
    check_files(directory, found)
    return found


def _same_texts(directory: Path, manifest: Manifest, reader: Reader) -> None:
    """Read the texts of the whole shards; `ResumeRefused` unless they are what the shards were made from."""
    start = 0
    for shard in manifest.shards:
        digest = reader.skip(shard.rows)
        if digest != shard.digest:
            end = "ended before" if digest is None else "are not those of before"
            raise ResumeRefused(
                f"{directory} holds vectors of other texts: texts[{start}] to texts[{start + shard.rows - 1}] {end}"
            )
        start += shard.rows
    if manifest.complete and not reader.is_at_end():
        raise ResumeRefused(f"{directory} is complete with {start} texts, and there are more now")


def load(path: str | os.PathLike[str], *, allow_partial: bool = False) -> Rows:
    """The vectors that `embed_to` wrote, float32, shape (n, d), in the order of the texts.

    Mapped from the disk, read-only, where there is one npy shard; else read and put together.

    Raises:
        BadInput: nothing there, or the run has not ended (give `allow_partial=True` for what there is).
        ResumeRefused: a file was changed.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    if not manifest.complete and not allow_partial:
        raise BadInput(
            f"{directory} is not complete: it has {manifest.rows} rows; embed_to with the same arguments goes on, "
            "allow_partial=True gives what there is"
        )
    check_files(directory, manifest)
    read = FORMATS[manifest.format].read
    if manifest.format == "npy" and len(manifest.shards) == 1:
        mapped: Rows = np.load(directory / manifest.shards[0].file, mmap_mode="r")
        return mapped
    whole, start = np.empty((manifest.rows, manifest.dimensions or 0), np.float32), 0
    for shard in manifest.shards:
        whole[start : start + shard.rows] = read(directory / shard.file)
        start += shard.rows
    return whole
