"""Waiting for a server that is away."""

import asyncio

from embedfleet.outage import PROBE_SECONDS, Outage


class World:
    """A server that is there from some moment on; time passes in `sleep` alone."""

    def __init__(self, back_at: float) -> None:
        self.now, self.back_at, self.returns = 0.0, back_at, 0
        self.outage = Outage(self.probe, self.returned, lambda: self.now, self.sleep)

    async def probe(self) -> bool:
        """Whether it is there."""
        await asyncio.sleep(0)
        return self.now >= self.back_at

    def returned(self) -> None:
        """It is back."""
        self.returns += 1

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
        await asyncio.sleep(0)

    def wait(self, requests: int, limit: float) -> list[bool]:
        """What so many requests are told that all found nobody now."""

        async def main() -> list[bool]:
            seen = self.outage.answered
            return await asyncio.gather(*(self.outage.over(seen, limit) for _ in range(requests)))

        return asyncio.run(main())


def test_one_probe_a_second_for_everybody() -> None:
    """A thousand requests that wait a minute cause 61 probes, and all go on at the first that is answered."""
    world = World(back_at=60)
    assert world.wait(1000, limit=600) == [True] * 1000
    assert world.outage.probes == 60 / PROBE_SECONDS + 1
    assert world.returns == 1


def test_patience_ends_for_all() -> None:
    """At the limit everyone is told that nobody came back."""
    world = World(back_at=1e9)
    assert world.wait(50, limit=30) == [False] * 50
    assert world.outage.probes <= 31


def test_a_server_that_was_never_away_is_no_return() -> None:
    """A connection that was cut by something else costs one probe, and no new beginning."""
    world = World(back_at=0)
    assert world.wait(3, limit=30) == [True] * 3
    assert (world.outage.probes, world.returns) == (1, 0)
