"""The init container that fetches weights, against a hub on this machine that speaks the real one's protocol."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedfleet.api.models import ModelSpec, Source
from embedfleet.api.termination import Termination, parse
from embedfleet_server.__main__ import main as server_main
from embedfleet_server.fetch import main
from embedfleet_server.models.hub_silence import SILENCES
from embedfleet_server.models.loading import loader
from embedfleet_server.models.store import find
from tests.support.fake_hub import COMMIT, FakeHub, digest_of, files_of, hub
from tests.support.process import ROOT
from tests.support.tiny_models import make_bert

pytestmark = pytest.mark.requirement("O4")
REPO = "org/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small real model's files, with a pickle beside them."""
    return files_of(make_bert(tmp_path_factory.mktemp("models") / "tiny")) | {"pytorch_model.bin": b"pickle"}


@pytest.fixture
def served(files: dict[str, bytes]) -> Iterator[FakeHub]:
    with hub(REPO, dict(files)) as made:
        yield made


class Container:
    """The init container's files and variables."""

    def __init__(self, directory: Path, endpoint: str, *models: dict[str, Any]) -> None:
        self.directory, self.store, self.word = directory, directory / "store", directory / "termination-log"
        self.environ = {"HF_ENDPOINT": endpoint}
        self.waits: list[float] = []
        self.word.touch()
        given = list(models) or [{"name": "semantic", "source": {"huggingFace": {"repo": REPO}}}]
        (directory / "models.json").write_text(json.dumps({"service": "fleet", "models": given}))

    @property
    def arguments(self) -> list[str]:
        store = ["--store", str(self.store)]
        return ["--settings", str(self.directory), *store, "--termination-log", str(self.word)]

    def run(self) -> int:
        return main(self.arguments, self.environ, self.waits.append)

    @property
    def said(self) -> Termination:
        found = parse(self.word.read_text())
        assert found is not None, self.word.read_text()
        return found


def test_what_is_fetched_can_be_served_without_the_hub(tmp_path: Path, served: FakeHub) -> None:
    """The snapshot lies where the server looks, its model loads offline, no pickle came, and no cause is left."""
    container = Container(tmp_path, served.url)
    assert container.run() == 0
    assert container.word.read_text() == ""
    assert find(container.store, REPO, "main") == container.store / f"models--org--tiny/snapshots/{COMMIT}"
    source = Source.model_validate({"huggingFace": {"repo": REPO}})
    model = loader(ModelSpec(name="semantic", source=source), store=container.store, offline=True, gpu_count=0)()
    assert model.info.revision == COMMIT
    model.close()
    assert served.sent("pytorch_model.bin") == []


def test_what_is_there_is_not_fetched_again(tmp_path: Path, served: FakeHub) -> None:
    """A second start asks for no file."""
    container = Container(tmp_path, served.url)
    assert container.run() == 0
    served.asked.clear()
    assert container.run() == 0
    assert not [path for _, path, _ in served.asked if "/resolve/" in path]


def test_a_cut_connection_goes_on_where_it_ended(tmp_path: Path, served: FakeHub) -> None:
    """The rest of the file is asked for, not the whole again, and what comes of it has the right digest."""
    name = "other.safetensors"
    served.files[name] = bytes(24 << 20)  # the hub's client keeps what came in pieces of 10 MiB
    served.cut[name] = 22 << 20
    container = Container(tmp_path, served.url)
    assert container.run() == 0
    assert served.sent(name) == [None, f"bytes={20 << 20}-"]


def test_a_wrong_digest_is_named_and_fetched_again(tmp_path: Path, served: FakeHub) -> None:
    """Three times wrong: the file, its digest and what it should be are in the last words. Once right, it is taken."""
    served.corrupt.add(WEIGHTS)
    container = Container(tmp_path, served.url)
    assert container.run() == 1
    assert (container.said.code, container.said.model) == ("DigestMismatch", "semantic")
    wanted = digest_of(WEIGHTS, served.files[WEIGHTS])
    assert f"{WEIGHTS} has the digest " in container.said.message
    assert f"must have {wanted}" in container.said.message
    assert served.sent(WEIGHTS) == [None] * 3
    assert container.waits == [2.0, 4.0]
    served.corrupt.clear()
    assert container.run() == 0


def test_a_corrupt_file_in_the_store_is_replaced(tmp_path: Path, served: FakeHub) -> None:
    """Bytes that changed on the volume are found by their digest, large file and small, and fetched anew."""
    container = Container(tmp_path, served.url)
    assert container.run() == 0
    for name in (WEIGHTS, "config.json"):
        file = container.store / f"models--org--tiny/snapshots/{COMMIT}" / name
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        assert container.run() == 0
        assert file.read_bytes() == served.files[name]


def test_without_a_token_the_refusal_is_told(tmp_path: Path, served: FakeHub) -> None:
    """401: the hub's refusal is the cause, at once; with `HF_TOKEN` the same repository comes. What has come serves on
    though the token is refused later.
    """
    served.token = "hf_secret"
    container = Container(tmp_path, served.url)
    container.environ["HF_TOKEN"] = "hf_wrong"
    assert container.run() == 1
    assert (container.said.code, container.waits) == ("HubRefused", [])
    assert f"{REPO} at 'main'" in container.said.message
    assert "hf_wrong" not in container.said.message
    container.environ["HF_TOKEN"] = "hf_secret"
    assert container.run() == 0
    container.environ["HF_TOKEN"] = "hf_wrong"
    assert container.run() == 0


def test_a_hub_that_is_away(tmp_path: Path, served: FakeHub) -> None:
    """With the weights in the store a start needs no hub, unreachable or failing; without them the cause is told."""
    container = Container(tmp_path, served.url)
    assert container.run() == 0
    served.status = 503
    assert container.run() == 0
    container.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # discard: nobody listens
    assert container.run() == 0
    (tmp_path / "other").mkdir()
    empty = Container(tmp_path / "other", "http://127.0.0.1:9")
    assert empty.run() == 1
    assert empty.said.code == "HubUnreachable"
    assert "127.0.0.1" in empty.said.message or "onnect" in empty.said.message


def test_a_hub_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and is silent, as a dead proxy, is asked three times; then the cause is told. The
    limit of a silence stands short for this test.
    """
    monkeypatch.setitem(SILENCES, "read", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        container = Container(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert container.run() == 1
    assert (container.said.code, container.waits) == ("HubUnreachable", [2.0, 4.0])


@pytest.mark.parametrize("source", [{"repo": "org/other"}, {"repo": REPO, "revision": "v9"}])
def test_what_the_hub_does_not_have(tmp_path: Path, served: FakeHub, source: dict[str, str]) -> None:
    """A repository or revision that is not there is `WeightsMissing`, without further attempts."""
    container = Container(tmp_path, served.url, {"name": "semantic", "source": {"huggingFace": source}})
    assert container.run() == 1
    assert (container.said.code, container.waits) == ("WeightsMissing", [])


def test_a_repository_of_pickles_is_no_weights(tmp_path: Path, served: FakeHub) -> None:
    """Only safetensors count."""
    del served.files[WEIGHTS]
    container = Container(tmp_path, served.url)
    assert container.run() == 1
    assert container.said.code == "WeightsMissing"


def test_an_optional_model_does_not_keep_the_others(tmp_path: Path, served: FakeHub) -> None:
    """One that is not required lacks its weights: status 0, no last words, the others are fetched."""
    models: list[dict[str, Any]] = [
        {"name": "code", "source": {"huggingFace": {"repo": "org/other"}}, "required": False},
        {"name": "semantic", "source": {"huggingFace": {"repo": REPO}}},
        {"name": "again", "source": {"huggingFace": {"repo": REPO}}},
        {"name": "mounted", "source": {"path": "/weights"}},
    ]
    container = Container(tmp_path, served.url, *models)
    assert container.run() == 0
    assert container.word.read_text() == ""
    assert served.sent(WEIGHTS) == [None]


@pytest.mark.requirement("S6")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("repo", value)
            for value in (
                "http://169.254.169.254/latest",
                "https://example.org/model",
                "file:///etc/passwd",
                "file:model",
                "//example.org/model",
                "git@example.org:org/model",
                "../../etc",
                "org/../../etc",
                "org/..",
                "/etc",
                "~/model",
                "org/tiny?download=true",
                "org/tiny\n",
                "org/tiny/../other",
                "org\\tiny",
            )
        ),
        *(
            ("revision", value)
            for value in ("../../../etc/passwd", "/etc/passwd", "http://example.org", "..", "a\n", "a/../../x", "a..b")
        ),
    ],
)
def test_a_url_or_a_path_is_no_repository(
    tmp_path: Path, served: FakeHub, capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    """Nothing is asked of an address that a manifest names, and no file read: the settings are refused, with the field,
    by the init container and by the server.
    """
    source = {"huggingFace": {"repo": REPO} | {field: value}}
    container = Container(tmp_path, served.url, {"name": "semantic", "source": source})
    assert container.run() == 2
    assert container.said.code == "SettingsInvalid"
    assert field in container.said.message
    assert field in capsys.readouterr().err
    (tmp_path / "batching.json").write_text("{}")
    assert server_main(["--settings", str(tmp_path), "--store", str(container.store)]) == 2
    assert field in capsys.readouterr().err
    assert served.asked == []
    assert not container.store.exists()


def test_two_at_once_on_one_volume(tmp_path: Path, served: FakeHub) -> None:
    """Two real processes on one empty store: both succeed, and each file is downloaded once."""
    container = Container(tmp_path, served.url)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environ = os.environ | container.environ | {"HOME": str(tmp_path), "PYTHONPATH": path}
    command = [sys.executable, "-m", "embedfleet_server.fetch", *container.arguments]

    def start(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(start, range(2)))
    assert [one.returncode for one in done] == [0, 0], done
    assert served.sent(WEIGHTS) == [None]


def test_the_container_needs_no_torch() -> None:
    """What it imports before a download leaves out torch and transformers: it starts at once, in little memory."""
    code = "import sys; import embedfleet_server.fetch; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "sentence_transformers"} & set(out)
