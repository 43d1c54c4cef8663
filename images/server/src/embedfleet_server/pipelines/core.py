"""The executor's decisions: which steps may begin, given what is done, and which input is next. Pure.

It never waits, reads no clock, knows no task: `driver` does as it says, and tells it what happened.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedfleet.api.pipelines import INPUT, Pipeline

_SECONDS_PER_PRIORITY = 1 / 64
"""A class of priority (64 of 256) goes before what came up to a second earlier: older work overtakes it in the end."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A pipeline as the executor sees it: what each step reads, and what is answered."""

    reads: Mapping[str, frozenset[str]]
    outputs: frozenset[str]
    readers: Mapping[str, Sequence[str]]
    """Who reads each value, in the order of the graph."""
    waits: Mapping[str, int]
    """Of how many steps each reads."""

    @classmethod
    def over(cls, reads: Mapping[str, frozenset[str]], outputs: frozenset[str]) -> "Graph":
        """What is the same for every input is told once."""
        sources = frozenset[str]().union(*reads.values())
        readers = {source: [name for name, read in reads.items() if source in read] for source in sources}
        return cls(reads, outputs, readers, {name: len(read - {INPUT}) for name, read in reads.items()})

    @classmethod
    def of(cls, pipeline: Pipeline) -> "Graph":
        """The graph of a manifest's pipeline, whose rules hold."""
        reads = {step.name: frozenset(step.sources) for step in pipeline.steps}
        return cls.over(reads, frozenset(pipeline.outputs))


class Way:
    """One input's way through a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._waits = dict(graph.waits)
        self._unread = {source: len(names) for source, names in graph.readers.items()}
        self._left = set(graph.reads)
        self._begun = set[str]()
        self.failed: str | None = None
        """The step that failed first."""

    def begin(self) -> list[str]:
        """The steps that read nothing but the input, in the order of the graph."""
        return self._start([name for name, waits in self._waits.items() if not waits])

    def done(self, step: str) -> list[str]:
        """A step has given its value: the steps that may begin now."""
        self._end(step)
        readers = self._graph.readers.get(step, ())
        for reader in readers:
            self._waits[reader] -= 1
        return self._start([reader for reader in readers if not self._waits[reader]])

    def fail(self, step: str) -> None:
        """A step has failed: no other begins, and what runs is to be stopped."""
        self._end(step)
        self.failed = self.failed or step

    @property
    def is_over(self) -> bool:
        """Nothing runs, and nothing is to begin."""
        return not self._begun if self.failed is not None else not self._left

    def useless(self, step: str) -> list[str]:
        """Values that nobody reads any more once `step` has read its own, so that they need not be kept."""
        read = self._graph.reads[step]
        for name in read:
            self._unread[name] -= 1
        return [name for name in read if not self._unread[name] and name not in self._graph.outputs]

    def _start(self, steps: Sequence[str]) -> list[str]:
        if self.failed is not None:
            return []
        self._begun.update(steps)
        return [*steps]

    def _end(self, step: str) -> None:
        if step not in self._begun:
            raise AssertionError(f"This is a bug: step {step!r} ended and had not begun")
        self._begun.discard(step)
        self._left.discard(step)


@dataclass(order=True, slots=True)
class _Waiter:
    due: float
    number: int
    is_gone: bool = field(default=False, compare=False)


class Line:
    """Inputs of all requests to one pipeline: at most `limit` under way, the others in order of priority and age."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = 0
        self._waiting: list[_Waiter] = []
        self._by_number: dict[int, _Waiter] = {}
        self._numbers = 0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._by_number)

    def come(self, now: float, priority: int) -> int:
        """Stand in line; the number by which `next` calls."""
        self._numbers += 1
        waiter = self._by_number[self._numbers] = _Waiter(now - priority * _SECONDS_PER_PRIORITY, self._numbers)
        heapq.heappush(self._waiting, waiter)
        return self._numbers

    def walk_in(self) -> bool:
        """Be under way at once, where there is a place and nobody waits for one."""
        is_free = not self._by_number and self.under_way < self.limit
        self.under_way += is_free
        return is_free

    def next(self) -> list[int]:
        """Those who may begin now, the first of the line first; each is under way until `leave`."""
        called: list[int] = []
        while self._waiting and self.under_way < self.limit:
            waiter = heapq.heappop(self._waiting)
            if not waiter.is_gone:
                del self._by_number[waiter.number]
                self.under_way += 1
                called.append(waiter.number)
        return called

    def give_up(self, number: int) -> bool:
        """Step out of the line; False for one that was called already, who has to `leave`."""
        waiter = self._by_number.pop(number, None)
        if waiter is None:
            return False
        waiter.is_gone = True
        return True

    def leave(self) -> None:
        """One that was under way has ended."""
        if not self.under_way:
            raise AssertionError("This is a bug: more inputs ended than were under way")
        self.under_way -= 1
