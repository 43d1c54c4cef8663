"""Fairness in tokens between those who share something: tenants of a service, models of a device.

Start-time fair queueing: each has an account of tokens served; who was served least goes next. One that comes back
after an idle time starts level with those being served, so it is not owed what it did not ask for.
"""

from embedfleet_server.batching.types import Refusal


class Accounts:
    """Tokens served, by name.

    Of those who left, only the last 1,000 are remembered, so that many tenants over a day cost nothing.
    That nothing waits for a moment forgives nobody: a large batch takes all there is, and runs.
    """

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._left: dict[str, None] = {}
        """Those who left and were served beyond the level, in the order in which they did."""
        self._level = 0.0

    def served(self, name: str) -> float:
        """Tokens served to `name`, as far as they count."""
        return self._served.get(name, self._level)

    def arrive(self, name: str, inputs: int) -> None:
        """`name` has so many more inputs waiting."""
        if not self._waiting.get(name):
            self._served[name] = max(self._served.get(name, 0.0), self._level)
            self._left.pop(name, None)
        self._waiting[name] = self._waiting.get(name, 0) + inputs

    def leave(self, name: str, inputs: int) -> None:
        """`name` has so many fewer inputs waiting."""
        self._waiting[name] -= inputs
        if self._waiting[name]:
            return
        del self._waiting[name]
        self._left[name] = None
        if len(self._left) > _MOST_LEFT or self._served[name] <= self._level:
            first = name if self._served[name] <= self._level else next(iter(self._left))
            del self._left[first], self._served[first]

    def serve(self, name: str, tokens: int) -> None:
        """`name` was served so many tokens."""
        before = self.served(name)
        self._level = max(self._level, before)
        self._served[name] = before + tokens


_MOST_LEFT = 1000  # names: some 100 KB
_REMEMBERED = 10.0  # seconds for which a tenant counts as present after its last request


class Shares:
    """Places in the queue, shared between the tenants that are present.

    Alone, a tenant may fill the queue. With others present each may hold its even part of it, so that one that sends
    a hundred times as much does not leave the others no room to be refused less.
    """

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._last_seen: dict[str, float] = {}
        """When those who are present sent their last request, in that order."""

    def seen(self, tenant: str, now: float) -> None:
        """A request of `tenant` came, admitted or not."""
        self._last_seen.pop(tenant, None)
        self._last_seen[tenant] = now
        if next(iter(self._last_seen.values())) < now - _REMEMBERED:
            self._forget_those_before(now - _REMEMBERED)

    def hold(self, tenant: str, inputs: int) -> None:
        """So many more (or fewer) inputs of `tenant` wait."""
        held = self._held.get(tenant, 0) + inputs
        if held:
            self._held[tenant] = held
        else:
            self._held.pop(tenant, None)

    def _forget_those_before(self, time: float) -> None:
        """Tenants whose last request came before, but for those who still hold places."""
        gone = list[str]()
        for name, at in self._last_seen.items():
            if at >= time:
                break
            if not self._held.get(name):
                gone.append(name)
        for name in gone:
            del self._last_seen[name]

    def over(self, tenant: str, inputs: int, places: int, delay: float) -> Refusal | None:
        """The refusal of what would pass the tenant's part; one that holds nothing is always within it."""
        present = len(self._last_seen)
        held = self._held.get(tenant, 0)
        if present < 2 or not held or held + inputs <= places // present:
            return None
        return Refusal(
            f"the queue is full: this tenant holds {held} of its {places // present} places, "
            f"with {present} tenants present",
            delay,
        )
