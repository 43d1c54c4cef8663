"""LangChain's own package over the adapter: `Embeddings`, sync and awaited, and a store that retrieves."""

import asyncio
import pickle

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

import embedfleet
from embedfleet import errors
from embedfleet.adapters.langchain import EmbedfleetEmbeddings
from tests.support.fake_server import FakeServer, vectors

TEXTS = [f"text {number}" for number in range(300)]


def test_documents_and_queries(fake: FakeServer) -> None:
    """Lists of the very numbers, in order; each side goes with its own prompt, dimensions and model."""
    made = EmbedfleetEmbeddings("semantic", model="code", dimensions=4)
    assert isinstance(made, Embeddings)
    assert fake.requests == []
    assert np.array_equal(np.array(made.embed_documents(TEXTS), np.float32), vectors(TEXTS, 4))
    assert np.array_equal(np.array(made.embed_query("a"), np.float32), vectors(["a"], 4)[0])
    assert made.embed_documents([]) == []
    assert [one["input_type"] for one in fake.requests] == ["document"] * (len(fake.requests) - 1) + ["query"]
    assert {(one["model"], one["dimensions"]) for one in fake.requests} == {("code", 4)}


def test_awaited_on_one_loop_after_another(fake: FakeServer) -> None:
    """The same object serves any number of event loops, in none of which anything blocks."""
    made = EmbedfleetEmbeddings("semantic")

    async def several() -> None:
        documents, query = await asyncio.gather(made.aembed_documents(TEXTS), made.aembed_query("a"))
        assert np.array_equal(np.array(documents, np.float32), vectors(TEXTS))
        assert np.array_equal(np.array(query, np.float32), vectors(["a"])[0])

    asyncio.run(several())
    asyncio.run(several())
    assert "Authorization" not in fake.headers[0]


def test_a_cancel_cancels_the_requests(fake: FakeServer) -> None:
    """A task that is cancelled while it awaits leaves nothing at the server; the object stays usable."""
    made = EmbedfleetEmbeddings("semantic")
    made.embed_query("a")
    fake.arrived.clear()
    fake.faults = [fake.hang()]

    async def cancelled() -> None:
        task = asyncio.create_task(made.aembed_query("b"))
        await asyncio.to_thread(fake.arrived.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert fake.disconnected.wait(30)
    assert len(made.embed_query("b")) == 8


@pytest.mark.requirement("K1")
def test_a_store_retrieves(fake: FakeServer) -> None:
    """Documents put into LangChain's store are found again by their meaning, sync and awaited."""
    store = InMemoryVectorStore(EmbedfleetEmbeddings("semantic"))
    store.add_texts(TEXTS)
    assert [one.page_content for one in store.similarity_search("text 42", k=1)] == ["text 42"]
    retriever = store.as_retriever(search_kwargs={"k": 1})
    assert [one.page_content for one in asyncio.run(retriever.ainvoke("text 7"))] == ["text 7"]
    assert len(fake.texts) == 302


def test_a_client_that_is_there(fake: FakeServer) -> None:
    """A client made by `connect` serves as well as a name; it alone cannot be pickled."""
    with embedfleet.connect("semantic") as service:
        made = EmbedfleetEmbeddings(service)
        assert len(made.embed_query("a")) == 8
        assert repr(made) == "EmbedfleetEmbeddings(service='semantic')"
        with pytest.raises(TypeError, match="give it the service's name"):
            pickle.dumps(made)
        with pytest.raises(errors.BadInput, match="url is given with a client"):
            EmbedfleetEmbeddings(service, url=fake.url)
    again = pickle.loads(pickle.dumps(EmbedfleetEmbeddings("semantic", dimensions=4)))
    assert len(again.embed_query("a")) == 4


def test_what_cannot_be_is_told(fake: FakeServer) -> None:
    """Nothing of the name, no str among the texts, an argument that is none."""
    with pytest.raises(errors.ServiceNotFound, match="semantic"):
        EmbedfleetEmbeddings("nothing").embed_query("a")
    with pytest.raises(errors.BadInput, match=r"texts\[1\]"):
        EmbedfleetEmbeddings("semantic").embed_documents(["a", None])  # type: ignore[list-item]  # that is the mistake
    with pytest.raises(TypeError, match="unknown argument 'host'; those of connect"):
        EmbedfleetEmbeddings("semantic", host="x")  # type: ignore[call-arg]  # that is the mistake
    with pytest.raises(errors.BadInput, match="service is 7; it must be a service's name or a client"):
        EmbedfleetEmbeddings(7)  # type: ignore[arg-type]  # that is the mistake
    assert fake.requests == []
