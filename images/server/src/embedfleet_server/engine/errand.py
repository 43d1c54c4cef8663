"""Work of several requests that was accepted as one: it holds places from its start, and a drain waits for its end."""

from collections.abc import Callable
from dataclasses import dataclass

from embedfleet_server.engine.asking import Reservation


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """What is asked under it is accepted even while the server leaves, and may take up the places that it holds."""

    priority: int
    tenant: str
    reservation: Reservation
    left: Callable[[], float | None]
    """Seconds that its caller's own limit leaves; None where the caller stated none."""

    def make_room(self, inputs: int) -> None:
        """Give back as many of its places as `inputs` asked for now will take, or as many as it still holds."""
        self.reservation.give_back(inputs)
