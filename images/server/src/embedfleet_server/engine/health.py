"""What is wrong, from one look at the service: a snapshot in, findings out; and which of them are new.

Pure: the caller takes the snapshot, every so often and on demand, and logs and counts the changes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from embedfleet_server.batching.pressure import Level


class Severity(IntEnum):
    """How bad it is; at critical, LOW work is refused."""

    WARNING = 1
    CRITICAL = 2


class Code(StrEnum):
    """What a finding is about."""

    QUEUE = "queue"
    QUEUE_GROWS = "queue_grows"
    MEMORY = "memory"
    STUCK_BATCH = "stuck_batch"
    NO_SUCCESS = "no_success"


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The thresholds."""

    interval: float = 30.0
    """Seconds from one look to the next."""
    queue_warning: int = 500
    queue_critical: int = 800
    """Inputs waiting over all models; 1000 is the default bound, at which all is refused."""
    stuck_seconds: float = 30.0
    """Age at which a running batch is stuck: by default no caller waits longer (`itemTimeoutSeconds`)."""
    silent_seconds: float = 60.0
    """Without a success for so long while work waits: longer than any answer that a caller still waits for."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model at the time of the snapshot; times are the driver's, None where there is none."""

    queue_depth: int = 0
    oldest_waiting: float | None = None
    oldest_running: float | None = None
    running_since: Mapping[str, float] = field(default_factory=dict)
    """The same for each device that runs a batch of it."""
    last_success: float | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The service at one instant. `growth`: inputs a second by which the queues grew since the last look."""

    now: float
    models: Mapping[str, ModelView] = field(default_factory=dict)
    growth: float = 0.0
    memory: Level = Level.NORMAL
    memory_message: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong; `model` is None where it concerns the service."""

    code: Code
    severity: Severity
    model: str | None
    message: str


def look(snapshot: Snapshot, config: HealthConfig) -> list[Finding]:
    """Everything that is wrong at this instant."""
    found = [*_queue(snapshot, config), *_memory(snapshot)]
    for name, view in snapshot.models.items():
        found += [*_stuck(name, view, snapshot.now, config), *_silent(name, view, snapshot.now, config)]
    return found


def _queue(snapshot: Snapshot, config: HealthConfig) -> Iterator[Finding]:
    depth = sum(view.queue_depth for view in snapshot.models.values())
    expected = depth + snapshot.growth * config.interval
    if depth >= config.queue_warning:
        critical = depth >= config.queue_critical
        threshold = config.queue_critical if critical else config.queue_warning
        longest = max(snapshot.models, key=lambda name: snapshot.models[name].queue_depth)
        most = f"{snapshot.models[longest].queue_depth} of them for {longest!r}"
        message = f"{depth} inputs wait, {most}; the threshold is {threshold}"
        yield Finding(Code.QUEUE, Severity.CRITICAL if critical else Severity.WARNING, None, message)
    if depth < config.queue_critical <= expected:
        message = f"{depth} inputs wait, {snapshot.growth:.1f} more each second; {config.queue_critical} is critical"
        yield Finding(Code.QUEUE_GROWS, Severity.WARNING, None, message)


def _memory(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.memory is not Level.NORMAL:
        severity = Severity.CRITICAL if snapshot.memory is Level.CRITICAL else Severity.WARNING
        yield Finding(Code.MEMORY, severity, None, snapshot.memory_message)


def _stuck(name: str, view: ModelView, now: float, config: HealthConfig) -> Iterator[Finding]:
    if view.oldest_running is not None and (age := now - view.oldest_running) > config.stuck_seconds:
        devices = [device for device, since in view.running_since.items() if now - since > config.stuck_seconds]
        where = f" on {', '.join(devices)}" if devices else ""
        message = f"a batch of {name!r} runs for {age:.0f} s{where}; {config.stuck_seconds:.0f} s is the limit"
        yield Finding(Code.STUCK_BATCH, Severity.CRITICAL, name, message)


def _silent(name: str, view: ModelView, now: float, config: HealthConfig) -> Iterator[Finding]:
    """Work waits and none succeeds; a model with nothing to do, or paused, may be silent."""
    if view.paused or view.oldest_waiting is None or now - view.oldest_waiting <= config.silent_seconds:
        return
    silent = now - view.last_success if view.last_success is not None else None
    if silent is None or silent > config.silent_seconds:
        last = f"last success {silent:.0f} s ago" if silent is not None else "no success yet"
        waits = f"{view.queue_depth} inputs wait, the oldest for {now - view.oldest_waiting:.0f} s"
        yield Finding(Code.NO_SUCCESS, Severity.WARNING, name, f"{name!r}: {last}; {waits}")


class Transition(Enum):
    """How a finding changed."""

    APPEARED = "appeared"
    ESCALATED = "escalated"
    EASED = "eased"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Change:
    """One change to be logged and counted. A cleared finding is told as it last was."""

    transition: Transition
    finding: Finding


@dataclass(slots=True)
class Findings:
    """What is wrong now, from one look to the next, and how often each code appeared."""

    _on: dict[tuple[Code, str | None], Finding] = field(default_factory=dict)
    counts: Counter[Code] = field(default_factory=Counter)

    def update(self, found: Iterable[Finding]) -> list[Change]:
        """Take in one look. Each change is told once; new numbers alone are none."""
        before, self._on = self._on, {(finding.code, finding.model): finding for finding in found}
        changes = [Change(t, f) for key, f in self._on.items() if (t := _transition(before.get(key), f)) is not None]
        cleared = [Change(Transition.CLEARED, f) for key, f in before.items() if key not in self._on]
        self.counts.update(change.finding.code for change in changes if change.transition is Transition.APPEARED)
        return changes + cleared

    @property
    def on(self) -> list[Finding]:
        """What is wrong, the worst first."""
        return sorted(self._on.values(), key=lambda f: (-f.severity, f.code, f.model or ""))

    def refuses_low(self, model: str) -> bool:
        """Whether LOW work for a model is refused: something is critical with it or with the service."""
        return any(f.severity is Severity.CRITICAL and f.model in (None, model) for f in self._on.values())


def _transition(before: Finding | None, now: Finding) -> Transition | None:
    if before is None:
        return Transition.APPEARED
    if before.severity == now.severity:
        return None
    return Transition.ESCALATED if now.severity > before.severity else Transition.EASED
