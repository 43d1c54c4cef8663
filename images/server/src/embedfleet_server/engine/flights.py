"""Inputs that are being computed for one request, and those of others that wait for the same rows."""

import asyncio
from dataclasses import dataclass, field, replace

from embedfleet_server.batching.types import NORMAL
from embedfleet_server.engine.cache import Kept, Key
from embedfleet_server.engine.errors import ItemError

Outcome = Kept | ItemError


@dataclass(slots=True, eq=False)
class Joined:
    """The inputs of one request that wait for others like them."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    orphans: list[int] = field(default_factory=list)
    waiting: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, index: int, outcome: Outcome | None) -> None:
        """One came to an end; None: without an outcome."""
        if outcome is None:
            self.orphans.append(index)
        else:
            self.outcomes[index] = outcome
        self.waiting -= 1
        if not self.waiting:
            self.done.set()


@dataclass(slots=True, eq=False)
class Flight:
    """The inputs of one request that are being computed, and who joined them, by position."""

    tenant: str = ""
    priority: int = NORMAL
    keys: list[Key] = field(default_factory=list)
    joined: dict[int, list[tuple[Joined, int]]] = field(default_factory=dict)

    def carries(self, other: "Flight") -> bool:
        """Whether inputs of `other` may join this one."""
        return self.tenant == other.tenant and self.priority >= other.priority

    def gave(self, position: int, outcome: Outcome | None) -> None:
        """Tell those who joined one input what came of it."""
        for joined, index in self.joined.pop(position, ()):
            joined.take(index, replace(outcome, index=index) if isinstance(outcome, ItemError) else outcome)
