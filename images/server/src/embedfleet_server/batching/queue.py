"""The queue of one model: flows by priority and tenant, and which of them comes next.

Higher priorities come first, and a tenant's flow that has not led a batch for a while raises its priority: by one
level every tenth of a second, so that even the lowest is above a fresh CRITICAL after 25.5 s. Among the tenants of the
highest priority the one served least, in tokens, leads; of a priority that rose by waiting, the one whose wait raised
it. To fill up the batch of another is not to lead: the oldest of a flow may not have fitted.
"""

import heapq
import math

from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import Bucket, Flow
from embedfleet_server.batching.types import CRITICAL, Work

SECONDS_PER_LEVEL = 0.1
"""How long a flow waits to rise by one level: 255 of them are 25.5 s, under the usual 30 s limit of a caller."""
_LONGEST = CRITICAL * SECONDS_PER_LEVEL
_SPARE = 64  # deadlines of works that left, kept beside as many as wait before they are thrown out


class ModelQueue:
    """Waiting inputs of one model."""

    def __init__(self, bucket: Bucket, tenants: Accounts) -> None:
        self._bucket = bucket
        self._tenants = tenants
        self._levels: dict[int, dict[str, Flow]] = {}
        self._deadlines: list[tuple[float, int, Work]] = []
        self.count = 0
        self.tokens = 0

    def push(self, work: Work, now: float) -> None:
        """Add every input of `work`."""
        flows = self._levels.get(work.priority)
        if flows is None:
            flows = self._levels[work.priority] = {}
        flow = flows.get(work.tenant)
        if flow is None:
            flow = flows[work.tenant] = Flow(work.tenant, self._bucket, now)
        flow.push(work)
        if work.deadline < math.inf:
            heapq.heappush(self._deadlines, (work.deadline, work.number, work))
        self._tenants.arrive(work.tenant, work.waiting)
        self._changed(work.waiting, work.waiting_tokens)

    def forget(self, work: Work) -> None:
        """Stop counting what waits of a work that was cancelled."""
        inputs, tokens = work.waiting, work.waiting_tokens
        if inputs:
            self._levels[work.priority][work.tenant].forget(work)
            self._tenants.leave(work.tenant, inputs)
            self._changed(-inputs, -tokens)
            self._tidy(work.priority, work.tenant)

    def expired(self, now: float) -> list[Work]:
        """Take the works with inputs waiting whose deadline passed."""
        late: list[Work] = []
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].waiting):
            work = heapq.heappop(self._deadlines)[2]
            late += [work] if work.waiting else []
        if len(self._deadlines) > 2 * self.count + _SPARE:
            self._deadlines = [due for due in self._deadlines if due[2].waiting]
            heapq.heapify(self._deadlines)
        return late

    def regroup(self, bucket: Bucket) -> None:
        """Change how lengths share buckets."""
        if bucket is not self._bucket:
            self._bucket = bucket
            for flow in self._flows():
                flow.regroup(bucket)

    def oldest(self) -> Work | None:
        """The work that waits longest, whatever its priority."""
        heads = (head for flow in self._flows() if (head := flow.oldest()) is not None)
        return min(heads, key=lambda work: work.number, default=None)

    def lead(self, now: float) -> tuple[list[int], Flow]:
        """The priorities with something waiting, the most urgent first, and the flow of the first whose turn it is."""
        longest = {level: min(flows.values(), key=_led) for level, flows in self._levels.items()}
        urgency = {level: level + (now - flow.led) / SECONDS_PER_LEVEL for level, flow in longest.items()}
        levels = sorted(urgency, key=lambda level: (-urgency[level], -level))
        first = longest[levels[0]]
        if levels[0] == max(levels) and now - first.led < _LONGEST:
            first = min(self._levels[levels[0]].values(), key=self.served)
        first.led = now
        return levels, first

    def ahead(self, priority: int, tenant: str, tokens: int) -> int:
        """Tokens that are served before the last of `tokens` new ones of this priority and tenant.

        All of higher priority; of its own, what waits of its tenant, and of each other tenant at most as much.
        """
        higher = before = others = 0
        for level, flows in self._levels.items():
            if level > priority:
                higher += sum(flow.tokens for flow in flows.values())
            elif level == priority:
                before = flows[tenant].tokens if tenant in flows else 0
                most = before + tokens
                others = sum([min(most, flow.tokens) for name, flow in flows.items() if name != tenant])
        return higher + before + others

    def flows(self, level: int) -> list[Flow]:
        """The tenants' flows of one priority."""
        return list(self._levels[level].values())

    def took(self, level: int, flow: Flow, inputs: int, tokens: int) -> None:
        """So much was popped from `flow`."""
        self._tenants.serve(flow.tenant, tokens)
        self._tenants.leave(flow.tenant, inputs)
        self._changed(-inputs, -tokens)
        self._tidy(level, flow.tenant)

    def served(self, flow: Flow) -> float:
        """Tokens served to the flow's tenant."""
        return self._tenants.served(flow.tenant)

    def _flows(self) -> list[Flow]:
        return [flow for flows in self._levels.values() for flow in flows.values()]

    def _changed(self, inputs: int, tokens: int) -> None:
        self.count += inputs
        self.tokens += tokens

    def _tidy(self, level: int, tenant: str) -> None:
        """Flows and levels with nothing waiting go away, so that many tenants over a day cost nothing."""
        if not self._levels[level][tenant].count:
            del self._levels[level][tenant]
        if not self._levels[level]:
            del self._levels[level]


def _led(flow: Flow) -> float:
    return flow.led
