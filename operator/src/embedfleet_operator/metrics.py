"""What the operator tells Prometheus of itself, on `/metrics` beside `/live`; docs/operations.md lists it."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedfleet_operator.observed import plain

PREFIX = "embedfleet_operator"
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: a pass that reads takes some 0.02, one that waits for a silent pod 2, one for an admission webhook 30."""
_OF_CONDITION = ["condition", "status"]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is asked at each scrape."""

    queue_depth: Callable[[], float]
    is_leader: Callable[[], bool]
    event_age_seconds: Callable[[], float]
    owed_seconds: Callable[[], float]


class Metrics(Collector):
    """The operator's counts, and the gauges that it is given to read at each scrape."""

    def __init__(self) -> None:
        self._conditions: dict[str, tuple[tuple[str, str], ...]] = {}
        self.registry = registry = CollectorRegistry()
        self._passes = Histogram(
            f"{PREFIX}_reconcile_seconds", "Passes on services", ["outcome"], buckets=_BUCKETS, registry=registry
        )
        self._requests = Counter(
            f"{PREFIX}_api_requests", "Requests to the API server", ["verb", "resource", "code"], registry=registry
        )
        ProcessCollector(registry=registry)

    def watch(self, gauges: Gauges) -> None:
        """Read `gauges` from now on."""
        self._gauges = gauges
        self.registry.register(self)

    def passed(self, outcome: str, seconds: float) -> None:
        """A pass on a service has ended."""
        self._passes.labels(outcome).observe(seconds)

    def asked(self, verb: str, resource: str, code: str) -> None:
        """The API server was asked for something and answered with `code`."""
        self._requests.labels(verb, resource, code).inc()

    def told(self, service: Mapping[str, Any], *, gone: bool = False) -> None:
        """The watch told of an EmbeddingService."""
        self._conditions[plain.text(service, "metadata", "uid") or ""] = _conditions(service)
        if gone:
            del self._conditions[plain.text(service, "metadata", "uid") or ""]

    def read(self, services: Iterable[Mapping[str, Any]]) -> None:
        """A resync read all EmbeddingServices, and there are no others."""
        self._conditions = {plain.text(one, "metadata", "uid") or "": _conditions(one) for one in services}

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What is not counted as it happens."""
        now = self._gauges
        yield _gauge("queue_depth", "Services that wait for a pass or are in one", now.queue_depth())
        yield _gauge("leader", "1 while this replica holds the Lease", now.is_leader())
        yield _gauge("watch_event_age_seconds", "Since the watch last told of anything", now.event_age_seconds())
        yield _gauge("watch_owed_seconds", "For how long the watch has owed what a resync has read", now.owed_seconds())
        yield _gauge("services", "EmbeddingServices there are", len(self._conditions))
        family = GaugeMetricFamily(
            f"{PREFIX}_services_by_condition", "EmbeddingServices with that condition", labels=_OF_CONDITION
        )
        for key, count in sorted(Tally(one for found in self._conditions.values() for one in found).items()):
            family.add_metric(key, count)
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _conditions(service: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = plain.entries(service, "status", "conditions")
    return tuple((plain.text(one, "type") or "", plain.text(one, "status") or "") for one in found)
