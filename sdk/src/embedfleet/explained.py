"""Which way leads to a service and why no other: what was tried, in order."""

from dataclasses import dataclass, field

from embedfleet.errors import EmbedfleetError
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.record import ClusterRecord
from embedfleet.way import Way
from embedfleet.wire import ModelCard


@dataclass(frozen=True, slots=True)
class Reached:
    """A way whose server has answered and is the one meant."""

    way: Way
    model: str | None
    cards: tuple[ModelCard, ...]
    record: ClusterRecord | None = None
    credentials: Credentials | None = None
    """Of the cluster, where its API server was asked."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One route and what came of it: reached, failed with `error`, or passed over where neither is set."""

    route: str
    words: str
    remedy: str = ""
    error: EmbedfleetError | None = None
    reached: Reached | None = field(default=None, repr=False)
    met: bool = False
    """Whether there was an address to speak to, or a service that the way would have led to."""

    @property
    def outcome(self) -> str:
        """`ok`, `failed` or `skipped`."""
        if self.reached is not None:
            return "ok"
        return "failed" if self.error is not None else "skipped"

    def __str__(self) -> str:
        return f"{self.route}: {self.words}"


@dataclass(frozen=True, slots=True)
class Journey:
    """All routes tried for one name, in order; the last is the one taken when any was reached."""

    tried: tuple[Tried, ...] = ()

    @property
    def taken(self) -> Tried | None:
        """The route in use."""
        return next((one for one in self.tried if one.reached is not None), None)

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """What the server told of its models when it was reached."""
        return self.taken.reached.cards if self.taken is not None and self.taken.reached is not None else ()

    @property
    def record(self) -> ClusterRecord | None:
        """What the cluster says of the service, where it was asked."""
        return self.taken.reached.record if self.taken is not None and self.taken.reached is not None else None

    @property
    def refused(self) -> tuple[Tried, ...]:
        """The routes before it, each with its reason."""
        return tuple(one for one in self.tried if one.reached is None)

    def __str__(self) -> str:
        taken = f"via {self.taken}" if self.taken is not None else "not reached"
        return "\n".join([taken, *(f"not via {one}" for one in self.refused)])
