"""One slot per model: not loaded, loading, loaded or failed. Loading happens once, however many ask."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from embedfleet_server.engine.copies import copies_of
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.invariance import Bits
from embedfleet_server.engine.protocols import Encoded, Item, Loader, Model, ModelInfo, Pair
from embedfleet_server.engine.rows import finite, problem
from embedfleet_server.engine.workers import Workers

State = Literal["Pending", "Loading", "Ready", "Failed"]
_BACKOFF, _LONGEST_BACKOFF = 10.0, 300.0  # seconds; doubles: what the kubelet does for a container that fails to start
_KNOWN_TEXT = "The quick brown fox jumps over the lazy dog."
_log = logging.getLogger("embedfleet.engine")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the engine is told of one model."""

    name: str
    loader: Loader
    lazy: bool = False
    required: bool = True
    is_view: bool = False
    """Whether it is another face of a model there is, asked for by the server itself alone."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What the engine tells of one model."""

    name: str
    state: State
    required: bool
    info: ModelInfo | None = None
    cause: str | None = None
    deterministic: bool = False
    """Whether the same input gives the same bits whatever shares its batch."""
    deterministic_reason: str | None = None
    """How that is done, or why it is not though it was asked for."""


Prepare = Callable[[ModelConfig, Model, int], Awaitable[None]]
"""What is done with a model whose self-test, of so many tokens, was well, before it is ready."""


class Slot:
    """The place of one model."""

    def __init__(
        self, config: ModelConfig, workers: Workers, prepare: Prepare, on_ready: Callable[[str, Model], None]
    ) -> None:
        """`on_ready` hears of the loaded model."""
        self.config = config
        self.state: State = "Pending"
        self.model: Model | None = None
        self.cause: str | None = None
        self.bits = Bits()
        self._workers = workers
        self._prepare, self._on_ready = prepare, on_ready
        self._loading: asyncio.Task[None] | None = None
        self._failures = 0
        self._next_attempt = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def status(self) -> ModelStatus:
        """The slot as it is now."""
        info = self.model.info if self.model is not None else None
        kept = self.bits.kept(self.model)
        return ModelStatus(self.config.name, self.state, self.config.required, info, self.cause, *kept)

    async def get(self) -> Model:
        """The model, loaded now if it was not; raises `ModelLoadFailed`, at once during a back-off."""
        if self.model is None:
            if self._loading is None:
                self._raise_in_backoff()
                self.start()
            if self._loading is not None:
                await asyncio.wait([self._loading])
        if self.model is None:
            raise self._failed()
        return self.model

    def start(self) -> None:
        """Begin to load, unless that is under way or done."""
        if self._loading is None and self.model is None:
            self.state = "Loading"
            self._loading = asyncio.create_task(self._load())

    async def close(self) -> None:
        """No further attempt; what the model holds is given back."""
        if self._timer is not None:
            self._timer.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self.model is not None and not self._closed:
            self._closed = True
            self.model.close()

    async def _load(self) -> None:
        model: Model | None = None
        try:
            model = await self._workers.load(self.config.loader)
            self.bits.tell(model)
            await self._prepare(self.config, model, await self._self_test(model))
            self.bits.tell(model)  # once more: it may have changed since
        except Exception as error:  # noqa: BLE001  # any cause fails this model alone
            self._on_failure(error)
        else:
            self.model, self.state, self.cause, self._failures = model, "Ready", None, 0
            _log.info(
                "model %s is ready precision=%s device=%s",
                model.info.name, model.info.precision, ",".join(model.info.devices),
            )  # fmt: skip
            self._on_ready(self.config.name, model)
        finally:
            if model is not None and model is not self.model:
                model.close()
            self._loading = None

    async def _self_test(self, model: Model) -> int:
        """A known input must give one finite row of the stated length on each device; pays the first forwards' cost."""
        info = model.info
        known: Item = Pair(_KNOWN_TEXT, _KNOWN_TEXT) if info.task == "Rerank" else _KNOWN_TEXT
        encoded = await self._workers.encode(model, [known], "")
        for copy in copies_of(model):
            await self._test(copy, encoded, f" on {copy.info.device}" if info.other_devices else "")
        return len(encoded[0].token_ids)

    async def _test(self, copy: Model, encoded: list[Encoded], where: str) -> None:
        """One copy's; it may stand `where` others do not."""
        try:
            rows = (await self._workers.forward(copy, encoded)).results
        except Exception as error:
            if not where:
                raise
            raise ModelLoadFailed(self.config.name, f"its self-test{where}: {type(error).__name__}: {error}") from error
        if (wrong := problem(rows, 1, copy.info.task, copy.info.native_dimensions)) is not None:
            raise ModelLoadFailed(self.config.name, f"its self-test{where} {wrong}")
        if not finite(rows).all():
            raise ModelLoadFailed(self.config.name, f"its self-test{where} gave a row that is not finite")

    def _on_failure(self, error: Exception) -> None:
        self.state = "Failed"
        self.cause = error.cause if isinstance(error, ModelLoadFailed) else f"{type(error).__name__}: {error}"
        wait = min(_LONGEST_BACKOFF, _BACKOFF * 2**self._failures)
        self._failures += 1
        loop = asyncio.get_running_loop()
        self._next_attempt = loop.time() + wait
        _log.error("model %s could not be loaded (next attempt in %.0f s): %s", self.config.name, wait, self.cause)
        if not self.config.lazy:
            self._timer = loop.call_later(wait, self.start)

    def _raise_in_backoff(self) -> None:
        if self.state == "Failed" and asyncio.get_running_loop().time() < self._next_attempt:
            raise self._failed()

    def _failed(self) -> ModelLoadFailed:
        wait = max(0.0, self._next_attempt - asyncio.get_running_loop().time())
        return ModelLoadFailed(self.config.name, self.cause or "unknown", wait)
