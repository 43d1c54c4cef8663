"""A server that keeps the wire's protocol and misbehaves on request: vectors follow from each text's hash.

It runs on a real socket in a thread of its own, so that the client under test may block its own.
"""

import asyncio
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

DIMENSIONS = 8

Fault = Callable[[web.Request, list[str]], Awaitable[web.StreamResponse | None]]
"""What happens instead of an answer; None: the honest answer after all."""


def vector(text: str, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """The vector of `text`, shape (dimensions,)."""
    digest = hashlib.shake_128(text.encode()).digest(2 * dimensions)
    return np.frombuffer(digest, "<u2").astype(np.float32) / np.float32(65536)


def vectors(texts: Sequence[str], dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """The vectors of `texts`, shape (n, dimensions)."""
    return np.stack([vector(text, dimensions) for text in texts])


def npy(rows: NDArray[Any]) -> bytes:
    """The .npy file of `rows`."""
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


@dataclass
class FakeServer:
    """What the server is told to be, and what it saw. Faults are taken from the front, one a request."""

    service: str = "semantic"
    models: tuple[str, ...] = ("semantic", "code")
    dimensions: int | None = DIMENSIONS
    max_inputs: int = 1000
    item_timeout_seconds: float | None = 30
    """What it says of how long it takes at most; None: an older server, which does not say."""
    pod: str | None = None
    """What it says of where it runs."""
    mute: bool = False
    """It takes what is asked of its models, and never answers."""
    places: int | None = None
    """Most inputs it holds at once; more are refused with 429."""
    faults: list[Fault] = field(default_factory=list)
    fingerprint: str = "f1"
    precision: str = "float32"
    max_tokens: int = 256
    bad: dict[str, str] = field(default_factory=dict)
    """Texts that it cannot embed, and why."""
    long: int = 1000
    """Characters of a text that it takes; the end of a longer one is cut."""
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refused: int = 0
    highest: int = 0
    """Most inputs that it held at once."""
    disconnected: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    held: int = 0
    probes: int = 0
    """Requests without a body."""
    _runner: web.AppRunner | None = None
    _site: web.TCPSite | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def texts(self) -> list[str]:
        """All texts of all requests, in the order they came."""
        return [text for request in self.requests for text in _inputs(request)]

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/embeddings."""
        body = await request.json()
        texts = _inputs(body)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.arrived.set()
        answer = await self.faults.pop(0)(request, texts) if self.faults else None
        partial = request.headers.get("X-Embedfleet-Partial") == "true"
        return answer or await self._admit(body, texts, partial=partial)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/models."""
        self.probes += 1
        if self.mute:
            await asyncio.get_running_loop().create_future()
        return web.json_response({"object": "list", "data": [self._card(name) for name in self.models]})

    async def _admit(self, body: dict[str, Any], texts: list[str], *, partial: bool) -> web.StreamResponse:
        if body.get("model", self.models[0]) not in self.models:
            return error(404, "model_not_found", f"no such model; this service has: {', '.join(self.models)}")
        if len(texts) > self.max_inputs:
            return error(413, "input_too_large", "more inputs than the service ever holds")
        if self.places is not None and self.held + len(texts) > self.places:
            self.refused += 1
            return error(429, "queue_full", "full", milliseconds=1)
        wrong = {index: self.bad[text] for index, text in enumerate(texts) if text in self.bad}
        if wrong and not partial:
            return error(422, "invalid_input", "bad", errors=_entries(wrong))
        return await self._answer(body, texts, wrong)

    async def _answer(self, body: dict[str, Any], texts: list[str], wrong: dict[int, str]) -> web.StreamResponse:
        self.held += len(texts)
        self.highest = max(self.highest, self.held)
        try:
            await asyncio.sleep(0)
        finally:
            self.held -= len(texts)
        rows = vectors(texts, body.get("dimensions") or self.dimensions or DIMENSIONS)
        rows[list(wrong)] = np.nan
        answer = rows_answer(rows, self.fingerprint)
        cut = [index for index, text in enumerate(texts) if len(text) > self.long]
        answer.headers.update(self._said(texts, wrong, cut))
        return answer

    def _said(self, texts: list[str], wrong: dict[int, str], cut: list[int]) -> dict[str, str]:
        said = {
            "X-Embedfleet-Model": self.models[0],
            "X-Embedfleet-Precision": self.precision,
            "X-Embedfleet-Tokens": str(sum(len(text.split()) for text in texts)),
            "X-Embedfleet-Compute-Milliseconds": "2.5",
        }
        if self.pod is not None:
            said["X-Embedfleet-Pod"] = self.pod
        if wrong:
            said["X-Embedfleet-Errors"] = json.dumps(_entries(wrong))
        if cut:
            said |= {"X-Embedfleet-Truncated": ",".join(map(str, cut)), "X-Embedfleet-Truncated-Count": str(len(cut))}
        return said

    def _card(self, name: str) -> dict[str, Any]:
        own: dict[str, Any] = {
            "service": self.service, "state": "Ready", "task": "Dense", "dimensions": self.dimensions,
            "max_tokens": self.max_tokens, "fingerprint": self.fingerprint, "precision": self.precision,
            "device": "cpu", "revision": None, "prompts": [], "matryoshka": [], "padded": True,
            "default": name == self.models[0], "max_inputs": self.max_inputs, "cause": None,
        }  # fmt: skip
        if self.item_timeout_seconds is not None:
            own["item_timeout_seconds"] = self.item_timeout_seconds
        return {"id": name, "object": "model", "created": 0, "owned_by": "embedfleet", "embedfleet": own}

    def vanish(self) -> None:
        """Nothing listens any more, and every connection is cut; from any thread but the server's."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.leave(), self._loop).result(30)

    async def leave(self) -> None:
        """`vanish`, on the server's loop."""
        assert self._site is not None
        assert self._runner is not None
        assert self._runner.server is not None
        await self._site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def reappear(self) -> None:
        """Listen again, at the same address."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._listen(int(self.url.rpartition(":")[2])), self._loop).result(30)

    async def _listen(self, port: int) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=4096, reuse_address=True)
        await self._site.start()

    def hang(self) -> Fault:
        """No answer until the client leaves, which sets `disconnected`."""

        async def fault(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.disconnected.set()
                raise
            return None

        return fault


def rows_answer(rows: NDArray[Any], fingerprint: str = "f1") -> web.Response:
    """The 200 of the wire."""
    headers = {"X-Embedfleet-Fingerprint": fingerprint, "X-Embedfleet-Queue-Milliseconds": "1.5"}
    return web.Response(body=npy(rows), content_type="application/x-npy", headers=headers)


def error(
    status: int,
    code: str,
    message: str,
    *,
    milliseconds: int | None = None,
    accepted: bool = False,
    errors: Sequence[dict[str, Any]] = (),
) -> web.Response:
    """An error answer of the wire."""
    told: dict[str, Any] = {"message": message, "type": "t", "code": code, "param": None, "accepted": accepted}
    if errors:
        told["errors"] = list(errors)
    headers = {}
    if milliseconds is not None:
        headers = {"Retry-After": "1", "X-Embedfleet-Retry-After-Milliseconds": str(milliseconds)}
    return web.json_response({"error": told}, status=status, headers=headers)


def give(make: Callable[[list[str]], web.StreamResponse]) -> Fault:
    """A fault that is one answer, made from the texts."""

    async def fault(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        return make(texts)

    return fault


def cut(after: int = 0) -> Fault:
    """The connection breaks, after so many bytes of the honest body."""

    async def fault(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        assert request.transport is not None
        if after:
            body = npy(vectors(texts))
            answer = web.StreamResponse(headers={"Content-Type": "application/x-npy", "Content-Length": str(len(body))})
            await answer.prepare(request)
            await answer.write(body[:after])
        request.transport.close()
        return web.Response()

    return fault


def slow(turns: int) -> Fault:
    """The honest answer after so many turns of the loop: later than what came after it."""

    async def fault(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        for _ in range(turns):
            await asyncio.sleep(0)
        return None

    return fault


def _entries(wrong: dict[int, str]) -> list[dict[str, Any]]:
    return [{"index": index, "code": "bad_text", "message": why} for index, why in wrong.items()]


def _inputs(body: dict[str, Any]) -> list[str]:
    given = body["input"]
    return [given] if isinstance(given, str) else list(given)


async def _running(fake: FakeServer) -> AsyncIterator[None]:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/embeddings", fake.embeddings)
    app.router.add_get("/v1/models", fake.list_models)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    fake._runner, fake._loop = runner, asyncio.get_running_loop()
    await fake._listen(0)
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    yield
    await runner.cleanup()


@asynccontextmanager
async def serving_here(fake: FakeServer) -> AsyncIterator[FakeServer]:
    """The server on a free port, on the loop of the caller: for a clock that both go by."""
    async for _ in _running(fake):
        yield fake


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """The server on a free port for as long as the block lasts."""
    started, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async for _ in _running(fake):
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
