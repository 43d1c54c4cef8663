"""The only room that talks to server pods: their own account of themselves, on the observation port."""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Self

import aiohttp

from embedfleet_operator import names
from embedfleet_operator.observed import ServerState, plain, server
from embedfleet_operator.patience import Patience

_SECONDS = 2
"""A pod that takes longer counts as silent; a pass waits for the slowest one."""
_BYTES = 1 << 20
"""32 models with their findings are some tens of KiB."""
_AT_ONCE = 64
_STANDS_SECONDS = 60.0
"""For which the last answer of a pod stands when it does not answer, unless the pod has changed: past two resyncs."""
_log = logging.getLogger(__name__)


class Pods:
    """Asks pods by their addresses; an asynchronous context manager.

    `proxy` is the URL of an HTTP proxy that they are asked through: by it the tests answer for pods without a server.
    """

    def __init__(self, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._patience = Patience()
        self._last: dict[str, tuple[str, float, ServerState]] = {}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        # A pod is asked again after 25 s (the resync), by when servers have closed a connection that was kept.
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def states(self, pods: Iterable[Mapping[str, Any]]) -> dict[str, ServerState]:
        """What the running ones of `pods` answer, by uid; a silent one is left out, and not asked at every pass.

        A hiccup is no news: for a while the last answer of a pod that has not changed stands.
        """
        now = asyncio.get_running_loop().time()
        self._forget(now)
        running = [pod for pod in pods if _runs(pod) and _address(pod)]
        asked = [pod for pod in running if self._patience.may_ask(*_identity(pod), now)]
        answers = await asyncio.gather(*(self._state(_address(pod) or "") for pod in asked))
        for pod, answer in zip(asked, answers, strict=True):
            self._keep(pod, answer, now)
        known = [(self._last.get(uid), uid, version) for uid, version in map(_identity, running)]
        return {uid: last[2] for last, uid, version in known if last is not None and last[0] == version}

    def _keep(self, pod: Mapping[str, Any], answer: ServerState | None, now: float) -> None:
        uid, version = _identity(pod)
        if answer is None:
            self._patience.silent(uid, version, now)
        else:
            self._patience.answered(uid)
            self._last[uid] = version, now, answer

    def _forget(self, now: float) -> None:
        self._patience.forget(now)
        self._last = {uid: one for uid, one in self._last.items() if now - one[1] <= _STANDS_SECONDS}

    async def _state(self, address: str) -> ServerState | None:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{names.OBSERVE_PORT}/state"
        try:
            async with self._session.get(url, allow_redirects=False, proxy=self._proxy) as answer:
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


def _identity(pod: Mapping[str, Any]) -> tuple[str, str]:
    return plain.text(pod, "metadata", "uid") or "", plain.text(pod, "metadata", "resourceVersion") or ""
