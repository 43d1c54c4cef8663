"""The routes of sparse, multi-vector and rerank models over a real socket, and what each refuses."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest

from embedfleet_server.engine.scoring import scores
from tests.support.fake_model import FIRST, INFO, FakeModel, vectors
from tests.support.fake_tasks import EVERY_TASK, FakeRerank, FakeSparse, late, logits
from tests.support.served import Reply, Served, run, serving

pytestmark = [pytest.mark.requirement("S1"), pytest.mark.requirement("S3")]
TEXTS = ["a b", "c d e", "f"]
NPZ, NPY = "application/x-npz", "application/x-npy"
JSON = {"Content-Type": "application/json"}


async def post(served: Served, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    return await served.ask("POST", path, data=json.dumps(fields), headers=JSON | (headers or {}))


def npz(reply: Reply) -> Any:
    assert reply.headers["Content-Type"] == NPZ
    return np.load(io.BytesIO(reply.body), allow_pickle=False)


def npy(reply: Reply) -> Any:
    assert reply.headers["Content-Type"] == NPY
    return np.load(io.BytesIO(reply.body), allow_pickle=False)


def dense(row: list[dict[str, Any]]) -> Any:
    made = np.zeros(8, np.float32)
    made[[entry["index"] for entry in row]] = [entry["value"] for entry in row]
    return made


def test_sparse_rows() -> None:
    """Active dimensions ascending with their float32 values, at each address; as arrays the same numbers."""

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            wanted = np.maximum(vectors(TEXTS, "query: "), 0)
            for path in ("/embed_sparse", "/models/sparse/embed_sparse"):
                reply = await post(served, path, inputs=TEXTS, prompt_name="query")
                assert reply.status == 200, reply.body
                np.testing.assert_array_equal([dense(row) for row in reply.json], wanted)
                assert all(row == sorted(row, key=lambda entry: entry["index"]) for row in reply.json)
            file = npz(await post(served, "/embed_sparse", {"Accept": NPZ}, inputs=TEXTS, input_type="query"))
            made = np.zeros(file["shape"], np.float32)
            made[np.repeat(np.arange(len(made)), np.diff(file["offsets"])), file["indices"]] = file["values"]
            np.testing.assert_array_equal(made, wanted)
            many = [f"text {i}" for i in range(700)]  # encoded off the event loop
            rows = (await post(served, "/embed_sparse", inputs=many)).json
            np.testing.assert_array_equal([dense(row) for row in rows], np.maximum(vectors(many), 0))

    run(main())


def test_a_vector_for_each_token() -> None:
    """As many as there are tokens; a query is computed as one where `input_type` or `prompt_name` says so."""

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            plain = (await post(served, "/embed_all", inputs=TEXTS)).json
            assert [len(row) for row in plain] == [2, 3, 1]
            for row, text in zip(plain, TEXTS, strict=True):
                np.testing.assert_array_equal(np.array(row, np.float32), late(text))
            for how in ({"input_type": "query"}, {"prompt_name": "query"}):
                reply = await post(served, "/models/late/embed_all", {"Accept": NPZ}, inputs=TEXTS, **how)
                file = npz(reply)
                assert file["offsets"].tolist() == [0, 4, 9, 12]
                np.testing.assert_array_equal(file["vectors"][:4], late("query: a b", 1))
            both = await post(served, "/embed_all", inputs=TEXTS, input_type="query", prompt_name="query")
            assert (both.status, "give one of them" in both.json["error"]) == (400, True)

    run(main())


def test_rerank() -> None:
    """Best first, by the model's own activation or raw; texts given back when asked; as a file in input order."""

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            raw = logits("q", TEXTS)
            own = scores(raw[:, None], "Sigmoid")
            best = np.argsort(-raw).tolist()
            for path in ("/rerank", "/models/rerank/rerank"):
                reply = await post(served, path, query="q", texts=TEXTS)
                assert reply.status == 200, reply.body
                assert [entry["index"] for entry in reply.json] == best
                np.testing.assert_allclose([entry["score"] for entry in reply.json], own[best], rtol=1e-6)
                assert all("text" not in entry for entry in reply.json)
            shown = (await post(served, "/rerank", query="q", texts=TEXTS, raw_scores=True, return_text=True)).json
            assert [entry["text"] for entry in shown] == [TEXTS[index] for index in best]
            np.testing.assert_allclose([entry["score"] for entry in shown], raw[best], rtol=1e-6)
            file = npy(await post(served, "/rerank", {"Accept": NPY}, query="q", texts=TEXTS))
            np.testing.assert_array_equal(file, own)

    run(main())


def test_rerank_as_coheres_clients_ask() -> None:
    """Documents as strings or objects, `top_n` of them, given back when asked; tokens are counted."""

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            best = np.argsort(-logits("q", TEXTS)).tolist()
            documents = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
            for path in ("/v1/rerank", "/v2/rerank"):
                reply = await post(
                    served, path, model="rerank", query="q", documents=documents, top_n=2, return_documents=True
                )
                assert reply.status == 200, reply.body
                assert [entry["index"] for entry in reply.json["results"]] == best[:2]
                assert [entry["document"]["text"] for entry in reply.json["results"]] == [TEXTS[i] for i in best[:2]]
                assert reply.json["usage"]["total_tokens"] == 3 + 4 + 2
                assert (reply.json["model"], "errors" in reply.json) == ("rerank", False)
            wrong = await post(served, "/v1/rerank", query="q", documents=[{"txt": "x"}])
            assert (wrong.status, "documents[0]" in wrong.error["message"]) == (400, True)

    run(main())


def test_bad_inputs_set_aside() -> None:
    """With `X-Embedfleet-Partial` a bad input is null, or left out of the ranking, and named; the rest is answered."""
    header = {"X-Embedfleet-Partial": "true"}

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            given = ["a b", "", "NOTFINITE", "f"]
            for path, wanted in (("/embed", 8), ("/embed_all", 2)):
                reply = await post(served, path, header, inputs=given)
                assert [row is None for row in reply.json] == [False, True, True, False]
                assert len(reply.json[0]) == wanted
                named = json.loads(reply.headers["X-Embedfleet-Errors"])
                assert [(one["index"], one["code"]) for one in named] == [(1, "empty"), (2, "not_finite")]
            sparse = await post(served, "/embed_sparse", header, inputs=["a b", "", "f"])
            assert [row is None for row in sparse.json] == [False, True, False]
            file = npz(await post(served, "/embed_all", header | {"Accept": NPZ}, inputs=given))
            assert file["offsets"].tolist() == [0, 2, 2, 2, 3]
            ranked = await post(served, "/rerank", header, query="q", texts=given)
            assert sorted(entry["index"] for entry in ranked.json) == [0, 3]
            told = (await post(served, "/v1/rerank", header, query="q", documents=[*given, 5])).json
            assert [error["index"] for error in told["errors"]] == [1, 2, 4]
            scored = npy(await post(served, "/rerank", header | {"Accept": NPY}, query="q", texts=given))
            assert np.isnan(scored).tolist() == [False, True, True, False]
            for path in ("/embed_sparse", "/embed_all"):
                assert (await post(served, path, header, inputs=["", ""])).json == [None, None]
            assert (await post(served, "/embed_all", inputs=given)).status == 422
            assert (await post(served, "/rerank", header, query="q", texts=["", ""])).json == []

    run(main())


WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("/models/sparse/embed", {"inputs": "x"}, 400, "ask it at /embed_sparse; this route is for Dense"),
    ("/models/late/embed", {"inputs": "x"}, 400, "/embed_all"),
    ("/models/rerank/embed", {"inputs": "x"}, 400, "/rerank or /v1/rerank"),
    ("/models/semantic/embed_sparse", {"inputs": "x"}, 400, "/v1/embeddings or /embed"),
    ("/models/semantic/rerank", {"query": "q", "texts": ["x"]}, 400, "this route is for Rerank"),
    ("/models/three/rerank", {"query": "q", "texts": ["x"]}, 400, "3 scores a pair"),
    ("/models/rerank/rerank", {"query": "", "texts": ["x"]}, 400, "not empty"),
    ("/models/rerank/rerank", {"query": "q", "texts": []}, 400, "nothing to rank"),
    ("/models/rerank/rerank", {"query": "q", "texts": ["x", ""]}, 422, "input[1]: is empty"),
    ("/models/rerank/rerank", {"query": "q", "texts": ["x", 5]}, 422, "input[1]: is a number"),
    ("/models/rerank/rerank", {"query": "q", "texts": ["x"] * 1001}, 413, "at most 1000"),
    ("/models/rerank/rerank", {"query": "q" * 500_000, "texts": ["x"] * 40}, 413, "the query with each of texts"),
    ("/models/rerank/rerank", {"query": "q " * 10, "texts": ["x " * 10], "truncate": False}, 413, "truncate is false"),
    ("/models/rerank/rerank", {"query": "q", "texts": ["x"], "prompt_name": "nope"}, 400, "prompt_name"),
    ("/models/late/embed_all", {"inputs": ["x", "x " * 17], "truncate": False}, 413, "input[1]"),
    ("/models/sparse/embed_sparse", {"inputs": "x", "dimensions": 4}, 400, '"dimensions" is not a known field'),
]


@pytest.mark.parametrize(("path", "fields", "status", "words"), WRONG)
def test_what_is_refused(path: str, fields: dict[str, Any], status: int, words: str) -> None:
    """Each wrong request has its status and a sentence that says what to do."""

    async def main() -> None:
        async with serving({**EVERY_TASK, "three": lambda: FakeRerank("three", labels=3)}) as served:
            reply = await post(served, path, **fields)
            assert reply.status == status, reply.body
            assert words in reply.json["error"]
            assert reply.json["accepted"] is False

    run(main())


def test_the_only_model_of_a_task_needs_no_name() -> None:
    """The default where it is of the task, else the only one; with two of them the default says no."""

    async def main() -> None:
        two = {**EVERY_TASK, "sparser": lambda: FakeSparse("sparser"), "fleet": lambda: FakeModel("fleet")}
        async with serving(two) as served:
            assert (await served.embed("x")).json["model"] == "fleet"
            assert (await post(served, "/embed_all", inputs="x")).headers["X-Embedfleet-Model"] == "late"
            both = await post(served, "/models/nope/embed_sparse", inputs="x")
            assert (both.status, "nope" in both.json["error"]) == (404, True)
            default = await post(served, "/embed_sparse", inputs="x")
            assert (default.status, "'fleet' is for Dense" in default.json["error"]) == (400, True)
            models = (await served.ask("GET", "/v1/models")).json["data"]
            assert {model["id"]: model["embedfleet"]["task"] for model in models}["late"] == "MultiVector"
            assert (await served.embed("x", model="rerank")).error["param"] == "model"
            info = (await served.ask("GET", "/models/rerank/info")).json
            assert info["model_type"] == {"reranker": {}}

    run(main())


def test_a_model_not_loaded_yet_is_not_computed_with_for_nothing() -> None:
    """A wrong task shows only at the load: the request is refused then, before anything is tokenised."""

    async def main() -> None:
        async with serving({"rerank": FakeRerank}, lazy=True, wait=False) as served:
            reply = await served.embed("x")
            assert (reply.status, reply.error["code"]) == (400, "invalid_request")
            assert served.engine.stats().batches == 0

    run(main())


def test_the_end_that_is_cut() -> None:
    """`truncation_direction: Left` keeps a text's end, for texts, token ids and pairs; what is kept is not mixed up."""

    async def main() -> None:
        async with serving({"semantic": FakeModel, "rerank": FakeRerank}, vector_cache_mib=1) as served:
            long = " ".join(f"w{i}" for i in range(20))
            ends = {"Right": " ".join(long.split()[:16]), "left": " ".join(long.split()[-16:])}
            for side, kept in [*ends.items(), *ends.items()]:
                reply = await post(served, "/models/semantic/embed", inputs=long, truncation_direction=side)
                np.testing.assert_array_equal(np.array(reply.json, np.float32), vectors([kept]))
            given = await served.embed([list(range(20))], model="semantic", truncation_direction="Left")
            np.testing.assert_array_equal(
                np.array(given.json["data"][0]["embedding"], np.float32), vectors([list(range(4, 20))])[0]
            )
            refused = await post(served, "/models/semantic/embed", inputs=long, truncate=False)
            assert refused.status == 413
            assert served.engine.stats().batches == 3

    run(main())


def test_vectors_in_other_types() -> None:
    """Each type is sentence-transformers' quantisation, in JSON, base64 and as a file; what cannot be is refused."""
    sentence_transformers = pytest.importorskip("sentence_transformers.util.quantization")

    async def main() -> None:
        async with serving() as served:
            many = [f"text {i}" for i in range(200)]
            rows = vectors(many)
            for name in ("float16", "int8", "uint8", "binary", "ubinary"):
                wanted = (
                    rows.astype(np.float16)
                    if name == "float16"
                    else sentence_transformers.quantize_embeddings(rows, precision=name)
                )
                file = await served.embed(many, headers={"Accept": NPY}, dtype=name)
                np.testing.assert_array_equal(npy(file), wanted)
                assert (npy(file).dtype, file.headers["X-Embedfleet-Dtype"]) == (wanted.dtype, name)
                listed = await served.embed(many, output_dtype=name)
                numbers = np.array([entry["embedding"] for entry in listed.json["data"]])
                np.testing.assert_array_equal(numbers.astype(wanted.dtype), wanted)
                bare = await post(served, "/embed", inputs=many, dtype=name)
                np.testing.assert_array_equal(np.array(bare.json).astype(wanted.dtype), wanted)
                packed = (await served.embed(many, encoding_format="base64", dtype=name)).json["data"]
                first = np.frombuffer(base64.b64decode(packed[0]["embedding"]), wanted.dtype)
                np.testing.assert_array_equal(first, wanted[0])
            one = await served.embed("x", dtype="int8")
            assert (one.status, one.error["param"]) == (400, "dtype")
            assert (await served.embed("x", dtype="binary")).status == 200
            assert (await served.embed("x", dtype="int4")).status == 400
            assert (await served.embed("x", dtype="binary", output_dtype="int8")).status == 400
            left = await served.embed(["x", ""], headers={"X-Embedfleet-Partial": "true"}, dtype="int8")
            assert (left.status, left.error["param"]) == (400, "dtype")

    run(main())


def test_tokens_of_texts() -> None:
    """Each token with its text and place, special ones first unless left out, a prompt before; nothing is cut."""

    async def main() -> None:
        async with serving(EVERY_TASK) as served:
            for path in ("/models/semantic/tokenize", "/models/late/tokenize", "/models/rerank/tokenize"):
                ((first, second, third),) = (await post(served, path, inputs="ab c")).json
                assert first == {"id": FIRST, "text": "[FIRST]", "special": True, "start": None, "stop": None}
                assert [second["text"], second["start"], second["stop"], second["special"]] == ["ab", 0, 2, False]
                assert [third["start"], third["stop"]] == [3, 4]
            bare = await post(
                served, "/models/semantic/tokenize", inputs=["a", "b c"], add_special_tokens=False, prompt_name="query"
            )
            assert [[token["text"] for token in row] for row in bare.json] == [["query:", "a"], ["query:", "b", "c"]]
            long = (await post(served, "/models/semantic/tokenize", inputs="w " * 5000)).json
            assert len(long[0]) == 5001
            for wrong, status in (
                ({"inputs": []}, 400), ({"inputs": [""]}, 422), ({"inputs": [[1]]}, 400),
                ({"inputs": "x" * 250_001}, 413), ({"inputs": "x", "prompt_name": "nope"}, 400),
            ):  # fmt: skip
                assert (await post(served, "/models/semantic/tokenize", **wrong)).status == status, wrong
            assert (await served.observe("/state")).json["stats"]["waiting"] == 0

    run(main())


def test_texts_of_tokens() -> None:
    """One list of ids or many; special ones are left out unless asked for, ids of no token are refused."""

    async def main() -> None:
        async with serving() as served:
            assert (await post(served, "/decode", ids=[FIRST, 5, 6])).json == ["5 6"]
            shown = await post(served, "/models/semantic/decode", ids=[[FIRST, 5], [7]], skip_special_tokens=False)
            assert shown.json == [f"{FIRST} 5", "7"]
            for wrong, status in (
                ({"ids": []}, 400), ({"ids": ["x"]}, 400), ({"ids": [INFO.vocabulary]}, 422), ({"ids": [-1]}, 422),
                ({"ids": [[]]}, 422), ({"ids": [1] * 250_001}, 413),
            ):  # fmt: skip
                assert (await post(served, "/decode", **wrong)).status == status, wrong

    run(main())
