"""Brings one repository into the store: whole, checked against its digests, one process at a time.

Files that are there are not fetched again, and a connection that is cut goes on where it ended (huggingface_hub does
both). A hub that does not answer is no error where the store has what is asked for.
"""

import contextlib
import errno
import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedfleet.api.models import HuggingFaceSource
from embedfleet.api.termination import Code
from embedfleet_server.models.digests import DIGESTS, Mismatch, forget, keep, mismatches
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.safety import check
from embedfleet_server.models.store import find, hub

_log = logging.getLogger("embedfleet.fetch")
_ATTEMPTS = 3
_FIRST_WAIT = 2.0  # seconds; doubles. Kubernetes starts the container anew after the last, with waits of its own
_STALE_SECONDS = 6 * 3600.0  # an unfinished download that nobody has written to for so long is a killed container's
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Hub:
    """Where to ask, and who asks; None leaves either to huggingface_hub."""

    endpoint: str | None = None
    token: str | None = None


class CannotFetch(Exception):
    """A repository is not in the store; `code` is the cause as the operator knows it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


Download = Callable[[str, str, Path], Path]
"""Brings repository, revision into the store; returns the snapshot's directory."""


def download_from(place: Hub) -> Download:
    """Downloads from that hub, without progress bars: who reads them in a container's log."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return lambda repo, revision, store: hub(repo, revision, store, endpoint=place.endpoint, token=place.token)


def fetch(
    source: HuggingFaceSource, store: Path, download: Download, pause: Callable[[float], None] = time.sleep
) -> Path:
    """The snapshot of `source` in `store`, whole and with the right digests; raises `CannotFetch`.

    `pause` waits so many seconds between attempts.
    """
    where = f"{source.repo} at {source.revision!r}"
    try:
        with only_one(store, source.repo):
            _remove_stale(store, source.repo, time.time())
            return _attempts(source, store, download, pause)
    except CannotFetch as error:
        raise CannotFetch(error.code, f"{where}: {error}") from error
    except OSError as error:  # the store itself
        raise CannotFetch(code_of(error), f"{where}: the store {store}: {error}") from error


def _attempts(source: HuggingFaceSource, store: Path, download: Download, pause: Callable[[float], None]) -> Path:
    for attempt in range(_ATTEMPTS):
        try:
            return _once(source, store, download)
        except CannotFetch as error:
            if error.code not in ("HubUnreachable", "DigestMismatch") or attempt == _ATTEMPTS - 1:
                raise
            _log.warning("%s: %s: trying again", source.repo, error)
            pause(_FIRST_WAIT * 2**attempt)
    raise AssertionError("This is a bug: no attempt was made")


def _once(source: HuggingFaceSource, store: Path, download: Download) -> Path:
    try:
        snapshot = download(source.repo, source.revision, store)
    except Exception as error:  # noqa: BLE001  # the hub's client lets its HTTP library's errors through, whichever that is
        snapshot = _present(source, store, error)
    wrong = mismatches(snapshot, cache=store / DIGESTS)
    if wrong:
        raise CannotFetch("DigestMismatch", _forgotten(wrong))
    try:
        modules = check(snapshot)
    except ModelProblem as problem:
        raise CannotFetch("WeightsMissing", str(problem)) from problem
    keep(modules, cache=store / DIGESTS)
    return snapshot


def _present(source: HuggingFaceSource, store: Path, error: Exception) -> Path:
    """What the store has of `source`, where the hub gave nothing; raises `CannotFetch` unless that is whole."""
    local = find(store, source.repo, source.revision)
    with contextlib.suppress(ModelProblem):
        if local is not None:
            check(local)
            _log.warning("%s is taken as it is in the store, since the hub failed: %s", source.repo, in_words(error))
            return local
    raise CannotFetch(code_of(error), in_words(error)) from error


def _forgotten(wrong: list[Mismatch]) -> str:
    for mismatch in wrong:
        forget(mismatch)
    return "; ".join(map(str, wrong[:3]))


def code_of(error: BaseException) -> Code:
    """The operator's word for what a download raised, by the hub's status where there is one."""
    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return "HubRefused"
        if status == 404:
            return "WeightsMissing"
        if status is not None:
            return "HubUnreachable"
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return "CacheFull"
        if _is_network(cause):
            return "HubUnreachable"
    return "WeightsMissing"


def _is_network(error: BaseException) -> bool:
    """Whether the hub could not be heard to its end. huggingface_hub's HTTP library is httpx or its successor httpx2.

    An OSError that is neither the system's nor about a missing file is its word for a file of the wrong length.
    """
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("httpx"):
        return True
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, FileNotFoundError)


def in_words(error: BaseException) -> str:
    """The first of the error's lines, and its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


@contextlib.contextmanager
def only_one(store: Path, repo: str) -> Iterator[None]:
    """Holds the repository's lock; waits for a sibling that has it. The kernel gives a dead holder's lock back.

    Where the file system has no locks it goes on without: each download has a file of its own that is put in place
    whole, so that two only do the same work twice.
    """
    path = store / ".locks" / f"{folder(repo)}.fetch"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _log.warning("%s cannot be locked: %s", path, error)
        yield


def _remove_stale(store: Path, repo: str, now: float) -> None:
    """Parts of downloads that were killed, which nobody goes on with: they would fill the volume."""
    for part in (store / folder(repo) / "blobs").glob("*.incomplete"):
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()


def folder(repo: str) -> str:
    """The repository's folder in the store."""
    return f"models--{repo.replace('/', '--')}"
