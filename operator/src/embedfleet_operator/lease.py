"""Holding the Lease: two replicas run and one writes."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from embedfleet_operator import election
from embedfleet_operator.cluster import Cluster
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.election import Sight
from embedfleet_operator.errors import Refused, Unreachable

_CONFLICT = 409
_log = logging.getLogger(__name__)


class Leadership:
    """Whether this process leads; `began` is called each time that it begins to."""

    def __init__(self, cluster: Cluster, configuration: Configuration, began: Callable[[], None]) -> None:
        self._cluster = cluster
        self._where = (configuration.lease_namespace, configuration.lease_name)
        self._identity = configuration.identity
        self._duration = configuration.lease_seconds
        self._began = began
        self._sight = Sight()
        self._renewed: float | None = None

    def holds(self) -> bool:
        """Whether this process may write: it renewed the Lease not long ago."""
        return self._renewed is not None and _now() - self._renewed < election.deadline_seconds(self._duration)

    async def keep(self) -> None:
        """Take the Lease when it is free and renew it, until cancelled."""
        while True:
            try:
                await self._attempt()
            except (Refused, Unreachable) as error:
                _log.warning("the Lease %s/%s cannot be renewed: %s", *self._where, error)
            await asyncio.sleep(election.renew_seconds(self._duration))

    async def release(self) -> None:
        """Give the Lease back, so that the other replica need not wait; best effort."""
        if not self.holds():
            return
        self._renewed = None
        try:
            lease = await self._cluster.lease(*self._where)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                await self._cluster.update_lease(election.released(lease))
        except (Refused, Unreachable) as error:
            _log.warning("the Lease %s/%s could not be given back: %s", *self._where, error)

    async def _attempt(self) -> None:
        lease = await self._cluster.lease(*self._where)
        if lease is None:
            lease = await self._cluster.create_lease(election.new(*self._where))
        asked = _now()  # before the request: the hold is never thought longer than it is
        self._sight = election.look(self._sight, lease, asked)
        if not election.may_take(lease, self._sight, self._identity, asked):
            self._lose()
            return
        try:
            mine = election.taken(lease, self._identity, datetime.now(UTC), self._duration)
            await self._cluster.update_lease(mine)
        except Refused as refusal:
            if refusal.code != _CONFLICT:
                raise
            self._lose()  # the other one was quicker
        else:
            self._win(asked)

    def _win(self, since: float) -> None:
        fresh = not self.holds()
        self._renewed = since
        if fresh:
            _log.info("%s leads", self._identity)
            self._began()

    def _lose(self) -> None:
        if self._renewed is not None:
            _log.warning("%s leads no more", self._identity)
        self._renewed = None


def _now() -> float:
    return asyncio.get_running_loop().time()
