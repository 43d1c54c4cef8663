"""Which word the operator gets for what a download raised, and who holds the lock."""

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from embedfleet.api.models import HuggingFaceSource
from embedfleet_server.models.digests import DIGESTS
from embedfleet_server.models.fetching import CannotFetch, code_of, fetch, only_one
from embedfleet_server.models.fingerprint import sha256
from tests.support.fake_hub import COMMIT
from tests.support.tiny_models import make_bert

pytestmark = pytest.mark.requirement("O4")
SOURCE = HuggingFaceSource(repo="org/tiny")


class HubError(OSError):
    """As the hub's client raises: with the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} of the hub")
        self.response = SimpleNamespace(status_code=status)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HubError(401), "HubRefused"),
        (HubError(403), "HubRefused"),
        (HubError(404), "WeightsMissing"),
        (HubError(429), "HubUnreachable"),
        (HubError(503), "HubUnreachable"),
        (OSError(errno.ENOSPC, "no space left on device"), "CacheFull"),
        (OSError(errno.EDQUOT, "quota exceeded"), "CacheFull"),
        (caused(RuntimeError("a thread's"), OSError(errno.ENOSPC, "no space left on device")), "CacheFull"),
        (httpx.ConnectError("no route"), "HubUnreachable"),
        (caused(FileNotFoundError("not in the cache"), httpx.ConnectError("no route")), "HubUnreachable"),
        (ConnectionResetError("reset"), "HubUnreachable"),
        (OSError("Consistency check failed"), "HubUnreachable"),
        (OSError(errno.EROFS, "read-only"), "WeightsMissing"),
        (ValueError("what is this"), "WeightsMissing"),
    ],
)
def test_the_cause_of_a_failed_download(error: Exception, code: str) -> None:
    """By the hub's status, the system's error number, or the connection, wherever in the chain of causes it is."""
    assert code_of(error) == code


def test_a_full_volume_is_told_at_once(tmp_path: Path) -> None:
    """No further attempt: trying again makes no room. The message names the repository."""

    def full(repo: str, revision: str, store: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    waits: list[float] = []
    with pytest.raises(CannotFetch, match=r"org/tiny at 'main'.*No space left") as caught:
        fetch(SOURCE, tmp_path, full, waits.append)
    assert (caught.value.code, waits) == ("CacheFull", [])


def test_what_is_there_is_taken_whatever_a_download_raises(tmp_path: Path) -> None:
    """A proxy that fails is an error to the hub's client; with the weights in the store it is none to a start."""
    root = tmp_path / "models--org--tiny"
    make_bert(root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)

    def proxy(repo: str, revision: str, store: Path) -> Path:
        raise httpx.ProxyError("no")

    assert fetch(SOURCE, tmp_path, proxy, lambda _: None) == root / "snapshots" / COMMIT
    (root / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(CannotFetch, match="ProxyError: no"):
        fetch(SOURCE, tmp_path, proxy, lambda _: None)


def test_digests_are_kept_for_a_server_that_may_not_write(tmp_path: Path) -> None:
    """Of weights that are plain files, as in a store without links: what the server asks for is known without a look at
    the bytes, and anew once they change.
    """
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / COMMIT

    def download(repo: str, revision: str, store: Path) -> Path:
        return make_bert(snapshot, dense=8)

    fetch(SOURCE, tmp_path, download, lambda _: None)
    for weights in (snapshot / "model.safetensors", snapshot / "2_Dense" / "model.safetensors"):
        digest, state = hashlib.sha256(weights.read_bytes()).hexdigest(), weights.stat()
        weights.write_bytes(bytes(state.st_size))
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert sha256(weights, cache=tmp_path / DIGESTS) == digest, weights
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        assert sha256(weights, cache=tmp_path / DIGESTS) != digest, weights


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the store."""
    (tmp_path / "store").write_text("a file, where a directory should be")
    with pytest.raises(CannotFetch, match=r"the store .*store"):
        fetch(SOURCE, tmp_path / "store", lambda *_: tmp_path, lambda _: None)


def test_a_repository_is_fetched_by_one_at_a_time(tmp_path: Path) -> None:
    """While the lock is held nobody else gets it; other repositories have locks of their own; then it is free."""

    def take() -> None:
        with (tmp_path / ".locks/models--org--tiny.fetch").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with only_one(tmp_path, "org/tiny"), only_one(tmp_path, "org/other"), pytest.raises(BlockingIOError):
        take()
    take()
