"""Other projects' clients against the live server, with a key, none of them changed: `docs/compatibility.md`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest

from embedfleet_server.engine.scoring import scores
from tests.support.fake_model import vectors
from tests.support.fake_tasks import logits
from tests.support.process import ROOT, Process, process
from tests.support.real_clients import CLIENTS, QUERY, RERANKERS, TEXTS

pytestmark = pytest.mark.requirement("S1", "S6")
KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The server as a process, its public port behind a key."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "keys").mkdir()
    (directory / "keys" / "tenant").write_text(KEY)
    with process(directory, "--api-keys", str(directory / "keys")) as running:
        running.line("is ready at")
        yield running


def ask(server: Process, name: str, key: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.real_clients", name, server.record.url, key]
    environ = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The same with a reranker beside the model, so that clients that name none get the only one there is."""
    directory = tmp_path_factory.mktemp("reranker")
    (directory / "keys").mkdir()
    (directory / "keys" / "tenant").write_text(KEY)
    models = [{"name": name, "source": {"path": "unused"}} for name in ("semantic", "rerank")]
    with process(directory, "--api-keys", str(directory / "keys"), models=models) as running:
        running.line("is ready at")
        yield running


@pytest.mark.parametrize("name", RERANKERS)
def test_a_client_gets_the_texts_in_the_models_order(reranker: Process, name: str) -> None:
    """Every text with the score that the model's own activation gives it, best first."""
    distribution, _ = RERANKERS[name]
    try:
        version(distribution)
    except PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    done = ask(reranker, name, KEY)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    own = scores(logits(QUERY, TEXTS)[:, None], "Sigmoid")
    best = np.argsort(-own)
    assert [text for text, _ in told["scores"]] == [TEXTS[index] for index in best]
    np.testing.assert_allclose([score for _, score in told["scores"]], own[best], rtol=1e-6)
    assert any(told["version"] in line and distribution in line for line in _table()), "docs/compatibility.md is old"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gets_the_models_own_vectors(server: Process, name: str) -> None:
    """Each gives what the model gives: bit by bit where it keeps float32, else to the last digit of it."""
    distribution, _ = CLIENTS[name]
    try:
        version(distribution)
    except PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    done = ask(server, name, KEY)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(np.array(told["vectors"], np.float32), vectors(TEXTS), rtol=1e-6, atol=1e-7)
    assert any(told["version"] in line and distribution in line for line in _table()), "docs/compatibility.md is old"


@pytest.mark.parametrize("name", ["openai", "huggingface_hub", "llama-index-tei"])
def test_a_client_without_a_valid_key_is_told(server: Process, name: str) -> None:
    """It ends with its own error and not with vectors."""
    done = ask(server, name, "no-key-of-ours")
    assert done.returncode != 0
    assert "vectors" not in done.stdout


def _table() -> list[str]:
    return (ROOT / "docs" / "compatibility.md").read_text().splitlines()


def test_curl(server: Process) -> None:
    """Plain curl: an answer, and an error it can read."""
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {KEY}", "-d", json.dumps({"input": TEXTS})]
    said = subprocess.run([*command, f"{server.record.url}/v1/embeddings"], check=True, capture_output=True, timeout=60)
    rows = [entry["embedding"] for entry in json.loads(said.stdout)["data"]]
    np.testing.assert_array_equal(np.array(rows, np.float32), vectors(TEXTS))


def test_the_table_names_every_client() -> None:
    """docs/compatibility.md has a row for each of the clients here."""
    table = "\n".join(_table())
    assert all(f"`{name}`" in table for name in CLIENTS | RERANKERS)
