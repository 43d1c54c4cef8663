"""What happened during one call, counted as it happens."""

from dataclasses import dataclass, field

from embedfleet.answers import Answered
from embedfleet.errors import InputError, ModelChanged


@dataclass(slots=True)
class Tally:
    """The counts of one call; times are sums over its requests, in seconds."""

    expected: str | None = None
    """The fingerprint that all vectors must have; None: that of the first."""
    requests: int = 0
    """Requests that were needed and answered."""
    tries: int = 0
    """Requests sent, those that failed included; probes are none."""
    tokens: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    cached: int = 0
    """Texts whose vectors came from the cache."""
    repeated: int = 0
    """Texts that were computed once with an equal one."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered attempt, as the client saw them."""
    model: str | None = None
    fingerprint: str | None = None
    precisions: set[str] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)
    truncated: list[int] = field(default_factory=list)
    errors: dict[int, InputError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """What the caller's own thread is to warn of."""

    @property
    def retries(self) -> int:
        """Requests that were sent again."""
        return max(0, self.tries - self.requests)

    def answered(self, answer: Answered, seconds: float) -> None:
        """One request was answered after `seconds`; `ModelChanged` when it is another model's."""
        self.made_by(answer.fingerprint)
        self.requests += 1
        self.tokens += answer.tokens
        self.queue_seconds += answer.queue_seconds
        self.compute_seconds += answer.compute_seconds
        self.latencies.append(seconds)
        self.model = answer.model or self.model
        if answer.precision:
            self.precisions.add(answer.precision)
        if answer.pod:
            self.pods.add(answer.pod)

    def made_by(self, fingerprint: str | None) -> None:
        """Rows came from the model of this fingerprint; `ModelChanged` when others came from another."""
        before = self.fingerprint or self.expected
        if before and fingerprint and fingerprint != before:
            raise ModelChanged(
                f"the model changed during the call (fingerprint {before}, then {fingerprint}):"
                " its vectors cannot be compared; embed all texts again"
            )
        self.fingerprint = fingerprint or self.fingerprint
