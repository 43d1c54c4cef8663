"""LlamaIndex's own package over the adapter: `BaseEmbedding`, sync and awaited, and an index that retrieves."""

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline

import embedfleet
from embedfleet import errors
from embedfleet.adapters.llama_index import EmbedfleetEmbedding
from tests.support.fake_server import FakeServer, vectors

TEXTS = [f"text {number}" for number in range(300)]


def same(found: Any, texts: list[str], dimensions: int = 8) -> bool:
    """Whether these are the vectors of `texts`, to the last digit."""
    return np.array_equal(np.array(found, np.float32), vectors(texts, dimensions))


def test_documents_and_queries(fake: FakeServer) -> None:
    """Each side goes with its own prompt; a large batch is the client's to cut."""
    made = EmbedfleetEmbedding("semantic", model_name="code", dimensions=4)
    assert same(made.get_text_embedding_batch(TEXTS), TEXTS, 4)
    assert same([made.get_query_embedding("a")], ["a"], 4)
    assert same([made.get_text_embedding("b")], ["b"], 4)
    assert {one["input_type"] for one in fake.requests[:-2]} == {"document"}
    assert [one["input_type"] for one in fake.requests[-2:]] == ["query", "document"]
    assert {(one["model"], one["dimensions"]) for one in fake.requests} == {("code", 4)}


def test_awaited_on_one_loop_after_another(fake: FakeServer) -> None:
    """The `a…` twins give the same, on any event loop."""
    made = EmbedfleetEmbedding("semantic")

    async def several() -> None:
        batch, query, one = await asyncio.gather(
            made.aget_text_embedding_batch(TEXTS), made.aget_query_embedding("a"), made.aget_text_embedding("b")
        )
        assert same(batch, TEXTS)
        assert same([query, one], ["a", "b"])

    asyncio.run(several())
    asyncio.run(several())
    assert {"model" in one for one in fake.requests} == {False}


@pytest.mark.requirement("K1")
def test_an_index_retrieves(fake: FakeServer) -> None:
    """Documents of LlamaIndex's in-memory index are found again, sync and awaited."""
    index = VectorStoreIndex.from_documents(
        [Document(text=text) for text in TEXTS], embed_model=EmbedfleetEmbedding("semantic"), transformations=[]
    )
    retriever = index.as_retriever(similarity_top_k=1)
    assert [one.text for one in retriever.retrieve("text 42")] == ["text 42"]
    assert [one.text for one in asyncio.run(retriever.aretrieve("text 7"))] == ["text 7"]
    assert len(fake.requests) < 10


def test_it_is_a_step_of_a_pipeline(fake: FakeServer) -> None:
    """An ingestion pipeline takes it as a transformation."""
    nodes = IngestionPipeline(transformations=[EmbedfleetEmbedding("semantic")]).run(
        documents=[Document(text=text) for text in TEXTS[:3]]
    )
    assert all(node.embedding for node in nodes)
    assert {one["input_type"] for one in fake.requests} == {"document"}


def test_it_is_stored_without_its_key(fake: FakeServer) -> None:
    """LlamaIndex's dictionary of it makes the same again; the key is no part of it, nor of its pickle."""
    made = EmbedfleetEmbedding(model_name="code", url=fake.url, api_key="secret", dimensions=4)
    stored = made.to_dict()
    assert "secret" not in made.to_json() + repr(made) + str(made.to_payload())
    for again in (EmbedfleetEmbedding.from_dict(stored), pickle.loads(pickle.dumps(made))):
        assert same([again.get_query_embedding("a")], ["a"], 4)
        assert fake.requests[-1]["model"] == "code"
    assert [one.get("Authorization") for one in fake.headers] == [None, None]
    made.get_query_embedding("a")
    assert fake.headers[-1]["Authorization"] == "Bearer secret"


def test_a_client_that_is_there_and_what_cannot_be(fake: FakeServer) -> None:
    """A client serves as well as a name; a model that does not exist is told."""
    with embedfleet.connect("semantic") as service:
        made = EmbedfleetEmbedding(service)
        assert made.service == "semantic"
        assert same([made.get_text_embedding("a")], ["a"])
    with pytest.raises(errors.ModelNotFound, match="semantic, code"):
        EmbedfleetEmbedding("semantic", model_name="other").get_query_embedding("a")
    with pytest.raises(ValueError, match="embed_batch_size"):
        EmbedfleetEmbedding("semantic", embed_batch_size=0)
