"""`spec.tracing`: traces of requests, sent by OpenTelemetry's protocol over HTTP."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from embedfleet.api.base import ContractModel, Rule

OTLP_HTTP_PORT = 4318
"""Where collectors take OTLP over HTTP (OpenTelemetry Protocol Exporter, specification)."""
_PORTS = {"https": 443, "http": 80}


class Tracing(ContractModel):
    """Spans of requests and batches, for a collector that takes OTLP over HTTP."""

    endpoint: (
        Annotated[str, Field(pattern=r"^https?://[-A-Za-z0-9.]+(:[0-9]{1,5})?(/[-A-Za-z0-9._~/]*)?$", max_length=512)]
        | None
    ) = None
    """The collector, such as `http://collector.observability:4318`; `/v1/traces` is put behind it.
    Unset: what `OTEL_EXPORTER_OTLP_ENDPOINT` of the container says, else a sidecar at port 4318."""
    sampling_rate_per_million: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Of a million requests that come without a decision, so many are traced; a caller's own decision holds.
    Unset: as `OTEL_TRACES_SAMPLER` of the container says, else all."""

    cel_rules = (
        Rule(
            "!has(self.endpoint) || !self.endpoint.matches('^https?://[^/]+:[0-9]') ||"
            " (int(url(self.endpoint).getPort()) > 0 && int(url(self.endpoint).getPort()) < 65536)",
            "the port of endpoint must be from 1 to 65535",
            lambda self: self.get("endpoint") is None or 0 < _port(self["endpoint"]) < 65536,
        ),
    )

    @property
    def port(self) -> int:
        """The collector's port."""
        return OTLP_HTTP_PORT if self.endpoint is None else _port(self.endpoint)


def _port(endpoint: str) -> int:
    """The port of an address, its scheme's where it names none; 65536 for one that no port can be."""
    parts = urlsplit(endpoint)
    try:
        return _PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        return 65_536
