"""What all adapters share: a client of one service, made at the first use, for queries and documents."""

import asyncio
import os
import threading
from collections.abc import Iterable
from typing import Any, TypedDict

from embedfleet.client import Service
from embedfleet.connection import connect
from embedfleet.errors import BadInput
from embedfleet.progress import Progress
from embedfleet.wire import InputType, Rows, Vectors


class Connecting(TypedDict, total=False):
    """The arguments of `connect` beside the name and the model."""

    url: str | None
    api_key: str | None
    namespace: str | None
    context: str | None
    ca: str | os.PathLike[str] | None


class Embedder:
    """The vectors of one service's model, for callers that wait and for callers that await, on any event loop.

    A name is connected to at the first use, so that an adapter can be made, stored and pickled where no service is.
    """

    def __init__(
        self, service: str | Service | None, model: str | None, dimensions: int | None, connecting: Connecting
    ) -> None:
        _check(service, connecting)
        self.name = service.info.name if isinstance(service, Service) else service
        self.model = model
        self.dimensions = dimensions
        self._connecting = connecting
        self._client = service if isinstance(service, Service) else None
        self._given = self._client is not None
        self._lock = threading.Lock()

    @property
    def service(self) -> Service:
        """The client; connects where that has not happened yet, and raises what `connect` raises."""
        with self._lock:
            if self._client is None:
                self._client = connect(self.name, **self._connecting)
            return self._client

    def embed(self, texts: str | Iterable[str], input_type: InputType | None, *, progress: Progress = False) -> Vectors:
        """The vectors, (d,) or (n, d)."""
        return self.service.embed(
            texts, model=self.model, input_type=input_type, dimensions=self.dimensions, progress=progress
        )

    async def aembed(self, texts: str | list[str], input_type: InputType | None) -> Vectors:
        """The same, awaited; a cancel cancels the requests."""
        service = await asyncio.to_thread(lambda: self.service) if self._client is None else self._client
        return await service._awaited(texts, model=self.model, input_type=input_type, dimensions=self.dimensions)

    def lists(self, rows: Rows) -> list[list[float]]:
        """Vectors as the lists that other packages want; exactly the same numbers."""
        made: list[list[float]] = rows.tolist()
        return made

    def config(self) -> dict[str, Any]:
        """What another process needs to make the same again; keys are no part of it (EMBEDFLEET_API_KEY is)."""
        told = {"service": self.name, "model": self.model, "dimensions": self.dimensions}
        more = {key: value for key, value in self._connecting.items() if key != "api_key"}
        return {key: _plain(value) for key, value in (told | more).items() if value is not None}

    def __getstate__(self) -> dict[str, Any]:
        if self._given:
            raise TypeError("an adapter that was given a client cannot be pickled; give it the service's name")
        return {key: value for key, value in vars(self).items() if key not in ("_client", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _client=None, _lock=threading.Lock())

    def __repr__(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config().items())


def _check(service: object, connecting: Connecting) -> None:
    if service is not None and not isinstance(service, (str, Service)):
        raise BadInput(f"service is {service!r}; it must be a service's name or a client made by connect()")
    unknown = sorted(set(connecting) - set(Connecting.__annotations__))
    if unknown:
        known = ", ".join(Connecting.__annotations__)
        raise TypeError(f"unknown argument {unknown[0]!r}; those of connect() are: {known}")
    if isinstance(service, Service) and connecting:
        raise BadInput(f"{min(connecting)} is given with a client, which is connected already")


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
