"""Whether and where requests are traced: the decision alone."""

from collections.abc import Mapping

import pytest

from embedfleet.api.tracing import Tracing
from embedfleet_server.app.spans import Plan, plan

pytestmark = pytest.mark.requirement("S1")
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}


@pytest.mark.parametrize(
    ("asked", "environ", "expected"),
    [
        (None, {}, None),
        (None, {"OTEL_SERVICE_NAME": "x"}, None),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        (None, COLLECTOR, Plan()),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, Plan()),
        (Tracing(), {}, Plan(is_asked=True)),
        (Tracing(), COLLECTOR, Plan(is_asked=True)),
        (Tracing(sampling_rate_per_million=5), {}, Plan(None, 5, is_asked=True)),
        (Tracing(endpoint="http://c:4318"), {}, Plan("http://c:4318/v1/traces", is_asked=True)),
        (Tracing(endpoint="http://c:4318/"), COLLECTOR, Plan("http://c:4318/v1/traces", is_asked=True)),
        (Tracing(endpoint="https://c/otlp"), {}, Plan("https://c/otlp/v1/traces", is_asked=True)),
        (Tracing(endpoint="https://c/v1/traces"), {}, Plan("https://c/v1/traces", is_asked=True)),
        (Tracing(), {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (None, COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (None, COLLECTOR | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, Plan()),
    ],
)
def test_the_manifest_decides_then_the_environment(
    asked: Tracing | None, environ: Mapping[str, str], expected: Plan | None
) -> None:
    """What the manifest names wins; OpenTelemetry's own switches switch off either."""
    assert plan(asked, environ) == expected


@pytest.mark.parametrize(
    ("endpoint", "port"), [(None, 4318), ("http://c:4319", 4319), ("http://c", 80), ("https://c/otlp", 443)]
)
def test_the_port_that_a_network_policy_opens(endpoint: str | None, port: int) -> None:
    """The one named, else the scheme's; where the environment names the collector, OTLP's own."""
    assert Tracing(endpoint=endpoint).port == port
