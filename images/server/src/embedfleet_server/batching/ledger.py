"""What became of the inputs, counted."""

from dataclasses import dataclass

from embedfleet_server.batching.types import Stats


@dataclass(slots=True)
class Ledger:
    """Counts of inputs since the start, but for `batches`; what waits is counted by the door."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    retried: int = 0
    running: int = 0
    batches: int = 0

    def stats(self, waiting: int, active_batches: int) -> Stats:
        """The counts, with what waits and runs now."""
        return Stats(
            self.submitted, self.completed, self.failed, self.cancelled, self.refused, self.retried,
            waiting, self.running, self.batches, active_batches,
        )  # fmt: skip
