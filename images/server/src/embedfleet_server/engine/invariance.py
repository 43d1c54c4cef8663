"""The same bits for the same input whatever shares its batch (`batching.deterministic`): what is asked of a model."""

import logging
from typing import Protocol, runtime_checkable

from embedfleet_server.engine.copies import copies_of
from embedfleet_server.engine.protocols import Model

_log = logging.getLogger("embedfleet.engine")


@runtime_checkable
class KeepsBits(Protocol):
    """A model that can be asked for it."""

    def keep_bits(self, on: bool) -> None:
        """Whether the same input gives the same bits whatever shares its batch, from the next batch on."""

    def bits_kept(self) -> str | None:
        """How that is done, in words; None where it is not asked for."""


class Bits:
    """What one model is asked for, loaded or not, and how often that changed."""

    def __init__(self) -> None:
        self._on = False
        self.changes = 0
        """Rows of inputs from before the last change are not those of inputs after it."""

    def ask(self, model: Model | None, on: bool) -> None:
        """Ask for it, or no more; a model that is not loaded yet is told once it is."""
        if on != self._on:
            self._on, self.changes = on, self.changes + 1
            if model is not None:
                self.tell(model)

    def tell(self, model: Model) -> None:
        """What is asked for now, to the model's copies on all devices."""
        for copy in copies_of(model):
            if isinstance(copy, KeepsBits):
                copy.keep_bits(self._on)
            elif self._on:
                _log.error("model %s cannot be asked for the same bits in any company: %s", model.info.name, _CANNOT)

    def kept(self, model: Model | None) -> tuple[bool, str | None]:
        """Whether the model does as it was asked, and how, or why not."""
        if not self._on or model is None:
            return False, None
        first = copies_of(model)[0]
        if not isinstance(first, KeepsBits):
            return False, _CANNOT
        return True, _said(first)


def _said(model: Model) -> str | None:
    how = model.bits_kept() if isinstance(model, KeepsBits) else None
    if how is None or not model.info.by_clock:
        return how
    chosen = " and ".join(model.info.by_clock)
    return f"{how}; at load a clock chose {chosen}: start with deterministic set to have the same after each start"


_CANNOT = "it has no such form"
