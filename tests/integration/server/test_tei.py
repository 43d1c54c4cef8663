"""text-embeddings-inference's routes over a real socket: what its clients send, and what they read."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from embedfleet_server.app.lifecycle import Event
from embedfleet_server.engine.protocols import Model
from tests.support.fake_model import INFO, FakeModel, vectors
from tests.support.served import Reply, Served, run, serving

pytestmark = pytest.mark.requirement("S1")
TEXTS = ["a b", "c d e"]


async def post(served: Served, path: str, **fields: Any) -> Reply:
    return await served.ask("POST", path, data=json.dumps(fields), headers={"Content-Type": "application/json"})


class Bare(FakeModel):
    """A model whose files do not normalize: its rows have length 3."""

    def __init__(self, name: str = "bare") -> None:
        super().__init__(name, normalized=False)

    def forward(self, batch: Any) -> Any:
        return super().forward(batch) * np.float32(3)


def test_embed_gives_bare_vectors() -> None:
    """One text or many, token ids too, at every address of the route; always a list of vectors."""

    async def main() -> None:
        async with serving() as served:
            for path in ("/", "/embed", "/models/semantic", "/models/semantic/embed"):
                reply = await post(served, path, inputs=TEXTS)
                assert reply.status == 200, reply.body
                np.testing.assert_array_equal(np.array(reply.json, np.float32), vectors(TEXTS))
            many = [f"text {i}" for i in range(300)]
            np.testing.assert_array_equal(
                np.array((await post(served, "/embed", inputs=many)).json, np.float32), vectors(many)
            )
            for given, items in (("a b", ["a b"]), ([5, 6], [[5, 6]]), ([[5], [6, 7]], [[5], [6, 7]])):
                reply = await post(served, "/embed", inputs=given)
                np.testing.assert_array_equal(np.array(reply.json, np.float32), vectors(items))

    run(main())


def test_every_option() -> None:
    """Prompt by name, dimensions, and what clients send along; each does what it says."""

    async def main() -> None:
        async with serving() as served:
            reply = await post(
                served, "/embed", inputs=TEXTS, prompt_name="query", dimensions=4, truncate=True,
                truncation_direction="Right", normalize=True, encoding_format="float",
            )  # fmt: skip
            cut = vectors(TEXTS, "query: ")[:, :4]
            np.testing.assert_allclose(reply.json, cut / np.linalg.norm(cut, axis=1)[:, None], rtol=1e-6)

    run(main())


def test_vectors_have_length_one_unless_told_otherwise() -> None:
    """Of a model whose files do not normalize; one whose files do cannot take it back, and says so."""

    async def main() -> None:
        async with serving({"bare": Bare, "semantic": FakeModel}) as served:
            unit = np.array((await post(served, "/models/bare/embed", inputs=TEXTS)).json, np.float32)
            plain = np.array((await post(served, "/models/bare/embed", inputs=TEXTS, normalize=False)).json, np.float32)
            np.testing.assert_allclose(unit, vectors(TEXTS), rtol=1e-6)
            np.testing.assert_allclose(plain, vectors(TEXTS) * 3, rtol=1e-6)
            reply = await post(served, "/models/semantic/embed", inputs=TEXTS, normalize=False)
            assert reply.status == 400
            assert "normalize is false" in reply.json["error"]

    run(main())


def test_a_text_too_long_is_cut_or_an_error_as_asked() -> None:
    """The model's 16 tokens: by default the rest is cut; with `truncate: false` it is 413, its index named."""

    async def main() -> None:
        async with serving() as served:
            long = " ".join("word" for _ in range(17))
            assert (await post(served, "/embed", inputs=["x", long])).status == 200
            reply = await post(served, "/embed", inputs=["x", long], truncate=False)
            assert (reply.status, reply.json["error_type"]) == (413, "Validation")
            assert [error["index"] for error in reply.json["errors"]] == [1]
            assert (await post(served, "/embed", inputs=["x", "short"], truncate=False)).status == 200

    run(main())


def test_similarity_is_the_cosine() -> None:
    """Of the first text with each of the others, whether the model normalizes or not."""

    async def main() -> None:
        async with serving({"semantic": FakeModel, "bare": Bare}) as served:
            rows = vectors(["s", "s", "a", "b"], "query: ")
            for path in ("/models/semantic/similarity", "/models/bare/similarity"):
                inputs = {"source_sentence": "s", "sentences": ["s", "a", "b"]}
                reply = await post(served, path, inputs=inputs, parameters={"prompt_name": "query"})
                np.testing.assert_allclose(reply.json, rows[1:] @ rows[0], atol=1e-6)
                assert reply.json[0] <= 1.0

    run(main())


WRONG: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("/embed", {"inputs": []}, 400, "Validation", "empty list"),
    ("/embed", {"inputs": [""]}, 422, "Tokenizer", "input[0]: is empty"),
    ("/embed", {"inputs": ["x"] * 1001}, 413, "Validation", "at most 1000"),
    ("/embed", {}, 400, "Validation", "inputs is required"),
    ("/embed", {"input": "x", "inputs": "x"}, 400, "Validation", "did you mean 'inputs'"),
    ("/embed", {"inputs": "x", "truncate": "yes"}, 400, "Validation", "must be true or false"),
    ("/embed", {"inputs": "x", "truncation_direction": "Top"}, 400, "Validation", "must be 'Right'"),
    ("/embed", {"inputs": "x", "prompt_name": "nope"}, 400, "Validation", "it has: document, query"),
    ("/embed", {"inputs": "x", "dimensions": 5}, 400, "Validation", "8 or 4"),
    ("/embed", {"inputs": "BREAK"}, 500, "Backend", "the model gave no vector"),
    ("/models/nope/embed", {"inputs": "x"}, 404, "Validation", "does not exist"),
    ("/similarity", {"inputs": "x"}, 400, "Validation", "inputs is"),
    ("/similarity", {"inputs": {"source_sentence": "x"}}, 400, "Validation", "sentences is required"),
    ("/similarity", {"inputs": {"source_sentence": "x", "sentences": []}}, 400, "Validation", "nothing to compare"),
    ("/similarity", {"inputs": {"source_sentence": "x", "sentences": [1]}}, 422, "Tokenizer", "input[1]"),
]


@pytest.mark.parametrize(("path", "fields", "status", "kind", "words"), WRONG)
def test_errors_have_the_shape_its_clients_read(
    path: str, fields: dict[str, Any], status: int, kind: str, words: str
) -> None:
    """`error` is a sentence and `error_type` one of TEI's; our own code and `accepted` stand beside them."""

    async def main() -> None:
        async with serving() as served:
            reply = await post(served, path, **fields)
            assert (reply.status, reply.json["error_type"]) == (status, kind), reply.body
            assert words in reply.json["error"]
            assert reply.json["accepted"] is (status == 500)

    run(main())


def test_info() -> None:
    """`/info` tells of the default model and the limits, and of any other under its own address."""

    async def main() -> None:
        async with serving({"semantic": FakeModel, "fleet": lambda: FakeModel("fleet")}) as served:
            info = (await served.ask("GET", "/info")).json
            assert (info["model_id"], info["model_sha"], info["model_dtype"]) == ("fleet", INFO.revision, "float32")
            assert (info["max_input_length"], info["max_client_batch_size"]) == (16, 1000)
            assert (await served.ask("GET", "/models/semantic/info")).json["model_id"] == "semantic"

    run(main())


def test_health() -> None:
    """200 without a body when ready, 503 while a required model loads and once the server closes."""
    loaded = threading.Event()

    def load() -> Model:
        assert loaded.wait(60)
        return FakeModel()

    async def main() -> None:
        async with serving({"semantic": load}, wait=False) as served:
            assert (await served.ask("GET", "/health")).status == 503
            loaded.set()
            await served.until(lambda: served.engine.ready)
            healthy = await served.ask("GET", "/health")
            assert (healthy.status, healthy.body) == (200, b"")
            served.server.lifecycle.on(Event.STOP)
            served.server.lifecycle.on(Event.ALONE)
            sick = await served.ask("GET", "/health")
            assert (sick.status, sick.json["error_type"]) == (503, "Unhealthy")
            await served.server.drain(10)

    run(main())


def test_openais_own_extras() -> None:
    """`prompt_name`, forced dimensions, one model by its name, and TEI's short address of OpenAI's route."""

    async def main() -> None:
        async with serving() as served:
            named = await served.embed("x", prompt_name="query")
            np.testing.assert_array_equal(
                np.array(named.json["data"][0]["embedding"], np.float32), vectors(["x"], "query: ")[0]
            )
            assert (await served.embed("x", prompt_name="query", input_type="query")).status == 400
            assert (await served.embed("x", prompt_name="nope")).error["param"] == "prompt_name"
            assert (await served.embed("x", dimensions=5)).status == 400
            forced = np.array(
                (await served.embed("x", dimensions=5, force_dimensions=True)).json["data"][0]["embedding"]
            )
            cut = vectors(["x"])[0, :5]
            np.testing.assert_allclose(forced, cut / np.linalg.norm(cut), rtol=1e-6)
            assert "1 to 8" in (await served.embed("x", dimensions=9, force_dimensions=True)).error["message"]
            assert (await post(served, "/embeddings", input="x")).json["model"] == "semantic"
            assert (await served.ask("GET", "/v1/models/semantic")).json["id"] == "semantic"
            assert (await served.ask("GET", "/v1/models/nope")).error["code"] == "model_not_found"

    run(main())
