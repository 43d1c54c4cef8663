"""While nothing listens: one bodiless probe a second for the whole client, however many requests wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

PROBE_SECONDS = 1.0


class Outage:
    """Requests that found no server wait here until a probe is answered.

    `probe` tells whether a server answers; `back` is called once it does after having not.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        back: Callable[[], None],
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._probe, self._back, self._clock, self._sleep = probe, back, clock, sleep
        self._lock = asyncio.Lock()
        self._silent = False
        self.probes = 0
        self.answered = 0

    async def over(self, seen: int, limit: float) -> bool:
        """True once a probe was answered since `answered` was `seen`; False when the clock passes `limit` before."""
        while True:
            async with self._lock:  # one probes, those behind it find what it found
                if self.answered != seen:
                    return True
                if self._clock() >= limit:
                    return False
                if await self._asked():
                    return True
                await self._sleep(PROBE_SECONDS)

    async def _asked(self) -> bool:
        self.probes += 1
        if not await self._probe():
            self._silent = True
            return False
        self.answered += 1
        if self._silent:
            self._silent = False
            self._back()
        return True
