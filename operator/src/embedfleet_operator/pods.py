"""The only room that talks to server pods: their own account of themselves, on the observation port."""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Self

import aiohttp

from embedfleet_operator import names
from embedfleet_operator.observed import ServerState, plain, server

_SECONDS = 2
"""A pod that takes longer counts as silent; a pass waits for the slowest one."""
_BYTES = 1 << 20
"""32 models with their findings are some tens of KiB."""
_AT_ONCE = 64
_log = logging.getLogger(__name__)


class Pods:
    """Asks pods by their addresses; an asynchronous context manager."""

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)  # pods come and go
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def states(self, pods: Iterable[Mapping[str, Any]]) -> dict[str, ServerState]:
        """What the running ones of `pods` answer, by uid; a silent one is left out."""
        running = {plain.text(pod, "metadata", "uid") or "": _address(pod) for pod in pods if _runs(pod)}
        asked = [(uid, address) for uid, address in running.items() if address]
        answers = await asyncio.gather(*(self._state(address) for _, address in asked))
        return {uid: answer for (uid, _), answer in zip(asked, answers, strict=True) if answer is not None}

    async def _state(self, address: str) -> ServerState | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"http://{host}:{names.OBSERVE_PORT}/state", allow_redirects=False) as answer:
                if answer.status != 200:  # HTTP's OK
                    return None
                tree = json.loads(await _body(answer.content))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _log.debug("pod at %s gives no state: %r", address, error)
            return None
        return server.server_state(tree)


async def _body(content: aiohttp.StreamReader) -> bytes:
    """The whole of an answer; `ValueError` when there is too much of it."""
    made = b""
    async for chunk in content.iter_any():
        made += chunk
        if len(made) > _BYTES:
            raise ValueError(f"more than {_BYTES} bytes")
    return made


def _runs(pod: Mapping[str, Any]) -> bool:
    return plain.text(pod, "status", "phase") == "Running" and not plain.text(pod, "metadata", "deletionTimestamp")


def _address(pod: Mapping[str, Any]) -> str | None:
    return plain.text(pod, "status", "podIP")
