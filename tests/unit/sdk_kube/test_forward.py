"""A tunnel by port-forward ends at both ends, whatever ends it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from embedfleet.kube.forward import PortForwardConnector

pytestmark = pytest.mark.requirement("K1")
_TURNS = 1000


class Silent:
    """A WebSocket on which nothing comes, and whose other end takes for ever over its farewell."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None  # makes it a generator

    async def close(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("times", [1, 2])
def test_a_bridge_that_is_cancelled_closes_its_stream(times: int) -> None:
    """The client's end sees it at once, though the farewell of the tunnel takes long, or is cancelled as well."""

    async def main() -> None:
        connector = PortForwardConnector(cast("Any", None), "default", "semantic", None)
        protocol = await connector._bridged(cast("Any", Silent()), "host")
        (bridge,) = connector._bridges
        for _ in range(times):
            await asyncio.sleep(0)
            bridge.cancel()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        assert not protocol.is_connected()
        bridge.cancel()
        await asyncio.gather(bridge, return_exceptions=True)
        await connector.close()

    asyncio.run(main())
