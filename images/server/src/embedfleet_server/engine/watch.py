"""Looks at the engine and keeps what is wrong: the snapshot that `health` judges, and the memory pressure that follows.

`look` is called every so often by whoever owns the process, and on demand by `/state`; it never waits.
"""

from collections.abc import Callable, Iterable, Mapping

from embedfleet.api import Batching
from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.pressure import Reading, Thresholds
from embedfleet_server.engine.health import Change, Finding, Findings, HealthConfig, ModelView, Snapshot, look

Readings = Callable[[], Mapping[str, Reading]]
"""How full each place's memory is, now; places by name."""


class Watch:
    """What is wrong with one engine, from one look to the next."""

    def __init__(self, core: BatchingCore, models: Iterable[str], readings: Readings) -> None:
        self._core, self._models, self._readings = core, tuple(models), readings
        self._findings = Findings()
        self._last_success: dict[str, float] = {}
        self._before: tuple[float, int] | None = None

    def succeeded(self, model: str, now: float) -> None:
        """A batch of `model` gave vectors."""
        self._last_success[model] = now

    def look(self, now: float, batching: Batching) -> list[Change]:
        """Judge the engine as it is; returns what changed since the last look."""
        config = config_of(batching)
        pressure = self._core.pressure
        pressure.thresholds = thresholds_of(batching)
        level = pressure.read(self._readings())
        views = {name: self._view(name) for name in self._models}
        snapshot = Snapshot(now, views, self._growth(now), level, pressure.message())
        return self._findings.update(look(snapshot, config))

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, the worst first."""
        return self._findings.on

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind of finding appeared."""
        return {str(code): count for code, count in self._findings.counts.items()}

    def refuses_low(self, model: str) -> bool:
        """Whether LOW work for `model` is refused for the time being."""
        return self._findings.refuses_low(model)

    def _view(self, name: str) -> ModelView:
        return ModelView(
            queue_depth=self._core.queue_depth(name),
            oldest_waiting=self._core.oldest_waiting(name),
            oldest_running=self._core.oldest_running(name),
            running_since=self._core.running_since(name),
            last_success=self._last_success.get(name),
            paused=self._core.is_paused(name),
        )

    def _growth(self, now: float) -> float:
        """Inputs a second by which the queues grew since the last look."""
        depth = self._core.total_queue_depth
        before, self._before = self._before, (now, depth)
        if before is None or now <= before[0]:
            return 0.0
        return (depth - before[1]) / (now - before[0])


def config_of(batching: Batching) -> HealthConfig:
    """The thresholds from the contract's; a batch is stuck once no caller waits for it any more."""
    health = batching.health
    return HealthConfig(
        interval=float(health.interval_seconds),
        queue_warning=health.queue_warning,
        queue_critical=health.queue_critical,
        stuck_seconds=float(batching.item_timeout_seconds),
        silent_seconds=2.0 * batching.item_timeout_seconds,
    )


def thresholds_of(batching: Batching) -> Thresholds:
    """The memory thresholds from the contract's percentages."""
    health = batching.health
    return Thresholds(health.memory_warning_percent / 100, health.memory_critical_percent / 100)
