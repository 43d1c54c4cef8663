"""What kopf does here: it watches, and says which service something has happened to.

Its `on.event` handlers write nothing: no finalizer, no annotation on the user's object. It runs on a loop and thread
of its own, since it cancels every task of its loop as it ends, and takes the process's signals for itself.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

import kopf

from embedfleet_operator import names, resources
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.credentials import Credentials
from embedfleet_operator.resources import Resource

Tell = Callable[[str, str, Mapping[str, Any], bool], None]
"""Takes the namespace and name of a service, the object that something happened to, and whether that is gone."""

WATCHED = (resources.SERVICES, *resources.CHILDREN, *resources.OPTIONAL, resources.REPLICA_SETS, resources.PODS)

_RETRY_SECONDS = (1, 2, 3)
"""kopf's waits between attempts at a request; its own grow to 21 s, and so would the delay after an outage."""
_AGAIN_SECONDS = 2.0
"""After which kopf is started anew when it has ended by an error, such as an API server that was away for long."""
_CLOSING_SECONDS = 0.1
"""For kopf's connections to close; a loop that ends before leaves their sockets open."""
_log = logging.getLogger(__name__)


class Watch:
    """kopf in its thread; as a context manager it runs inside."""

    def __init__(self, configuration: Configuration, credentials: Credentials, tell: Tell) -> None:
        self._configuration = configuration
        self._credentials = credentials
        self._tell = tell
        self._stop = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._over.set()
        self._thread.join(timeout=10)  # a daemon thread: one that hangs ends with the process

    def anew(self) -> None:
        """Start kopf anew: it looks once for the types that there are, and there is one now that there was not."""
        self._over.set()

    def _run(self) -> None:
        while True:
            self._over.clear()
            if self._stop.is_set():  # looked at after `clear`, so that no end is missed
                return
            try:
                asyncio.run(self._operate())
            except Exception:  # noqa: BLE001  # whatever ends kopf, the watch must come back
                _log.warning("the watch has ended and is started anew", exc_info=True)
            self._stop.wait(_AGAIN_SECONDS)

    async def _operate(self) -> None:
        namespaces = self._configuration.namespaces
        await kopf.operator(
            registry=registry(self._credentials, self._tell),
            settings=_settings(),
            # kopf's own asks for the name of who runs it, which a pod's user has not; its type, a str, is not exported
            identity=self._configuration.identity,  # type: ignore[arg-type]  # see above
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._over,
        )
        await asyncio.sleep(_CLOSING_SECONDS)


def registry(credentials: Credentials, tell: Tell) -> kopf.OperatorRegistry:
    """The handlers: one for each type that is watched, and the login."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return credentials.for_kopf()

    for resource in WATCHED:
        _watch(made, resource, tell)
    return made


def _watch(made: kopf.OperatorRegistry, resource: Resource, tell: Tell) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=made)
    async def happened(event: Any, **_: Any) -> None:
        tree = event["object"]
        metadata = tree["metadata"]
        label = metadata.get("labels", {}).get(names.SERVICE_LABEL)
        service = metadata["name"] if resource is resources.SERVICES else label
        if service:
            tell(metadata["namespace"], service, tree, event["type"] == "DELETED")


def _settings() -> kopf.OperatorSettings:
    """Of children only those with our label come over the wire; types are not watched for, nor events posted."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True
    made.networking.error_backoffs = _RETRY_SECONDS
    for resource in WATCHED:
        if resource is not resources.SERVICES:
            made.watching.label_selectors[resource.group, resource.version, resource.plural] = names.SERVICE_LABEL
    return made
