"""How far waits go beyond what stands before them: batches of like length are not formed in the order of arrival."""

from dataclasses import dataclass

from embedfleet_server.batching.types import Batch

_STEP, _ABOVE = 0.05, 0.01  # one work in a hundred takes longer than the ratio says
_START, _MOST = 1.5, 4.0


@dataclass(slots=True)
class Spread:
    """The time that nearly all works stay under, as a multiple of what was expected when they came."""

    ratio: float = _START

    def learn(self, batch: Batch, ended: float) -> None:
        """A batch ran: a step up for each work it finished later than said, a small one down for each in time."""
        for work in {entry[2] for entry in batch.entries}:
            if work.expected <= 0 or work.waiting or work.held or work.cancelled:
                continue
            late = ended - work.arrived > self.ratio * work.expected
            self.ratio += _STEP * (1 - _ABOVE) if late else -_STEP * _ABOVE
        self.ratio = min(_MOST, max(1.0, self.ratio))
