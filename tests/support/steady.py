"""Clients that ask at a steady rate over connections that they keep: `python steady.py HOST PORT PREFIX [COUNT]`.

Runs in a pod, on the standard library. It prints the number of requests ended so far now and then, and, once its
standard input has ended, what became of each as one line of JSON.
"""

import asyncio
import contextlib
import itertools
import json
import sys

from tests.support.ledger import Outcome
from tests.support.wire_client import Heard, hear, request

_PERIOD_SECONDS = 0.2
"""Of one client: short against any drain, so that connections are never idle for long."""
_TELL_SECONDS = 0.25
_ANSWER_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
"""A packet that left while the node's rules were being changed never arrives, nor does one that repeats it: what the
kernel remembers of the first goes for all of a connection. The next connection is through at once."""
_AWAY_SECONDS = 0.05
AWAY = "away"
"""What ids begin with of requests that were never sent, since nobody took the connection."""


class Load:
    """What all clients share."""

    def __init__(
        self, host: str, port: int, prefix: str, *, period: float = _PERIOD_SECONDS, lasting: bool = True
    ) -> None:
        """`period` is one client's, in seconds; unless `lasting` it connects anew for each request."""
        self.host, self.port, self.prefix = host, port, prefix
        self._period, self._lasting = period, lasting
        self.seen: dict[str, str] = {}
        self.going = True
        self._numbers = itertools.count()

    def name(self, kind: str = "keep") -> str:
        """The id of a new request."""
        return f"{self.prefix}-{kind}-{next(self._numbers)}"

    async def client(self) -> None:
        """Connection after connection."""
        while self.going:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(self.host, self.port), _CONNECT_SECONDS)
            except OSError:  # TimeoutError among them
                self.seen[self.name(AWAY)] = Outcome.REFUSED.value
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            try:
                await self._keep_asking(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _keep_asking(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, open_ = asyncio.get_running_loop(), True
        while open_ and self.going:
            began, number = loop.time(), self.name()
            writer.write(request(number, f"text {number}"))
            heard = await _within(reader)
            self.seen[number] = _outcome(heard)
            open_ = self._lasting and heard is not None and not heard.closes
            await asyncio.sleep(max(0.0, began + self._period - loop.time()))

    async def tell(self) -> None:
        """The count, now and then."""
        while True:
            print(len(self.seen), flush=True)
            await asyncio.sleep(_TELL_SECONDS)


async def _within(reader: asyncio.StreamReader) -> Heard | None:
    try:
        return await asyncio.wait_for(hear(reader), _ANSWER_SECONDS)
    except TimeoutError:
        return None


def _outcome(heard: Heard | None) -> str:
    if heard is not None and heard.status == 200:
        return Outcome.ANSWERED.value
    if heard is not None and heard.accepted is False:
        return Outcome.REFUSED.value
    return Outcome.AMBIGUOUS.value


async def main(host: str, port: int, prefix: str, count: int) -> None:
    """Ask until standard input ends."""
    load = Load(host, port, prefix)
    clients = [asyncio.create_task(load.client()) for _ in range(count)]
    telling = asyncio.create_task(load.tell())
    await asyncio.to_thread(sys.stdin.read)
    load.going = False
    await asyncio.gather(*clients)
    telling.cancel()
    print(json.dumps(load.seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int((sys.argv[4:] or ["6"])[0])))
