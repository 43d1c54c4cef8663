"""Pipelines over a real socket, on a real server with a fake model of each task; and by the SDK."""

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest

from embedfleet.client import AsyncService
from embedfleet.errors import BadInput, RequestRejected
from embedfleet.pipelines import Chunks, Codes, Sparse
from embedfleet_server.config import Limits
from embedfleet_server.engine.scoring import scores
from tests.support.fake_model import vectors
from tests.support.fake_tasks import EVERY_TASK, late, logits
from tests.support.graphs import embed, pipeline, step
from tests.support.served import Reply, Served, run, serving

pytestmark = pytest.mark.requirement("G1", "G2")
NDJSON = {"Accept": "application/x-ndjson"}
CUT = step("cut", chunk={"by": "Tokens", "size": 2, "overlap": 1, "model": "semantic"})
INDEX = pipeline(
    CUT,
    embed("dense", "cut"),
    embed("sparse", "cut", model="sparse", input="Query"),
    embed("tokens", model="late"),
    step("short", "dense", truncate={"dimensions": 4}),
    step("bits", "dense", quantize={"to": "Binary"}),
    step("mean", "dense", "cut", pool={"by": "Weighted"}),
    outputs=["cut", "short", "sparse", "tokens", "bits", "mean"],
)
RANK = pipeline(CUT, step("scores", "cut", rerank={"model": "rerank"}), name="rank", outputs=["cut", "scores"])
UNFIT = pipeline(step("scores", rerank={"model": "semantic"}), name="unfit")
ALL = [INDEX, RANK, UNFIT]


async def post(served: Served, name: str, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    given = {"Content-Type": "application/json"} | (headers or {})
    return await served.ask("POST", f"/v1/pipelines/{name}", data=json.dumps(fields), headers=given)


def unpacked(packed: dict[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])


def test_outputs_of_every_kind() -> None:
    """Chunks with their characters, vectors, sparse and ragged rows, codes: as the models alone give them."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL) as served:
            reply = await post(served, "index", inputs=["one two three", "four"])
            assert reply.status == 200, reply.body
            first, second = reply.json["data"]
            out = first["outputs"]
            texts = ["one two", "two three"]
            assert out["cut"] == {"kind": "chunks", "texts": texts, "of": [0, 0], "start": [0, 4], "stop": [7, 13]}
            dense = vectors(texts)
            np.testing.assert_array_equal(np.array(out["short"]["vectors"], np.float32), dense[:, :4])
            np.testing.assert_array_equal(np.array(out["tokens"]["vectors"], np.float32), late("one two three"))
            assert out["tokens"]["offsets"] == [0, 3]
            sparse = np.zeros((2, out["sparse"]["dimensions"]), np.float32)
            rows = np.repeat([0, 1], np.diff(out["sparse"]["offsets"]))
            sparse[rows, out["sparse"]["indices"]] = out["sparse"]["values"]
            np.testing.assert_array_equal(sparse, np.maximum(vectors(texts, "query: "), 0))
            assert np.array(out["bits"]["codes"]).shape == (2, 1)
            weighted = (dense[0] * 7 + dense[1] * 9) / 16
            np.testing.assert_allclose(out["mean"]["vectors"], [weighted], rtol=1e-5)
            assert (second["index"], second["outputs"]["cut"]["texts"]) == (1, ["four"])

    run(main())


def test_arrays_as_base64() -> None:
    """The same numbers in fewer bytes, with their type and shape."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL) as served:
            plain = (await post(served, "index", inputs=["one two"])).json["data"][0]["outputs"]
            packed = (await post(served, "index", inputs=["one two"], encoding_format="base64")).json["data"][0]
            np.testing.assert_array_equal(
                unpacked(packed["outputs"]["short"]["vectors"]), np.array(plain["short"]["vectors"], np.float32)
            )
            assert packed["outputs"]["bits"]["codes"]["dtype"] == "int8"

    run(main())


def test_lines_come_while_they_are_made() -> None:
    """With `Accept: application/x-ndjson` a result is there before the one behind it can be computed."""

    async def main() -> None:
        async with serving(pipelines=[pipeline(embed("dense"), parallelExecutions=1)]) as served:
            url = f"http://127.0.0.1:{served.port}/v1/pipelines/index"
            body = {"inputs": ["first", "HOLD", "third"]}
            async with served.session.post(url, json=body, headers=NDJSON) as response:
                first = json.loads(await response.content.readline())
                assert first["index"] == 0
                await asyncio.to_thread(served.gate.reached.wait, 30)
                served.gate.opened.set()
                rest = [json.loads(line) async for line in response.content]
            assert [one["index"] for one in rest] == [1, 2]

    run(main())


def test_one_failed_input_fails_alone() -> None:
    """Each has its error with step, code and words, whichever step it fell at; the others have their outputs."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL) as served:
            inputs = [
                "good",
                7,
                "",
                {"text": "a NOTFINITE b", "query": "q"},
                {"texts": ["x y", "z"], "query": "x"},
                " ",
            ]
            told = (await post(served, "rank", inputs=inputs)).json["data"]
            errors = [(one["error"]["step"], one["error"]["code"]) if "error" in one else None for one in told]
            assert errors == [
                ("scores", "invalid_input"), ("input", "wrong_type"), ("input", "empty"), ("scores", "not_finite"),
                None, ("cut", "invalid_input"),
            ]  # fmt: skip
            assert "query" in told[0]["error"]["message"]
            assert "not finite" in told[3]["error"]["message"]
            out = told[4]["outputs"]
            assert (out["cut"]["of"], out["cut"]["texts"]) == ([0, 1], ["x y", "z"])
            wanted = scores(logits("x", ["x y", "z"])[:, None], "Sigmoid")
            np.testing.assert_allclose(out["scores"]["scores"], wanted, rtol=1e-6)

    run(main())


@pytest.mark.parametrize(
    ("name", "fields", "status", "words"),
    [
        ("nothing", {"inputs": ["a"]}, 404, "this service has: index, rank, unfit"),
        ("index", {}, 400, "inputs is required"),
        ("index", {"inputs": []}, 400, "at least one entry"),
        ("index", {"inputs": ["a"], "encoding_format": "hex"}, 400, "'float' or 'base64'"),
        ("index", {"inputs": ["a"] * 1001}, 413, "at most 1000"),
        ("index", {"inputs": ["abcdefghijk"] * 2}, 413, "22 characters"),
        ("unfit", {"inputs": ["a"]}, 400, "pipeline 'unfit', step 'scores': rerank needs a model of task Rerank"),
    ],
)
def test_requests_that_are_refused_whole(name: str, fields: dict[str, Any], status: int, words: str) -> None:
    """An unknown pipeline, one that does not fit its models, a body that is wrong or too large."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL, limits=Limits(total_characters=20)) as served:
            if "at most" in words:
                fields["inputs"] = [""] * 1001
            reply = await post(served, name, **fields)
            assert (reply.status, reply.error["accepted"]) == (status, False)
            assert words in reply.error["message"]

    run(main())


def test_the_list() -> None:
    """Every pipeline with its steps, and what keeps it from running."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL) as served:
            listed = (await served.ask("GET", "/v1/pipelines")).json["data"]
            assert [one["id"] for one in listed] == ["index", "rank", "unfit"]
            assert listed[1]["steps"][1] == {
                "name": "scores", "operation": "rerank", "model": "rerank", "from": ["cut"]
            }  # fmt: skip
            assert [len(one["problems"]) for one in listed] == [0, 0, 1]
        async with serving() as served:
            assert (await served.ask("GET", "/v1/pipelines")).json == {"object": "list", "data": []}

    run(main())


def test_who_leaves_takes_the_work_along() -> None:
    """A client that goes away in the middle leaves nothing queued."""

    async def main() -> None:
        async with serving(pipelines=[pipeline(embed("dense"))]) as served:
            gone = asyncio.create_task(post(served, "index", inputs=["HOLD", *(f"text {i}" for i in range(30))]))
            await asyncio.to_thread(served.gate.reached.wait, 30)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await served.until(lambda: served.engine.total_queue_depth == 0)
            served.gate.opened.set()

    run(main())


def test_a_drain_answers_what_was_accepted() -> None:
    """Steps that have not begun when the drain does are computed all the same."""

    async def main() -> None:
        graph = pipeline(step("cut", chunk={"by": "Sentences"}), embed("one", "cut"), step("unit", "one", normalize={}))
        async with serving(pipelines=[graph]) as served:
            asked = asyncio.create_task(post(served, "index", inputs=["HOLD.", *(f"text {i}." for i in range(30))]))
            await served.until(lambda: served.engine.total_queue_depth > 0)
            served.engine.close_admission()
            refused = await post(served, "index", inputs=["late"])
            assert (refused.status, refused.error["code"]) == (503, "shutting_down")
            served.gate.opened.set()
            reply = await asked
            assert reply.status == 200, reply.body
            assert ["error" in one for one in reply.json["data"]] == [False] * 31

    run(main())


def test_by_the_sdk() -> None:
    """Typed results in the order of the inputs, with progress; an input that failed raises where it is read."""

    async def main() -> None:
        async with serving(EVERY_TASK, pipelines=ALL) as served:
            service = AsyncService(f"http://127.0.0.1:{served.port}")
            async with service:
                cards = await service.pipelines()
                assert [(card.name, bool(card.problems)) for card in cards] == [
                    ("index", False), ("rank", False), ("unfit", True),
                ]  # fmt: skip
                seen: list[tuple[int, int | None]] = []
                inputs: list[Any] = [f"word {i} here" for i in range(40)]
                inputs[17] = ""
                run_ = service.pipeline("index").run(inputs, progress=lambda *told: seen.append(told))
                results = [result async for result in run_]
                assert [result.index for result in results] == list(range(40))
                assert seen[-1] == (40, 40)
                assert [result.index for result in results if not result.ok] == [17]
                with pytest.raises(RuntimeError, match=r"inputs\[17\], step 'input'"):
                    _ = results[17]["short"]
                out = results[3].outputs
                chunks, sparse, bits = out["cut"], out["sparse"], out["bits"]
                assert isinstance(chunks, Chunks)
                assert isinstance(sparse, Sparse)
                assert isinstance(bits, Codes)
                np.testing.assert_array_equal(out["short"], vectors(chunks.texts)[:, :4])
                np.testing.assert_array_equal(sparse.dense(), np.maximum(vectors(chunks.texts, "query: "), 0))
                np.testing.assert_array_equal(out["tokens"][0], late("word 3 here"))  # type: ignore[index]
                assert (chunks.starts.tolist(), chunks.stops.tolist()) == ([0, 5], [6, 11])
                with pytest.raises(RequestRejected, match="does not exist"):
                    await anext(service.pipeline("nothing").run(["a"]))
                with pytest.raises(BadInput, match=r"inputs\[1\] is 7"):
                    _ = [one async for one in service.pipeline("index").run(["a", 7])]  # type: ignore[list-item]

    run(main())
