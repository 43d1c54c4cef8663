"""What `embedfleet serve` becomes, and what it refuses before it writes anything."""

import os
import stat
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from embedfleet.api.local import LocalRecord, write_record
from embedfleet.cli import serving
from embedfleet.errors import AlreadyRunning, BadInput, ManifestInvalid, ServerNotInstalled
from embedfleet_server.__main__ import configure
from embedfleet_server.app.settings import load
from embedfleet_server.config import Config

MANIFEST = """
metadata: {name: fleet}
spec:
  models:
  - {name: semantic, source: {path: weights}, batching: {maxBatchSize: 7}}
  batching: {maxQueuedRequests: 9}
"""


class Became(Exception):
    """The process would be another now: `exec` does not return either."""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))

    def execv(path: str, command: list[str]) -> None:
        raise Became(path, command)

    monkeypatch.setattr(os, "execv", execv)
    file = tmp_path / "manifest.yaml"
    file.write_text(MANIFEST, encoding="utf-8")
    return file


def command(
    manifest: Path, port: int = 8080, observe_port: int | None = None, store: Path | None = None
) -> tuple[list[str], Config]:
    """The command that it becomes, and the server's own reading of it."""
    with pytest.raises(Became) as caught:
        serving.become_server(manifest, "0.0.0.0", port, observe_port, store)
    path, given = caught.value.args
    assert path == given[0] == sys.executable
    assert given[1:4] == ["-P", "-m", "embedfleet_server"]
    return given, configure(given[4:], os.environ)


def runs_here(tmp_path: Path, service: str, pid: int) -> None:
    url = "http://127.0.0.1:1"
    record = LocalRecord(service=service, pid=pid, url=url, observe_url=url, models=["semantic"])
    write_record(tmp_path / "run" / "embedfleet", record)


def test_the_server_reads_what_the_manifest_says(manifest: Path, tmp_path: Path) -> None:
    """The server takes the command line, and both settings files hold the manifest's values and absolute paths."""
    _, config = command(manifest, store=tmp_path / "store")
    assert (config.host, config.port, config.announce, config.store) == ("0.0.0.0", 8080, True, tmp_path / "store")
    settings = load(config.settings)
    assert settings.models.service == "fleet"
    assert settings.models.models[0].source.path == str(tmp_path / "weights")
    assert settings.batching.batching.max_queued_requests == 9
    assert settings.batching.for_model("semantic").max_batch_size == 7


@pytest.mark.parametrize(("port", "given", "expected"), [(8080, None, 8081), (0, None, 0), (8080, 0, 0), (65535, 7, 7)])
def test_the_observation_port(manifest: Path, port: int, given: int | None, expected: int) -> None:
    """It is the public port's next, a free one where that is free, or the one that is named."""
    assert command(manifest, port, given)[1].observe_port == expected


def test_the_highest_port_has_no_next(manifest: Path, tmp_path: Path) -> None:
    """Port 65535 needs an observation port by name."""
    with pytest.raises(BadInput, match="--observe-port"):
        serving.become_server(manifest, "127.0.0.1", 65535, None, None)
    assert not (tmp_path / "run").exists()


def test_without_a_store_the_servers_own_is_used(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is the server's to choose: from its environment, here."""
    monkeypatch.setenv("EMBEDFLEET_STORE", "/srv/weights")
    given, config = command(manifest)
    assert "--store" not in given
    assert config.store == Path("/srv/weights")


def test_the_settings_are_this_users_alone(manifest: Path, tmp_path: Path) -> None:
    """No other user may look into the folder of the settings or change it, nor any above it in the runtime folder."""
    folder = command(manifest)[1].settings
    for directory in (folder, *folder.parents):
        if directory == tmp_path / "run":
            break
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_settings_are_fresh_and_those_of_the_dead_go(manifest: Path) -> None:
    """Nothing of an earlier run is left in the folder; other processes' folders go once their process is gone."""
    folder = command(manifest)[1].settings
    (folder / "left.json").touch()
    dead, living = folder.with_name(str(2**22 + 1)), folder.with_name(str(os.getppid()))  # Linux's highest id is 2**22
    dead.mkdir()
    living.mkdir()
    assert command(manifest)[1].settings == folder
    assert not (folder / "left.json").exists()
    assert (dead.exists(), living.exists()) == (False, True)


def test_a_second_server_of_one_name_is_refused(manifest: Path, tmp_path: Path) -> None:
    """While a service of that name lives here, another is refused with its process and its address."""
    runs_here(tmp_path, "fleet", os.getppid())
    with pytest.raises(AlreadyRunning, match=f"process {os.getppid()} at http://127.0.0.1:1"):
        serving.become_server(manifest, "127.0.0.1", 0, None, None)
    assert [path.name for path in (tmp_path / "run" / "embedfleet").iterdir()] == ["fleet.json"]


@pytest.mark.parametrize(("service", "pid"), [("other", os.getppid()), ("fleet", 2**22 + 1)])
def test_other_services_and_dead_ones_are_in_nobodys_way(
    manifest: Path, tmp_path: Path, service: str, pid: int
) -> None:
    """Neither a service of another name nor what a dead server left stops a start."""
    runs_here(tmp_path, service, pid)
    assert command(manifest)


@pytest.mark.parametrize("missing", ["embedfleet_server", "torch", "transformers", "sentence_transformers"])
def test_a_missing_server_is_told_with_what_to_install(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without the server or a library of its models it says which is missing and what brings it; nothing is written."""

    def find(name: str) -> ModuleSpec | None:
        return None if name == missing else find_spec(name)

    monkeypatch.setattr(serving, "find_spec", find)
    with pytest.raises(ServerNotInstalled, match=rf"{missing} missing: pip install 'embedfleet-server\[models\]'"):
        serving.become_server(manifest, "127.0.0.1", 0, None, None)
    assert not (tmp_path / "run").exists()


def test_a_wrong_manifest_is_told_before_anything_is_written(manifest: Path, tmp_path: Path) -> None:
    """A manifest with mistakes starts nothing and leaves nothing."""
    manifest.write_text("spec: 3", encoding="utf-8")
    with pytest.raises(ManifestInvalid):
        serving.become_server(manifest, "127.0.0.1", 0, None, None)
    assert not (tmp_path / "run").exists()


def test_keys_and_certificate_are_the_servers_own_options(manifest: Path, tmp_path: Path) -> None:
    """`--api-keys` and `--tls` reach the server; what is no directory is refused before anything is written."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "pair").mkdir()
    with pytest.raises(Became) as caught:
        serving.become_server(
            manifest, "127.0.0.1", 0, None, None, serving.Guarded(tmp_path / "keys", tmp_path / "pair")
        )
    made = configure(caught.value.args[1][4:], os.environ)
    assert (made.api_keys, made.tls) == (tmp_path / "keys", tmp_path / "pair")
    with pytest.raises(BadInput, match=r"--tls .*nowhere must be a directory"):
        serving.become_server(manifest, "127.0.0.1", 0, None, None, serving.Guarded(tls=tmp_path / "nowhere"))
