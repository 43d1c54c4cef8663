"""The ways to a service that lead through the API server."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from embedfleet.kube.access import proxy_name
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.forward import PortForwardConnector
from embedfleet.kube.record import HTTP_PORT, ClusterRecord
from embedfleet.way import trusting

MOST_REQUESTS = 8
"""In flight through the API server: every user of the cluster shares it, and a batch of 64 texts fills a device."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """By the API server's service proxy, which takes `Authorization` for itself: the service's key goes elsewhere."""

    credentials: Credentials
    record: ClusterRecord
    api_key: str | None = None
    most_requests: int | None = MOST_REQUESTS

    @property
    def url(self) -> str:
        """See `Way`."""
        name = proxy_name(self.record.service, tls=self.record.tls)
        return f"{self.credentials.server.url}/api/v1/namespaces/{self.record.namespace}/services/{name}/proxy"

    @property
    def proxy(self) -> str | None:
        """See `Way`."""
        return self.credentials.server.proxy

    def connector(self) -> aiohttp.BaseConnector:
        """See `Way`."""
        return self.credentials.connector()

    async def headers(self) -> Mapping[str, str]:
        """See `Way`."""
        own = {"X-API-Key": self.api_key} if self.api_key else {}
        return {**await self.credentials.headers(), **own}

    async def renew(self) -> bool:
        """See `Way`."""
        if not await self.credentials.renew():
            return False
        await self.credentials.ready()
        return True


@dataclass(frozen=True, slots=True)
class Forwarded:
    """By port-forward to every ready pod."""

    credentials: Credentials
    record: ClusterRecord
    api_key: str | None = None
    ca: Path | None = None
    most_requests: int | None = MOST_REQUESTS
    proxy: str | None = None

    @property
    def url(self) -> str:
        """See `Way`; the host is what a certificate of the service names, and is not looked up."""
        scheme = "https" if self.record.tls else "http"
        return f"{scheme}://{self.record.service}.{self.record.namespace}.svc:{HTTP_PORT}"

    def connector(self) -> aiohttp.BaseConnector:
        """See `Way`."""
        record = self.record
        return PortForwardConnector(self.credentials, record.namespace, record.service, self._tls())

    async def headers(self) -> Mapping[str, str]:
        """See `Way`."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    async def renew(self) -> bool:
        """See `Way`: the connector does it, where the API server is asked."""
        return False

    def _tls(self) -> ssl.SSLContext | None:
        if not self.record.tls:
            return None
        if self.ca is not None:
            return trusting(self.ca)
        # Without a CA the pod is trusted as the API server's own proxy trusts it: the tunnel to it is the cluster's.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
