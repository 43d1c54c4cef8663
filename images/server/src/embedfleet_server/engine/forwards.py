"""What is asked of whoever computes batches, and what comes of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from embedfleet_server.engine.protocols import Encoded
from embedfleet_server.engine.rows import AnyRows


@dataclass(frozen=True, slots=True)
class Computed:
    """The results of one batch."""

    results: Any
    """As the model's task has them (see `rows`), in the batch's order."""
    ended: float
    """When they were there, on the loop's clock, which may come to it later."""
    peak_mib: float | None = None
    """MiB that it took at its peak beyond the model's own; None where that is not known."""


class Forwards(Protocol):
    """Where a batch is computed, away from the event loop. Results of a device come in the order of its batches."""

    async def forward(self, model: Any, batch: Sequence[Any], /) -> Computed:
        """What `model` gives for the payloads of a batch."""


@runtime_checkable
class Launches(Protocol):
    """A model whose device may compute by itself, while its thread hands the next batch over."""

    @property
    def launches(self) -> bool:
        """Whether it does: a GPU, and a CPU where other threads may compute."""

    def launch(self, batch: Sequence[Encoded]) -> Callable[[], AnyRows] | None:
        """`Model.forward` without the waiting: what is returned waits for the rows, and may in another thread.

        None for a batch that the device's thread is to compute by `Model.forward`, which waits for those before it.
        From its return on, `peak_mib` is that of this batch: memory is given out as work is handed over.
        """

    def peak_mib(self) -> float | None:
        """See `Model.peak_mib`."""


@runtime_checkable
class TellsItsEnd(Protocol):
    """What `launch` gives where a batch may be there before the one in front of it, as rows on several threads are."""

    @property
    def ended(self) -> float:
        """When its rows were there, on the loop's clock; once they were waited for."""
