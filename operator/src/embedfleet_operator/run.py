"""The operator at work: a watch and a resync ask for passes, workers make them while this replica leads."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from embedfleet_operator import health, resources
from embedfleet_operator.cluster import Cluster, HttpTransport, Transport
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.credentials import Credentials
from embedfleet_operator.errors import NotLeading, OperatorError, Refused, Unreachable
from embedfleet_operator.handlers import Watch
from embedfleet_operator.hearing import DEAF_SECONDS, Hearing
from embedfleet_operator.lease import Leadership
from embedfleet_operator.metrics import Gauges, Metrics
from embedfleet_operator.observe import Observer
from embedfleet_operator.pods import Pods
from embedfleet_operator.reconcile import Outcome, Reconciler
from embedfleet_operator.work_queue import Key, WorkQueue

_WORKERS = 16
"""Passes at once: mostly they wait for the API server, or for a pod that is silent."""
_NOT_FOUND = 404
_NO_CRD = "the API server does not know EmbeddingServices, and is asked again until it does: apply the CRD (crds/)"
_log = logging.getLogger(__name__)
Wrap = Callable[[Transport], Transport]


class Operator:
    """One replica. `wrap` puts something around the way to the API server, as the tests do; `proxy` see `Pods`."""

    def __init__(
        self, configuration: Configuration, wrap: Wrap = lambda transport: transport, proxy: str | None = None
    ) -> None:
        self._configuration = configuration
        self._credentials = Credentials(configuration)
        self._wrap = wrap
        self._proxy = proxy
        self._queue = WorkQueue()
        self._hearing = Hearing()
        self._heard = 0.0
        self._metrics = Metrics()
        self._woken = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises what must not happen; an API server that is away is waited for."""
        async with AsyncExitStack() as stack:
            transport = self._wrap(await stack.enter_async_context(HttpTransport(self._credentials)))
            pods = await stack.enter_async_context(Pods(self._proxy))
            asked = self._metrics.asked
            self._heard = _now()
            self._leadership = Leadership(Cluster(transport, asked=asked), self._configuration, self._wake)
            self._cluster = Cluster(transport, self._leadership.holds, asked)
            observer = Observer(self._cluster, pods, self._configuration)
            self._reconciler = Reconciler(self._cluster, observer, self._configuration.identity)
            self._metrics.watch(self._gauges())
            served = health.served(self._configuration, self._is_live, self._metrics.page)
            await stack.enter_async_context(served)
            stack.push_async_callback(self._leadership.release)
            watch = Watch(self._configuration, self._credentials, self._hear_from_thread())
            self._watch = stack.enter_context(watch)
            await self._work(stop)

    async def _work(self, stop: asyncio.Event) -> None:
        """Every task until `stop`, or until one of them fails."""
        jobs = [self._leadership.keep(), self._resync(), *(self._worker() for _ in range(_WORKERS)), stop.wait()]
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _worker(self) -> None:
        while True:
            key = self._queue.take(_now()) if self._leadership.holds() else None
            if key is None:
                await self._sleep()
            else:
                await self._pass(key)

    async def _pass(self, key: Key) -> None:
        began = _now()
        outcome, word = await self._reconciled(key)
        self._metrics.passed(word, _now() - began)
        if outcome.failed:
            self._queue.failed(key, _now())
        else:
            self._queue.done(key, _now(), outcome.again_seconds)
        self._wake()

    async def _reconciled(self, key: Key) -> tuple[Outcome, str]:
        """How a pass went, and in a word of the metrics."""
        try:
            outcome = await self._reconciler.reconcile(*key, datetime.now(UTC))
        except (Refused, Unreachable, NotLeading) as error:
            _log.warning("%s/%s: %s", *key, error)
            return Outcome(failed=True), type(error).__name__
        except Exception:  # noqa: BLE001  # one service that cannot be dealt with must not keep the others waiting
            _log.exception("%s/%s: This is a bug", *key)
            return Outcome(failed=True), "Bug"
        return outcome, "Incomplete" if outcome.failed else "Done"

    async def _resync(self) -> None:
        """Ask for a pass on every service now and then: what no event told of is seen thereby."""
        is_unknown = False
        while True:
            try:
                found = await self._cluster.services(self._configuration.namespaces)
            except OperatorError as error:
                is_unknown = is_unknown or _is_unknown(error)
                _log.warning("services cannot be listed: %s", _NO_CRD if _is_unknown(error) else error)
                await asyncio.sleep(min(2.0, self._configuration.resync_seconds))
                continue
            if is_unknown:
                is_unknown = False
                self._watch.anew()
            self._hearing.read(found, _now())
            self._metrics.read(found)
            for index, tree in enumerate(found):  # evenly over the time, rather than all at once
                delay = self._configuration.resync_seconds * index / (2 * len(found))
                self._queue.add(_key(tree), _now(), delay, happened=False)
            self._wake()
            await asyncio.sleep(self._configuration.resync_seconds)

    def _hear_from_thread(self) -> Callable[[str, str, Mapping[str, Any], bool], None]:
        loop = asyncio.get_running_loop()

        def tell(namespace: str, service: str, tree: Mapping[str, Any], gone: bool) -> None:
            loop.call_soon_threadsafe(self._hear, namespace, service, tree, gone)

        return tell

    def _hear(self, namespace: str, service: str, tree: Mapping[str, Any], gone: bool) -> None:
        self._hearing.told(tree, gone=gone)
        self._heard = _now()
        if tree.get("kind") == resources.SERVICES.kind:
            self._metrics.told(tree, gone=gone)
        self._queue.add((namespace, service), _now())
        self._wake()

    def _is_live(self) -> bool:
        return self._hearing.silent_seconds(_now()) < DEAF_SECONDS

    def _gauges(self) -> Gauges:
        return Gauges(
            queue_depth=lambda: len(self._queue),
            is_leader=self._leadership.holds,
            event_age_seconds=lambda: _now() - self._heard,
            owed_seconds=lambda: self._hearing.silent_seconds(_now()),
        )

    def _wake(self) -> None:
        """Let every worker look at the queue again."""
        self._woken.set()
        self._woken = asyncio.Event()

    async def _sleep(self) -> None:
        """Until something is due or asked for."""
        wait = self._queue.wait_seconds(_now()) if self._leadership.holds() else None
        try:
            async with asyncio.timeout(wait):  # Python 3.11's `wait_for` swallows an end that comes with a wake
                await self._woken.wait()
        except TimeoutError:
            return


def _is_unknown(error: OperatorError) -> bool:
    """Whether the API server has no such type."""
    return isinstance(error, Refused) and error.code == _NOT_FOUND


def _key(tree: Mapping[str, Any]) -> Key:
    return tree["metadata"]["namespace"], tree["metadata"]["name"]


def _now() -> float:
    return asyncio.get_running_loop().time()
