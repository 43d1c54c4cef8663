"""An API server that keeps Kubernetes' protocol as far as the SDK uses it, and misbehaves on request.

It runs on a real socket in a thread of its own. Its service proxy and its port-forward lead to a `FakeServer`.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from tests.support.fake_server import FakeServer

Plain = dict[str, Any]
Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
GROUP = "embedfleet.dev"


@dataclass
class FakeApiServer:
    """What it has, whom it knows and what it lets them do; what it saw."""

    objects: list[Plain] = field(default_factory=list)
    """EmbeddingServices."""
    pods: list[Plain] = field(default_factory=list)
    tokens: set[str] | None = None
    """Those it takes; None: it asks for none."""
    denied: set[str] = field(default_factory=set)
    """What nobody may do: `list embeddingservices`, `create services/proxy`, `list embeddingservices everywhere`."""
    versions: tuple[str, ...] = ("v1alpha1",)
    """Of the group; none: there is no CRD."""
    backend: FakeServer | None = None
    proxy_fault: Fault | None = None
    fault: Fault | None = None
    """Instead of any answer."""
    url: str = ""
    paths: list[str] = field(default_factory=list)
    proxied: list[dict[str, str]] = field(default_factory=list)
    """Headers of what came through the proxy, as the server behind it gets them."""
    tunnels: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        self.paths.append(f"{request.method} {request.path}")
        if self.fault is not None:
            return await self.fault(request)
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and given not in self.tokens:
            return status(401, "Unauthorized")
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["apis", GROUP]:
            return await self._of_group(request, parts[2:])
        if "selfsubjectaccessreviews" in parts:
            return await self._review(request)
        if "proxy" in parts:
            return await self._proxy(request)
        if parts[-1] == "portforward":
            return await self._forward(request)
        if parts[-1] == "pods":
            return self._denied("list pods") or web.json_response({"kind": "PodList", "items": self.pods})
        return status(404, "the server could not find the requested resource")

    async def _of_group(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        if not self.versions:
            return status(404, "the server could not find the requested resource")
        if not parts:
            versions = [{"groupVersion": f"{GROUP}/{version}"} for version in self.versions]
            return web.json_response({"kind": "APIGroup", "versions": versions})
        if parts[0] not in self.versions:
            return status(404, "the server could not find the requested resource")
        namespace = parts[2] if parts[1] == "namespaces" else None
        refused = self._denied("list embeddingservices") or (
            self._denied("list embeddingservices everywhere") if namespace is None else None
        )
        found = [one for one in self.objects if namespace in (None, one["metadata"]["namespace"])]
        return refused or web.json_response({"kind": "EmbeddingServiceList", "items": found})

    async def _review(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["spec"]["resourceAttributes"]
        whole = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        allowed = f"{asked['verb']} {whole}" not in self.denied
        return web.json_response({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}})

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        """As the real one: what authorises at the API server does not go on to the server behind it."""
        if self.proxy_fault is not None:
            return await self.proxy_fault(request)
        if self.backend is None:
            return status(503, 'no endpoints available for service "semantic"')
        headers = {key: value for key, value in request.headers.items() if key not in ("Authorization", "Host")}
        self.proxied.append(headers)
        rest = request.path.partition("/proxy/")[2]
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, f"{self.backend.url}/{rest}", data=await request.read(), headers=headers
            ) as answer,
        ):
            kept = {key: value for key, value in answer.headers.items() if key.startswith(("X-", "Content-Type"))}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        """One connection: data on channel 0, errors on 1, on each the port first."""
        assert self.backend is not None
        self.tunnels += 1
        port = int(request.query["ports"]).to_bytes(2, "little")
        tunnel = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await tunnel.prepare(request)
        await tunnel.send_bytes(b"\0" + port)
        await tunnel.send_bytes(b"\1" + port)
        address = urlsplit(self.backend.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        back = asyncio.create_task(_back(reader, tunnel))
        async for message in tunnel:
            writer.write(message.data[1:])
        back.cancel()
        writer.close()
        return tunnel

    def _denied(self, what: str) -> web.Response | None:
        if what not in self.denied:
            return None
        return status(403, f'{GROUP} is forbidden: User "eve" cannot {what}')


async def _back(reader: asyncio.StreamReader, tunnel: web.WebSocketResponse) -> None:
    while piece := await reader.read(7):  # small and odd, so that nothing may rely on how bytes are cut
        await tunnel.send_bytes(b"\0" + piece)
    await tunnel.close()


def status(code: int, message: str) -> web.Response:
    """An error of Kubernetes."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code)


def service(namespace: str, name: str, *models: str, **status_: Any) -> Plain:
    """An EmbeddingService as the API server hands it out."""
    given = [{"name": one, "source": {"path": "/m"}} for one in models or (name,)]
    metadata = {"name": name, "namespace": namespace, "generation": 1}
    return {"metadata": metadata, "spec": {"models": given, "replicas": 1}, "status": status_}


def ready_pod(name: str) -> Plain:
    """A pod that takes requests."""
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def kubeconfig(path: Path, url: str, *, namespace: str = "default", **user: Any) -> Path:
    """A kubeconfig of one context `lab`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
    }
    path.write_text(json.dumps(config))
    return path


@contextmanager
def serving(fake: FakeApiServer) -> Iterator[FakeApiServer]:
    """The server on a free port for as long as the block lasts."""
    started, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{rest:.*}", fake.answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        fake.url = f"http://{host}:{port}"
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
