"""What Prometheus scrapes, in a registry of our own. Labels are bounded: codes of the table, models of the manifest."""

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedfleet_server.app.errors import CODES
from embedfleet_server.engine.dispatcher import BatchRecord
from embedfleet_server.engine.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SIZES = tuple(2**power for power in range(13))  # up to 4096, the largest maxBatchSize
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of requests and batches; `watch` adds the engine's own figures."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.codes: Tally[str] = Tally()
        self._requests = Counter("embedfleet_requests", "Requests to the public port", ["code"], registry=registry)
        self._inputs = Counter("embedfleet_inputs", "Inputs embedded", ["model"], registry=registry)
        self._tokens = Counter("embedfleet_tokens", "Tokens of the inputs embedded", ["model"], registry=registry)
        self._computed = Counter(
            "embedfleet_computed_tokens", "Tokens computed, padding included", ["model"], registry=registry
        )
        self._failed = Counter("embedfleet_failed_rows", "Inputs without a vector", ["model"], registry=registry)
        self._size = _histogram(registry, "embedfleet_batch_size", "Inputs of a batch", _SIZES)
        self._queue = _histogram(registry, "embedfleet_queue_seconds", "Longest wait of a batch's inputs", _SECONDS)
        self._compute = _histogram(registry, "embedfleet_compute_seconds", "Forward of a batch", _SECONDS)
        for code in CODES:
            self._requests.labels(code)

    def request(self, code: str) -> None:
        """A request of the public port ended with `code` of the error table, or ok."""
        self.codes[code] += 1
        self._requests.labels(code).inc()

    def batch(self, record: BatchRecord) -> None:
        """A batch ended."""
        model = record.model
        self._inputs.labels(model).inc(record.size - record.failed)
        self._tokens.labels(model).inc(record.own_tokens)
        self._computed.labels(model).inc(record.tokens)
        self._failed.labels(model).inc(record.failed)
        self._size.labels(model).observe(record.size)
        self._queue.labels(model).observe(record.queue_seconds)
        if record.compute_seconds is not None:
            self._compute.labels(model).observe(record.compute_seconds)

    def watch(self, engine: Engine) -> None:
        """From now on the text tells of `engine`'s queues and models too."""
        self._registry.register(_EngineCollector(engine))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Figures read from the engine when asked for, so that they cannot drift from what it counts itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine, stats = self._engine, self._engine.stats()
        queue = GaugeMetricFamily("embedfleet_queue_inputs", "Inputs that wait", labels=["model"])
        ready = GaugeMetricFamily("embedfleet_model_ready", "1 once the model is loaded", labels=["model"])
        for model in engine.models():
            queue.add_metric([model.name], engine.queue_depth(model.name))
            ready.add_metric([model.name], float(model.state == "Ready"))
        yield queue
        yield ready
        yield GaugeMetricFamily("embedfleet_active_batches", "Batches under way", value=stats.active_batches)


def _histogram(registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, ["model"], buckets=buckets, registry=registry)
