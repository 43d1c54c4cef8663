"""What a request may hold, on every route: so many inputs and characters, nothing packed; and how small errors stay."""

import gzip
import json
from collections.abc import Callable

import pytest
from aiohttp.http_parser import DeflateBuffer

from embedfleet_server.config import Limits
from tests.support.graphs import embed, pipeline
from tests.support.raw import answers, exchange, post
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("S1")
CLOSE, PACKED = "Connection: close", "Content-Encoding: gzip"
GRAPH = pipeline(embed("dense"), name="graph")


def test_nothing_is_ever_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that says it is gzip is refused, or dropped where no body is read, and no byte of it decompressed."""
    unpacked: list[bytes] = []

    def unpack(_: DeflateBuffer, data: bytes, size: int) -> bool:
        unpacked.append(data)
        return False

    monkeypatch.setattr(DeflateBuffer, "feed_data", unpack)
    bomb = gzip.compress(bytes(1 << 20))

    async def main() -> None:
        async with serving(limits=Limits(lingering_seconds=0.05)) as served:
            for path, port, status in (
                ("/v1/embeddings", served.port, 415),
                ("/nowhere", served.port, 404),
                ("/live", served.observe_port, 405),
            ):
                (answer,) = answers(await exchange(served.host, port, post(bomb, CLOSE, PACKED, path=path)))
                assert answer.status == status
            (answer,) = answers(await exchange(served.host, served.port, post(bomb, CLOSE, PACKED)))
            assert answer.headers["accept-encoding"] == "identity"

    run(main())
    assert unpacked == []


def test_few_unknown_fields_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, or of a long one, to the known ones: each takes time in which the event loop serves nobody else."""
    compared: list[str] = []

    def nearest(word: str, known: list[str]) -> str:
        compared.append(word)
        return f"{len(known)} are known"

    monkeypatch.setattr("embedfleet_server.app.fields.nearest", nearest)

    async def main() -> None:
        async with serving() as served:
            many = b"".join(b', "dimension%d": 1' % n for n in range(10_000))
            assert (await served.post(b'{"input": "x"' + many + b"}")).status == 400
            assert (await served.post(b'{"input": "x", "%s": 1}' % (b"k" * 100_000))).status == 400

    run(main())
    assert len(compared) <= 12
    assert max(map(len, compared)) <= 80


def test_what_an_error_quotes_is_cut() -> None:
    """A model's name of a megabyte, ten thousand unknown fields: the answer is small and says that there is more."""
    many = b'{"input": "x"' + b"".join(b', "k%d": 1' % n for n in range(10_000)) + b"}"

    async def main() -> None:
        async with serving() as served:
            for body, status in (
                (b'{"input": "x", "model": "%s"}' % (b"m" * 1_000_000), 404),
                (b'{"input": "x", "%s": 1}' % (b"k" * 1_000_000), 400),
                (many, 400),
            ):
                reply = await served.post(body)
                assert reply.status == status
                assert len(reply.body) < 5000
            assert reply.error["message"].endswith("; and more")
            assert '"k9" is not a known field' in reply.error["message"]
            assert "k10" not in reply.error["message"]

    run(main())


Body = Callable[[int], bytes]
MOST = 50
TOO_MANY: dict[str, tuple[str, Body]] = {
    "embeddings": ("/v1/embeddings", lambda n: json.dumps({"input": ["x"] * n}).encode()),
    "token ids": ("/v1/embeddings", lambda n: json.dumps({"input": [[1]] * n}).encode()),
    "embed": ("/embed", lambda n: json.dumps({"inputs": ["x"] * n}).encode()),
    "embed_sparse": ("/embed_sparse", lambda n: json.dumps({"inputs": ["x"] * n}).encode()),
    "embed_all": ("/embed_all", lambda n: json.dumps({"inputs": ["x"] * n}).encode()),
    "tokenize": ("/tokenize", lambda n: json.dumps({"inputs": ["x"] * n}).encode()),
    "decode": ("/decode", lambda n: json.dumps({"ids": [[1]] * n}).encode()),
    "rerank": ("/rerank", lambda n: json.dumps({"query": "x", "texts": ["x"] * n}).encode()),
    "rerank of Cohere's": ("/v1/rerank", lambda n: json.dumps({"query": "x", "documents": ["x"] * n}).encode()),
    "pipeline": ("/v1/pipelines/graph", lambda n: json.dumps({"inputs": ["x"] * n}).encode()),
    "similarity": (
        "/similarity",
        lambda n: json.dumps({"inputs": {"source_sentence": "x", "sentences": ["x"] * n}}).encode(),
    ),
}


@pytest.mark.parametrize("route", TOO_MANY)
def test_every_route_has_a_most_of_inputs(route: str) -> None:
    """One more than the queue could ever hold is 413 at once, and says how many may be."""
    path, body = TOO_MANY[route]

    async def main() -> None:
        async with serving(pipelines=[GRAPH], max_queued_requests=MOST) as served:
            reply = await served.ask("POST", path, data=body(MOST + 1))
            assert reply.status == 413
            assert f"at most {MOST}" in reply.body.decode()
            assert served.engine.stats().submitted == 0

    run(main())


LONG: dict[str, tuple[str, Body]] = {
    "embeddings": ("/v1/embeddings", lambda n: json.dumps({"input": ["x" * (n // 2), "y" * (n - n // 2)]}).encode()),
    "rerank": ("/rerank", lambda n: json.dumps({"query": "x" * (n // 4), "texts": ["y" * (n // 4)] * 2}).encode()),
    "pipeline": ("/v1/pipelines/graph", lambda n: json.dumps({"inputs": ["x" * (n // 2), "y" * (n // 2)]}).encode()),
    "pipeline of parts": (
        "/v1/pipelines/graph",
        lambda n: json.dumps({"inputs": [{"texts": ["x" * (n // 2), "y" * (n // 2)]}]}).encode(),
    ),
    "tokenize": ("/tokenize", lambda n: json.dumps({"inputs": ["x" * (n // 2), "y" * (n // 2)]}).encode()),
}
CHARACTERS = 1000


@pytest.mark.parametrize("route", LONG)
def test_every_route_has_a_most_of_characters(route: str) -> None:
    """Of all texts of a request together, the query counted with each of them: more are 413, however short each is."""
    path, body = LONG[route]

    async def main() -> None:
        async with serving(pipelines=[GRAPH], limits=Limits(total_characters=CHARACTERS)) as served:
            reply = await served.ask("POST", path, data=body(CHARACTERS + 4))
            assert reply.status == 413
            assert f"at most {CHARACTERS}" in reply.body.decode()
            assert served.engine.stats().submitted == 0

    run(main())


@pytest.mark.parametrize(("path", "texts"), [("/rerank", "texts"), ("/v1/rerank", "documents")])
@pytest.mark.parametrize(
    ("query", "words"),
    [("x" * 101, "query has 101 characters; at most 100 are taken"), ("\ud800", "query holds a lone surrogate")],
)
def test_a_query_is_bounded_as_a_text_is(path: str, texts: str, query: str, words: str) -> None:
    """It goes to the tokenizer with each text: one that is too long, or no Unicode, is refused before."""

    async def main() -> None:
        async with serving(limits=Limits(text_characters=100)) as served:
            reply = await served.ask("POST", path, data=json.dumps({"query": query, texts: ["y"]}).encode())
            assert reply.status == 400
            assert words in reply.body.decode()
            assert served.engine.stats().submitted == 0

    run(main())
