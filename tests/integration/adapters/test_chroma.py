"""Chroma's own package over the adapter: an embedding function, stored with its collection, that retrieves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings

from embedfleet import errors
from embedfleet.adapters.chroma import EmbedfleetFunction
from tests.support.fake_server import FakeServer, vectors

TEXTS = [f"text {number}" for number in range(300)]
QUIET = Settings(anonymized_telemetry=False)


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Chroma keeps clients by their path; each test begins without any."""
    yield
    SharedSystemClient.clear_system_cache()


def test_documents_and_queries(fake: FakeServer) -> None:
    """Each side goes with its own prompt; the numbers are the service's own."""
    made = EmbedfleetFunction("semantic", model="code", dimensions=4)
    assert np.array_equal(np.stack(made(TEXTS)), vectors(TEXTS, 4))
    assert np.array_equal(np.stack(made.embed_query(["a"])), vectors(["a"], 4))
    assert {one["input_type"] for one in fake.requests[:-1]} == {"document"}
    assert fake.requests[-1]["input_type"] == "query"


@pytest.mark.requirement("K1")
def test_a_collection_retrieves(fake: FakeServer) -> None:
    """Documents of an in-memory collection are found again by their text."""
    client = chromadb.EphemeralClient(QUIET)
    given: Any = EmbedfleetFunction("semantic")  # Chroma's own types want functions of pictures too
    collection = client.create_collection("texts", embedding_function=given)
    collection.add(ids=[str(number) for number in range(len(TEXTS))], documents=TEXTS)
    found = collection.query(query_texts=["text 42"], n_results=1)
    assert found["documents"] == [["text 42"]]
    assert fake.requests[-1]["input_type"] == "query"
    assert (collection.configuration["hnsw"] or {})["space"] == "cosine"


def test_a_collection_remembers_its_function(fake: FakeServer, tmp_path: Path) -> None:
    """Opened again without one, a stored collection asks the same service; no key is stored, no other model fits."""
    made: Any = EmbedfleetFunction("semantic", model="code", api_key="secret")
    client = chromadb.PersistentClient(tmp_path / "chroma", QUIET)
    client.create_collection("texts", embedding_function=made).add(ids=["1"], documents=["a"])
    SharedSystemClient.clear_system_cache()
    again = chromadb.PersistentClient(tmp_path / "chroma", QUIET).get_collection("texts")
    assert again.query(query_texts=["a"], n_results=1)["documents"] == [["a"]]
    assert fake.requests[-1]["model"] == "code"
    assert (fake.headers[0].get("Authorization"), fake.headers[-1].get("Authorization")) == ("Bearer secret", None)
    assert made.get_config() == {"service": "semantic", "model": "code"}
    with pytest.raises(errors.BadInput, match="model of a collection is 'code' and cannot become 'semantic'"):
        made.validate_config_update(made.get_config(), {"service": "semantic", "model": "semantic"})
