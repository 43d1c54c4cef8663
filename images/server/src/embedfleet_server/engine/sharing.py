"""Identical inputs are computed once: those under way are joined, those kept are answered at once.

An input joins one like it that is under way for the same tenant with at least its own priority, so that nobody waits
behind another's queue and no tenant can tell from the time what others ask for. If the one it joined ends without a
row (its caller went away, its time ran out), the input is computed on its own, within its own caller's time.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from embedfleet_server.engine.cache import How, Kept, Key, VectorCache
from embedfleet_server.engine.delivery import Answer
from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.flights import Flight, Joined, Outcome
from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Pair
from embedfleet_server.engine.rows import Collected, only

Encode = Callable[[list[Item]], Awaitable[list[Encoded]]]
Run = Callable[[list[Encoded], Flight], Awaitable[Answer]]


class Sharing:
    """The inputs under way and the rows kept, over all models."""

    def __init__(self) -> None:
        self.cache = VectorCache()
        self.joined = 0
        """How many inputs joined another one."""
        self._under_way: dict[Key, tuple[Flight, int]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def embed(
        self,
        info: ModelInfo,
        how: How,
        items: Sequence[Item],
        flight: Flight,
        encode: Encode,
        run: Run,
    ) -> Answer:
        """The answer to one request, whose tenant and priority stand in `flight`, what decides its tokens in `how`.

        `encode` and `run` are asked for the inputs that nobody else computes or has computed.
        """
        keys = [_key(info, how, item) for item in items]
        kept = self.cache.get_many(keys)
        left = [index for index in range(len(items)) if index not in kept] if kept else list(range(len(items)))
        parts = _Parts(info, len(items), dict(kept))
        while left:
            own, joined = self._sort(keys, left, flight)
            try:
                if own:
                    answer = await run(await self._encode([items[index] for index in own], items, encode), flight)
                    self._keep(flight.keys, answer)
                    if len(own) == len(items):
                        return answer
                    parts.add(own, answer)
            finally:
                self._land(flight)
            if joined.waiting:
                await joined.done.wait()
            parts.outcomes |= joined.outcomes
            left = sorted(joined.orphans)  # a request that computes all of its inputs returns them as they come
        return parts.answer()

    async def _encode(self, own: list[Item], items: Sequence[Item], encode: Encode) -> list[Encoded]:
        """Token ids of the inputs to compute; where some are bad, every bad one of the whole request is named."""
        try:
            return await encode(own)
        except BadItems:
            await encode(list(items))
            raise

    def _sort(self, keys: Sequence[Key], indices: Sequence[int], flight: Flight) -> tuple[list[int], Joined]:
        """Those to compute, under way from now on, and those that join others."""
        own: list[int] = []
        joined = Joined()
        for index in indices:
            found = self._under_way.get(keys[index])
            if found is not None and found[0].carries(flight):
                found[0].joined.setdefault(found[1], []).append((joined, index))
                joined.waiting += 1
            else:
                self._under_way[keys[index]] = (flight, len(own))
                flight.keys.append(keys[index])
                own.append(index)
        self.joined += joined.waiting
        return own, joined

    def _land(self, flight: Flight) -> None:
        """Nothing of this flight is under way any more; who still waits for it is on his own."""
        for key in flight.keys:
            if key in self._under_way and self._under_way[key][0] is flight:
                del self._under_way[key]
        flight.keys.clear()
        for position in list(flight.joined):
            flight.gave(position, None)

    def _keep(self, keys: Sequence[Key], answer: Answer) -> None:
        if self.cache.is_on:
            cut = set(answer.truncated)
            self.cache.put_many(
                (key, Kept(only(answer.rows, index), answer.tokens[index], index in cut))
                for index, key in enumerate(keys)
                if index not in answer.errors
            )


@dataclass(slots=True)
class _Parts:
    """An answer put together."""

    info: ModelInfo
    size: int
    outcomes: dict[int, Outcome]
    tokens: dict[int, int] = field(default_factory=dict)
    queued: float = 0.0
    computed: float = 0.0

    def add(self, indices: Sequence[int], answer: Answer) -> None:
        """What was computed for this request itself."""
        cut = set(answer.truncated)
        for position, index in enumerate(indices):
            error = answer.errors.get(position)
            self.tokens[index] = answer.tokens[position]
            row = Kept(only(answer.rows, position), answer.tokens[position], position in cut)
            self.outcomes[index] = row if error is None else replace(error, index=index)
        self.queued, self.computed = max(self.queued, answer.queue_seconds), self.computed + answer.compute_seconds

    def answer(self) -> Answer:
        """All of it."""
        rows = Collected(self.size, self.info.task, self.info.native_dimensions)
        kept = {index: outcome for index, outcome in self.outcomes.items() if isinstance(outcome, Kept)}
        errors = {index: outcome for index, outcome in self.outcomes.items() if isinstance(outcome, ItemError)}
        for index, outcome in kept.items():
            rows.put([index], outcome.row, [0])
        rows.lose(list(errors))
        self.tokens |= {index: outcome.tokens for index, outcome in kept.items()}
        tokens = [self.tokens.get(index, 0) for index in range(self.size)]
        truncated = sorted(index for index, outcome in kept.items() if outcome.truncated)
        return Answer(rows.rows(), tokens, truncated, errors, self.queued, self.computed, self.info)


def _key(info: ModelInfo, how: How, item: Item) -> Key:
    asked = item if isinstance(item, str | Pair) else tuple(item)
    return f"{info.name}:{info.fingerprint}", how, asked
