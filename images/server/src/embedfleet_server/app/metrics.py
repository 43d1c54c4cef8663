"""What Prometheus scrapes, in a registry of our own. Labels are bounded: codes of the table, models of the manifest."""

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedfleet_server.app.errors import CODES
from embedfleet_server.app.guards import Guards
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.observer import BatchRecord, Observer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SIZES = tuple(2**power for power in range(13))  # up to 4096, the largest maxBatchSize
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics(Observer):
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
        self._tokenize = _histogram(registry, "embedfleet_tokenize_seconds", "Tokenising of a request", _SECONDS)
        self._answered = _histogram(registry, "embedfleet_request_seconds", "Answered requests, in all", _SECONDS)
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

    def tokenized(self, model: str, seconds: float) -> None:
        """The inputs of a request were tokenised."""
        self._tokenize.labels(model).observe(seconds)

    def answered(self, model: str, seconds: float) -> None:
        """A request was answered with vectors."""
        self._answered.labels(model).observe(seconds)

    def watch(self, engine: Engine, guards: Guards) -> None:
        """From now on the text tells of `engine`'s queues and models too, and of wrong files of the guards."""
        self._registry.register(_EngineCollector(engine))
        self._registry.register(_GuardsCollector(guards))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Figures read from the engine when asked for, so that they cannot drift from what it counts itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        names = [model.name for model in engine.models()]
        ready = {model.name: float(model.state == "Ready") for model in engine.models()}
        yield _gauge("embedfleet_model_ready", "1 once the model is loaded", ready)
        yield _gauge("embedfleet_queue_inputs", "Inputs that wait", {name: engine.queue_depth(name) for name in names})
        tokens = {name: engine.queued_tokens(name) for name in names}
        yield _gauge("embedfleet_queue_tokens", "Tokens of the inputs that wait", tokens)
        waiting = {name: engine.ages(name)[0] for name in names}
        yield _gauge("embedfleet_queue_oldest_seconds", "For how long the oldest input waits", waiting)
        expected = {name: engine.wait(name) for name in names}
        yield _gauge("embedfleet_expected_wait_seconds", "Wait that new work would hardly go beyond", expected)
        running = {name: engine.ages(name)[1] for name in names}
        yield _gauge("embedfleet_batch_oldest_seconds", "For how long the oldest batch runs", running)
        failing = {name: float(engine.is_failing(name)) for name in names}
        yield _gauge("embedfleet_model_failing", "1 while the model is refused because its batches fail", failing)
        sizes = {name: engine.batch_size(name) for name in names}
        yield _gauge("embedfleet_batch_size_limit", "Most inputs in the next batch, as set or learnt", sizes)
        yield GaugeMetricFamily("embedfleet_active_batches", "Batches under way", value=engine.stats().active_batches)
        yield from self._devices()
        yield from self._warm_up(names)
        yield from self._shared()

    def _devices(self) -> Iterator[Metric]:
        batches = GaugeMetricFamily("embedfleet_device_batches", "Batches that the device has", labels=["device"])
        busy = CounterMetricFamily("embedfleet_device_busy_seconds", "Seconds of batches that ended", labels=["device"])
        failing = GaugeMetricFamily("embedfleet_device_failing_models", "Models that fail there", labels=["device"])
        for name, figures in self._engine.devices().items():
            batches.add_metric([name], figures.batches)
            busy.add_metric([name], figures.busy_seconds)
            failing.add_metric([name], len(figures.failing))
        yield from (batches, busy, failing)

    def _warm_up(self, names: Sequence[str]) -> Iterator[Metric]:
        """Of those models that were measured before they were ready."""
        found = {name: costs for name in names if (costs := self._engine.warm_up(name)) is not None}
        speeds = GaugeMetricFamily(
            "embedfleet_warm_up_tokens_per_second",
            "Speed before traffic, by tokens of a text",
            labels=["model", "length"],
        )
        for name, costs in found.items():
            for length, speed in costs.tokens_per_second.items():
                speeds.add_metric([name, str(length)], speed)
        yield speeds
        starts = {name: costs.start_seconds for name, costs in found.items() if costs.start_seconds is not None}
        yield _gauge("embedfleet_warm_up_start_seconds", "What a forward takes however few its tokens", starts)
        seconds = {name: costs.seconds for name, costs in found.items()}
        yield _gauge("embedfleet_warm_up_seconds", "Forwards that measured the model before it was ready", seconds)
        safe = {name: tokens for name in names if (tokens := self._engine.safe_tokens(name)) is not None}
        yield _gauge("embedfleet_safe_batch_tokens", "Most tokens in a batch by the device's memory", safe)

    def _shared(self) -> Iterator[Metric]:
        shared = self._engine.shared()
        yield CounterMetricFamily("embedfleet_joined_inputs", "Inputs that joined others alike", value=shared["joined"])
        yield CounterMetricFamily("embedfleet_cache_hits", "Inputs found in the cache", value=shared["cache_hits"])
        yield CounterMetricFamily("embedfleet_cache_misses", "Inputs not found", value=shared["cache_misses"])
        yield GaugeMetricFamily("embedfleet_cache_bytes", "Size of the cache", value=shared["cache_bytes"])


class _GuardsCollector(Collector):
    """Wrong files of keys and certificate, of the kinds there are."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    def collect(self) -> Iterator[Metric]:
        made = CounterMetricFamily("embedfleet_rejected_files", "Mistakes in files of keys or TLS", labels=["kind"])
        for kind, count in self._guards.rejected().items():
            made.add_metric([kind], count)
        yield made


def _gauge(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """One value for each model."""
    made = GaugeMetricFamily(name, text, labels=["model"])
    for model, value in values.items():
        made.add_metric([model], value)
    return made


def _histogram(registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, ["model"], buckets=buckets, registry=registry)
