"""What the tests of all adapters share: an honest server whose vectors are known, found by its name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedfleet.api.local import LocalRecord, runtime_directory, write_record
from tests.support.fake_server import FakeServer, serving


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """The service `semantic` of this machine, with the models `semantic` and `code`."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_API_KEY", "EMBEDFLEET_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serving(FakeServer()) as server:
        record = LocalRecord(service="semantic", pid=os.getpid(), url=server.url, observe_url="", models=["semantic"])
        write_record(runtime_directory(os.environ), record)
        yield server
