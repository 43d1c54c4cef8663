"""A proxy between an operator and the API server that loses, refuses, delays and forgets as a test wants it.

Plain HTTP on the operator's side, TLS with the certificate of the given kubeconfig on the server's. kopf's watch goes
through it as well as the operator's own requests, so that both meet the same faults.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from embedfleet_operator.configuration import Configuration
from embedfleet_operator.credentials import Credentials
from tests.cluster.kubeconfig import CONTEXT, write

Plain = dict[str, Any]
_LABEL = "embedfleet.dev/service="
_NOT_STALE = ("leases", "endpointslices")
"""Types that `Proxy.as_of` leaves alone: who leads is not what such a test is about."""
_WAIT_SECONDS = 60.0
"""The longest that a held request waits for its test, which has failed by then."""


@dataclass(slots=True)
class Call:
    """A request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    body: Plain | None = None
    code: int | None = None
    """What the API server answered; None when it was not asked."""

    @property
    def is_write(self) -> bool:
        """It changes something; the Lease counts not."""
        return self.method != "GET" and "/leases" not in self.path

    @property
    def is_taken(self) -> bool:
        """The API server has done it."""
        return self.code is not None and self.code < 300

    @property
    def is_watch(self) -> bool:
        """It waits for events."""
        return "watch" in self.query

    @property
    def plural(self) -> str:
        """The type of object that it is about; empty for a question about types."""
        return _about(self.path)[0]

    @property
    def service(self) -> str | None:
        """The EmbeddingService that it is about, as names tell; services of such tests have no hyphen in theirs."""
        if "labelSelector" in self.query:
            return self.query["labelSelector"].partition(_LABEL)[2] or None
        regarding = (self.body or {}).get("regarding", {}).get("name")
        return regarding or _about(self.path)[1].partition("-")[0] or None


@dataclass(slots=True)
class Hold:
    """Keeps a request back: `reached` once it is there, until `go` is set."""

    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of a request.

    Args:
        code: the answer that is given in the server's place.
        cut: the connection is reset, before the request reaches the server or after the server has done it.
        hold: it reaches the server late.
        then: is called once the server has done it, before the answer goes back.
    """

    code: int | None = None
    cut: Literal["before", "after"] | None = None
    hold: Hold | None = None
    then: Callable[[], None] = lambda: None


SOUND = Fault()
"""No fault."""


class Proxy:
    """At work inside `proxied`; what it does may be changed at any time.

    Attributes:
        kubeconfig: of the way through it.
        calls: all that came, in order.
        judge: what becomes of a request.
        hears: whether an event of a watch gets through; takes its object.
        is_away: each connection is reset, watches too, and none of them reaches the server.
        as_of: the version of the cluster from which each read is answered; watches tell nothing meanwhile.
    """

    def __init__(self, upstream: Path) -> None:
        self._upstream = Credentials(Configuration(identity="proxy", kubeconfig=upstream))
        self.kubeconfig = upstream.with_name(f"{secrets.token_hex(4)}.proxied")
        self.calls: list[Call] = []
        self.judge: Callable[[Call], Fault] = lambda _: SOUND
        self.hears: Callable[[Plain], bool] = lambda _: True
        self.as_of: str | None = None
        self._away = False
        self._open: dict[int, web.BaseRequest] = {}
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()

    @property
    def is_away(self) -> bool:
        """See the class."""
        return self._away

    @is_away.setter
    def is_away(self, value: bool) -> None:
        self._away = value
        if value:
            self._loop.call_soon_threadsafe(self._cut_all)

    @property
    def writes(self) -> list[Call]:
        """Those that changed something."""
        return [call for call in self.calls if call.is_write and call.is_taken]

    async def run(self, up: threading.Event) -> None:
        """Serve until `stop`; `up` is set once it does."""
        connector = aiohttp.TCPConnector(ssl=self._upstream.tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        async with aiohttp.ClientSession(self._upstream.url, connector=connector, timeout=timeout) as self._session:
            runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._write_kubeconfig(runner.addresses[0][1])
            up.set()
            await self._stop.wait()
            self._cut_all()
            await runner.cleanup()

    def stop(self) -> None:
        """End it; from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _write_kubeconfig(self, port: int) -> None:
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [{"name": CONTEXT, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": CONTEXT, "user": {}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        }
        write(self.kubeconfig, made)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        text = await request.read()
        call = Call(request.method, request.path, dict(request.query), json.loads(text) if text else None)
        self.calls.append(call)
        self._open[id(request)] = request
        try:
            return await self._answer(request, call, text)
        except aiohttp.ClientError:  # the cluster is being taken down
            return _cut(request)
        finally:
            del self._open[id(request)]

    async def _answer(self, request: web.BaseRequest, call: Call, text: bytes) -> web.StreamResponse:
        fault = self.judge(call)
        if self._away or fault.cut == "before":
            return _cut(request)
        if fault.code is not None:
            return web.json_response(_status(fault.code), status=fault.code)
        if fault.hold is not None:
            await self._held(fault.hold)
        if call.is_watch:
            return await self._watch(request, call)
        answer = await self._forward(request, call, text)
        if call.is_taken:
            fault.then()
        return _cut(request) if fault.cut == "after" and call.is_taken else answer

    async def _held(self, hold: Hold) -> None:
        hold.reached.set()
        await asyncio.get_running_loop().run_in_executor(None, hold.go.wait, _WAIT_SECONDS)

    async def _forward(self, request: web.BaseRequest, call: Call, text: bytes) -> web.Response:
        if self.as_of is not None and call.method == "GET" and call.plural not in ("", *_NOT_STALE):
            return await self._past(call, self.as_of)
        headers = {key: request.headers[key] for key in ("Content-Type", "Accept") if key in request.headers}
        asked = self._session.request(call.method, call.path, params=call.query, data=text or None, headers=headers)
        async with asked as answer:
            call.code = answer.status
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def _past(self, call: Call, version: str) -> web.Response:
        """What the API server had at `version`; it keeps some minutes' worth, for lists alone."""
        _, name = _about(call.path)
        path = call.path.removesuffix(f"/{name}") if name else call.path
        only = {"fieldSelector": f"metadata.name={name}"} if name else {}
        query = {**call.query, **only, "resourceVersion": version, "resourceVersionMatch": "Exact"}
        async with self._session.get(path, params=query) as answer:
            tree = await answer.json()
        if not name or answer.status != 200:  # HTTP's OK
            return web.json_response(tree, status=answer.status)
        typed = {"apiVersion": tree["apiVersion"], "kind": tree["kind"].removesuffix("List")}
        found = [{**typed, **item} for item in tree["items"]]
        return web.json_response(found[0]) if found else web.json_response(_status(404), status=404)

    async def _watch(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        while self.as_of is not None:  # noqa: ASYNC110  # the test's thread ends it
            await asyncio.sleep(0.05)
        async with self._session.get(call.path, params=call.query) as answer:
            call.code = answer.status
            made = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await made.prepare(request)
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if answer.status != 200 or self._is_heard(line):  # HTTP's OK
                        await made.write(line + b"\n")
            await made.write(rest)
        return made

    def _is_heard(self, line: bytes) -> bool:
        tree = json.loads(line)
        return tree["type"] in ("BOOKMARK", "ERROR") or self.hears(tree["object"])

    def _cut_all(self) -> None:
        for request in list(self._open.values()):
            _cut(request)


@contextmanager
def proxied(upstream: Path) -> Iterator[Proxy]:
    """A proxy for the cluster and user of the kubeconfig `upstream`, while it runs."""
    proxy = Proxy(upstream)
    up = threading.Event()
    thread = threading.Thread(target=_run, args=(proxy._loop, proxy.run(up)), name="proxy")
    thread.start()
    try:
        assert up.wait(_WAIT_SECONDS), "the proxy does not start"
        yield proxy
    finally:
        proxy.stop()
        thread.join(timeout=_WAIT_SECONDS)
        assert not thread.is_alive(), "the proxy does not end"


def _run(loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(job)
    finally:
        loop.run_until_complete(_finish())
        loop.close()


async def _finish() -> None:
    """End what answered until now."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.sleep(0.05)  # for connections to close


def _cut(request: web.BaseRequest) -> web.Response:
    """Reset the connection; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _status(code: int) -> Plain:
    return {"kind": "Status", "code": code, "reason": "Fault", "message": "as the test wants it"}


def _about(path: str) -> tuple[str, str]:
    """Plural and name (or nothing) of an API path."""
    steps = path.strip("/").split("/")[2 if path.startswith("/api/") else 3 :]
    if steps[:1] == ["namespaces"] and len(steps) > 2:
        steps = steps[2:]
    return (steps[0] if steps else "", steps[1] if len(steps) > 1 else "")
