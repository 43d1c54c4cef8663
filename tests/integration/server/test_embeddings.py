"""`/v1/embeddings` and `/v1/models` over a real socket, with the real engine."""

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Model, Rows
from tests.support.fake_model import INFO, VOCABULARY, FakeModel, vectors
from tests.support.served import Reply, Served, run, serving

pytestmark = pytest.mark.requirement("S1")
NPY = {"Accept": "application/x-npy"}
PARTIAL = {"X-Embedfleet-Partial": "true"}


def floats(reply: Reply) -> Rows:
    assert reply.status == 200, reply.body
    data = reply.json["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return np.array([entry["embedding"] for entry in data], np.float32)


def from_base64(reply: Reply) -> Rows:
    return np.stack([np.frombuffer(base64.b64decode(e["embedding"]), "<f4") for e in reply.json["data"]])


def array(reply: Reply) -> Rows:
    assert reply.headers["Content-Type"] == "application/x-npy", reply.body
    return np.load(io.BytesIO(reply.body), allow_pickle=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("texts", [["one"], ["a b", "c", "a b c d e f"], [f"text {i}" for i in range(900)]])
def test_the_three_formats_give_the_models_own_vectors(texts: list[str]) -> None:
    """Floats, base64 and npy are equal bit by bit to what the model gives, small answers and large ones alike."""

    async def main() -> None:
        async with serving(max_queued_requests=1000) as served:
            expected = vectors(texts)
            np.testing.assert_array_equal(floats(await served.embed(texts)), expected)
            np.testing.assert_array_equal(from_base64(await served.embed(texts, encoding_format="base64")), expected)
            np.testing.assert_array_equal(array(await served.embed(texts, headers=NPY)), expected)

    run(main())


def test_large_bodies_and_answers_leave_the_event_loop() -> None:
    """A body of megabytes and an answer of a hundred kilobytes come out the same."""

    async def main() -> None:
        async with serving({"semantic": lambda: FakeModel(dimensions=384, native_dimensions=384)}) as served:
            texts = [f"{i} " + "x" * 5000 for i in range(500)]
            np.testing.assert_array_equal(
                floats(await served.embed(texts)), array(await served.embed(texts, headers=NPY))
            )

    run(main())


def test_every_shape_of_input() -> None:
    """A string, token ids and lists of token ids are embedded like the list of strings."""

    async def main() -> None:
        async with serving() as served:
            np.testing.assert_array_equal(floats(await served.embed("a b")), vectors(["a b"]))
            np.testing.assert_array_equal(floats(await served.embed([5, 6])), vectors([[5, 6]]))
            np.testing.assert_array_equal(floats(await served.embed([[5], [6, 7]])), vectors([[5], [6, 7]]))

    run(main())


def test_prompts_dimensions_and_headers() -> None:
    """`input_type` chooses the prompt, `dimensions` cuts and normalises, headers tell of model and cost."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed("a b", input_type="query", dimensions=4, model="semantic", user="me")
            cut = vectors(["a b"], "query: ")[:, :4]
            np.testing.assert_allclose(floats(reply), cut / np.linalg.norm(cut), rtol=1e-6)
            assert reply.json["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
            assert reply.headers["X-Embedfleet-Model"] == "semantic"
            assert reply.headers["X-Embedfleet-Fingerprint"] == INFO.fingerprint
            assert reply.headers["X-Embedfleet-Precision"] == "float32"
            assert reply.headers["X-Embedfleet-Tokens"] == "3"
            for name in ("Queue", "Compute"):
                assert float(reply.headers[f"X-Embedfleet-{name}-Milliseconds"]) >= 0

    run(main())


BAD = ["good", "", "NOTFINITE", "also good", "x" * 1_000_001]


def _is_bad(reply: Reply, named: list[Mapping[str, Any]], rows: Rows) -> None:
    assert [(e["index"], e["code"]) for e in named] == [(1, "empty"), (2, "not_finite"), (4, "too_long")]
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True, False, True]
    np.testing.assert_array_equal(rows[[0, 3]], vectors(["good", "also good"]))
    assert reply.headers["X-Embedfleet-Tokens"] == "4"


def test_partial_answers() -> None:
    """Bad inputs of every kind are set aside: null or NaN in their places, named by index, the others answered."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed(BAD, headers=PARTIAL)
            rows = [entry["embedding"] or [np.nan] * 8 for entry in reply.json["data"]]
            assert reply.json["data"][1]["embedding"] is None
            _is_bad(reply, reply.json["errors"], np.array(rows, np.float32))
            reply = await served.embed(BAD, encoding_format="base64", headers=PARTIAL)
            _is_bad(reply, reply.json["errors"], from_base64(reply))
            reply = await served.embed(BAD, headers=PARTIAL | NPY)
            _is_bad(reply, json.loads(reply.headers["X-Embedfleet-Errors"]), array(reply))

    run(main())


class Choosy(FakeModel):
    """A model whose vocabulary is smaller than it says, so that only `encode` can tell."""

    def __init__(self) -> None:
        super().__init__(vocabulary=2 * VOCABULARY)


def test_partial_sets_aside_what_only_the_model_can_tell() -> None:
    """Inputs that the model itself refuses are set aside too, beside those of the edge, at their own index."""

    async def main() -> None:
        async with serving({"semantic": Choosy}) as served:
            reply = await served.embed([[], [1], [VOCABULARY], [2]], headers=PARTIAL | NPY)
            named = json.loads(reply.headers["X-Embedfleet-Errors"])
            assert [(e["index"], e["code"]) for e in named] == [(0, "empty"), (2, "token_out_of_range")]
            np.testing.assert_array_equal(array(reply)[[1, 3]], vectors([[1], [2]]))

    run(main())


def test_partial_with_nothing_good() -> None:
    """A request of bad inputs alone is answered with NaN rows, and without any forward."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed(["", ""], headers=PARTIAL | NPY)
            assert np.isnan(array(reply)).all()
            assert array(reply).shape == (2, 8)
            assert served.engine.stats().submitted == 0

    run(main())


def test_rows_that_are_not_finite_are_never_served() -> None:
    """Without partial answers a row of NaN fails the request: 500, accepted, its index named."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed(["good", "NOTFINITE"])
            assert (reply.status, reply.error["code"], reply.error["accepted"]) == (500, "internal", True)
            assert [e["index"] for e in reply.error["errors"]] == [1]

    run(main())


def test_a_full_queue_says_when_to_come_back() -> None:
    """With the queue full a request is refused whole: 429, nothing accepted, both forms of Retry-After."""

    async def main() -> None:
        async with serving(max_queued_requests=2, max_batch_size=1, max_concurrent_batches=1) as served:
            held = [asyncio.create_task(served.embed("HOLD"))]
            await served.until(served.gate.reached.is_set)
            held += [asyncio.create_task(served.embed("waits")) for _ in range(2)]
            await served.until(lambda: served.engine.total_queue_depth == 2)
            reply = await served.embed("one more")
            assert (reply.status, reply.error["code"], reply.error["accepted"]) == (429, "queue_full", False)
            assert int(reply.headers["Retry-After"]) >= 1
            assert int(reply.headers["X-Embedfleet-Retry-After-Milliseconds"]) >= 1
            served.gate.opened.set()
            assert {reply.status for reply in await asyncio.gather(*held)} == {200}

    run(main())


@pytest.mark.requirement("B10")
def test_a_client_that_leaves_takes_its_work_along() -> None:
    """A request whose client is gone leaves the queue before it costs a forward."""

    async def main() -> None:
        async with serving(max_batch_size=1, max_concurrent_batches=1) as served:
            held = asyncio.create_task(served.embed("HOLD"))
            await served.until(served.gate.reached.is_set)
            leaving = asyncio.create_task(served.embed("never computed"))
            await served.until(lambda: served.engine.stats().waiting == 1)
            leaving.cancel()
            await served.until(lambda: served.engine.total_queue_depth == 0)
            served.gate.opened.set()
            assert (await held).status == 200
            assert served.engine.stats().cancelled == 1
            assert b'embedfleet_requests_total{code="client_gone"} 1.0' in (await served.observe("/metrics")).body

    run(main())


def test_unforeseen_failures_show_nothing_of_the_inside() -> None:
    """A forward that raises is 500 and accepted; the server then serves on."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed("BREAK")
            assert (reply.status, reply.error["code"], reply.error["accepted"]) == (500, "internal", True)
            assert b"Traceback" not in reply.body
            assert (await served.embed("good")).status == 200

    run(main())


def test_models_are_listed_with_what_they_are() -> None:
    """`/v1/models` has OpenAI's shape and, for each model, what a client needs to know."""

    async def main() -> None:
        async with serving({"fleet": lambda: FakeModel("fleet"), "code": lambda: FakeModel("code")}) as served:
            reply = await served.ask("GET", "/v1/models")
            assert [model["id"] for model in reply.json["data"]] == ["fleet", "code"]
            assert {model["object"] for model in reply.json["data"]} == {"model"}
            known = reply.json["data"][0]["embedfleet"]
            expected = {
                "service": "fleet", "state": "Ready", "task": "Dense", "dimensions": 8, "max_tokens": 16,
                "fingerprint": INFO.fingerprint, "precision": "float32", "device": "cpu", "revision": "main",
                "prompts": ["document", "query"], "matryoshka": [8, 4], "padded": False, "default": True,
                "max_inputs": 1000, "item_timeout_seconds": 30, "cause": None,
            }  # fmt: skip
            assert expected.items() <= known.items()
            assert reply.json["data"][1]["embedfleet"]["default"] is False

    run(main())


@pytest.mark.requirement("B12")
def test_a_model_that_cannot_load_fails_its_own_requests() -> None:
    """Its requests get 503 with its name and the cause, the other model serves, and the list says why."""

    def broken() -> Model:
        raise ModelLoadFailed("code", "no such directory: weights")

    async def main() -> None:
        async with serving({"semantic": FakeModel, "code": broken}, wait=False) as served:
            await served.until(lambda: all(m.state in ("Ready", "Failed") for m in served.engine.models()))
            reply = await served.embed("x", model="code")
            assert (reply.status, reply.error["code"], reply.error["accepted"]) == (503, "model_failed", False)
            assert "no such directory: weights" in reply.error["message"]
            assert "Retry-After" in reply.headers
            assert (await served.embed("x", model="semantic")).status == 200
            listed = (await served.ask("GET", "/v1/models")).json["data"][1]["embedfleet"]
            assert (listed["state"], listed["dimensions"]) == ("Failed", None)
            assert "no such directory" in listed["cause"]

    run(main())


@pytest.mark.requirement("B11")
def test_a_lazy_model_loads_at_its_first_request() -> None:
    """The first requests wait for the load, which happens once; what is impossible is then refused."""
    loads = []

    def load() -> Model:
        loads.append(1)
        return FakeModel()

    async def main() -> None:
        async with serving({"semantic": load}, lazy=True) as served:
            assert (await served.embed("", headers=PARTIAL)).status == 422  # nothing to embed, no length to answer with
            assert not loads
            replies = await asyncio.gather(*(served.embed(f"t{i}") for i in range(5)), served.embed("x", dimensions=3))
            assert [reply.status for reply in replies] == [200] * 5 + [400]
            assert len(loads) == 1

    run(main())


@pytest.mark.requirement("N2")
def test_a_thousand_requests_at_once_each_get_their_own_answer() -> None:
    """Of many concurrent requests each gets its own vector or a refusal with a delay; none hangs."""

    async def one(served: Served, number: int) -> bool:
        reply = await served.embed(f"text {number}", headers=NPY)
        if reply.status == 200:
            np.testing.assert_array_equal(array(reply), vectors([f"text {number}"]))
        else:
            assert (reply.status, reply.error["code"]) == (429, "queue_full")
        return reply.status == 200

    async def main() -> None:
        async with serving(max_queued_requests=100) as served:
            answered = await asyncio.gather(*(one(served, number) for number in range(1000)))
            assert sum(answered) >= 100
            assert served.engine.total_queue_depth == 0

    run(main())
