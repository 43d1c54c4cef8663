"""Port-forward over WebSockets: TCP connections into pods, through the API server.

A connection is one WebSocket (`v4.channel.k8s.io`): messages begin with the number of a channel, 0 for data, 1 for
errors, and the first on each repeats the port. Kubernetes: kubelet's `portforward` of its streaming server. It is
bridged to a socket pair, so that nothing on this machine listens and TLS to the pod works as on any socket.
"""

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from embedfleet.errors import ClusterError
from embedfleet.kube.api import CONNECT_SECONDS, ApiServer
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.record import HTTP_PORT, PORT_NAME, SERVICE_LABEL
from embedfleet.sockets import IDLE_SECONDS

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_HEAD_BYTES = 2
_PIECE_BYTES = 32_768
_PODS_SECONDS = 10.0
"""Ready pods are asked for anew after so long, so that new ones get their share, and whenever a connection ended."""


@dataclass(frozen=True, slots=True)
class PodPort:
    """A pod that takes requests, and at which port."""

    pod: str
    port: int


def ready_pods(pods: Sequence[Mapping[str, Any]]) -> list[PodPort]:
    """Those of `pods` that are ready and stay."""
    return [PodPort(str(pod["metadata"]["name"]), _port(pod)) for pod in pods if _is_ready(pod)]


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    leaving = "deletionTimestamp" in pod["metadata"]
    return not leaving and any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _port(pod: Mapping[str, Any]) -> int:
    ports = [port for one in (pod.get("spec") or {}).get("containers") or () for port in one.get("ports") or ()]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == PORT_NAME), HTTP_PORT)


class PortForwardConnector(aiohttp.BaseConnector):
    """Connections to the ready pods of a service, in turn, whatever host an address names."""

    def __init__(self, credentials: Credentials, namespace: str, service: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._credentials, self._namespace, self._service, self._tls = credentials, namespace, service, tls
        self._session: aiohttp.ClientSession | None = None
        self._pods: list[PodPort] = []
        self._asked_at: float | None = None
        self._turn = itertools.count()
        self._bridges: set[asyncio.Task[None]] = set()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # the base class's own
    ) -> ResponseHandler:
        try:
            async with asyncio.timeout(timeout.sock_connect):
                tunnel = await self._tunnel()
            return await self._bridged(tunnel, req.url.host or self._service)
        except (aiohttp.ClientError, ClusterError, OSError) as error:
            self._asked_at = None
            raise aiohttp.ClientConnectionError(f"port-forward: {error}") from error

    def close(self, *, abort_ssl: bool = False) -> Any:
        """Close all connections and the way to the API server; to be awaited."""
        ended = super().close(abort_ssl=abort_ssl)
        return asyncio.ensure_future(self._end(ended))

    def abandon(self) -> None:
        """See `way.Abandonable`."""
        if self._session is None:
            return
        below = self._session.connector
        self._session.detach()
        if below is not None:
            below._closed = True

    async def _end(self, ended: Any) -> None:
        await ended
        for bridge in self._bridges:
            bridge.cancel()
        await asyncio.gather(*self._bridges, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _tunnel(self) -> aiohttp.ClientWebSocketResponse:
        target = await self._next_pod()
        try:
            return await self._opened(target)
        except aiohttp.WSServerHandshakeError as error:
            if error.status != 401 or not await self._credentials.renew():
                raise
            return await self._opened(target)

    async def _opened(self, target: PodPort) -> aiohttp.ClientWebSocketResponse:
        headers = await self._credentials.headers()
        if self._session is None:
            proxy = self._credentials.server.proxy
            self._session = aiohttp.ClientSession(connector=self._credentials.connector(), proxy=proxy)
        path = f"/api/v1/namespaces/{self._namespace}/pods/{target.pod}/portforward"
        url = f"{self._credentials.server.url}{path}?ports={target.port}"
        return await self._session.ws_connect(url, protocols=[PROTOCOL], headers=headers, max_msg_size=0)

    async def _next_pod(self) -> PodPort:
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at > _PODS_SECONDS:
            self._pods, self._asked_at = await self._ask_for_pods(), now
        if not self._pods:
            self._asked_at = None
            raise aiohttp.ClientConnectionError(f"no pod of {self._namespace}/{self._service} is ready")
        return self._pods[next(self._turn) % len(self._pods)]

    async def _ask_for_pods(self) -> list[PodPort]:
        path, selector = f"/api/v1/namespaces/{self._namespace}/pods", f"{SERVICE_LABEL}={self._service}"
        async with ApiServer(self._credentials, CONNECT_SECONDS) as api:
            return ready_pods((await api.get(path, labelSelector=selector)).get("items") or ())

    async def _bridged(self, tunnel: aiohttp.ClientWebSocketResponse, host: str) -> ResponseHandler:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        bridge = asyncio.create_task(self._carry(tunnel, reader, writer))
        self._bridges.add(bridge)
        bridge.add_done_callback(self._ended)
        bridge.add_done_callback(lambda _: writer.close())  # one that is cancelled before its first step never does
        host_name = None if self._tls is None else host
        _, protocol = await self._loop.create_connection(
            self._factory, sock=theirs, ssl=self._tls, server_hostname=host_name
        )
        return protocol

    def _ended(self, bridge: asyncio.Task[None]) -> None:
        self._bridges.discard(bridge)
        self._asked_at = None  # its pod may be gone

    async def _carry(
        self, tunnel: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Both directions until either end is closed, which closes the other."""
        ways = [asyncio.create_task(_into(tunnel, reader)), asyncio.create_task(_out_of(tunnel, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()  # before anything is waited for: a second cancel ends the waiting
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with suppress(aiohttp.ClientError, OSError):
                await tunnel.close()


async def _into(tunnel: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        await tunnel.send_bytes(bytes([_DATA]) + piece)


async def _out_of(tunnel: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """What comes, until the end or an error of the pod's side; the two bytes of the port before it are dropped."""
    dropped = {_DATA: 0, _ERROR: 0}
    async for message in tunnel:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, content = message.data[0], message.data[1:]
        if channel not in dropped:
            continue
        head = min(len(content), _HEAD_BYTES - dropped[channel])
        dropped[channel] += head
        if channel == _ERROR and content[head:]:
            return
        writer.write(content[head:])
        await writer.drain()
