"""How many inputs a batch should hold, learnt from the batches that ran.

The search (`climb`) finds the size that computes the most tokens a second within the target, from what was measured
(`speeds`). Here stands when to search: at the start, when the device is no longer what it was, around the size kept
when its batches grow too slow, and now and then, as only a look at its neighbours can show that they became better.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from embedfleet_server.batching.climb import Climb, ladder, look_around, search_all, search_below
from embedfleet_server.batching.speeds import Speeds

_CHANGED = 0.2  # the speed of the size kept moved by this much: the device or the texts are not what they were
_SLACK = 1.01  # of the target, before a size kept is left: the slow end is known to 1 %
_RECHECK = 1000  # batches from one look at the neighbours to the next: some 15 of these are a little slower
_LATE_WEIGHT, _TOO_LATE = 0.02, 0.1  # running share of late batches: six in a row, or for long twice what may be
_QUIET = 20  # batches without a failure before a size cut by failures grows by a rung


@dataclass(slots=True)
class AdaptiveSize:
    """The size of the next batch of one model; `target` is the longest that a batch should take, in seconds."""

    smallest: int = 1
    largest: int = 256
    initial: int = 32
    target: float | None = None
    _speeds: Speeds = field(default_factory=Speeds)
    _sizes: list[int] = field(init=False)
    _climb: Climb = field(init=False)
    _at: int = field(init=False)
    _ceiling: int = field(init=False)
    """Highest rung for the present: batches failed."""
    _kept: float | None = None
    """Speed of the size kept, as it was when the search ended; None while it goes on."""
    _kept_for: int = 0
    _late: float = 0.0
    _quiet: int = 0

    def __post_init__(self) -> None:
        self._bind(self.initial)

    @property
    def size(self) -> int:
        """Most inputs in the next batch."""
        return self._sizes[min(self._at, self._ceiling)]

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return self._kept is not None

    def change(self, smallest: int, largest: int, target: float | None) -> None:
        """New bounds; what was measured still counts."""
        if (smallest, largest, target) != (self.smallest, self.largest, self.target):
            size = self.size
            self.smallest, self.largest, self.target = smallest, largest, target
            self._bind(size)
            self._step()

    def ran(self, inputs: int, tokens: int, seconds: float) -> None:
        """A batch of so many inputs ran; `tokens` are those of the texts, without padding.

        One whose size is a rung teaches the speed there, whatever the present size is.
        """
        if inputs <= 0 or tokens <= 0 or seconds <= 0:
            return
        self._recover()
        is_rung = inputs in self._sizes
        if is_rung:
            self._speeds.learn(inputs, tokens, seconds)
        if (self.settled or not is_rung) and self._are_late(seconds):
            self._stay_below()
        elif self.settled:
            self._keep()
        self._step()

    def failed(self) -> None:
        """A batch failed: go on with smaller ones for a while."""
        self._ceiling = max(0, min(self._at, self._ceiling) - 1)
        self._quiet = 0

    # When to search.

    def _bind(self, size: int) -> None:
        """Take up the bounds, and search from `size` on."""
        self._sizes = ladder(self.smallest, self.largest)
        self._ceiling = len(self._sizes) - 1
        self._at = max(0, bisect_right(self._sizes, size) - 1)
        self._search(search_all(self._sizes, self._at))

    def _search(self, climb: Climb) -> None:
        self._climb, self._kept, self._late = climb, None, 0.0

    def _step(self) -> None:
        """Where a search goes on, its next rung."""
        if not self.settled:
            self._at, done = self._climb.next(self._speeds, self.target)
            if done:
                self._kept, self._kept_for = self._speeds.speed(self._sizes[self._at]), 0

    def _keep(self) -> None:
        """Stay, unless the device changed or became too slow, or it is time to look at the neighbours."""
        self._kept_for += 1
        size = self._sizes[self._at]
        if self._has_changed(size):
            self._anew()
        elif self._is_slow(size) and self._at > 0:
            self._search(search_below(self._sizes, self._at))
        elif self._kept_for >= _RECHECK:
            self._speeds.forget_others(size)
            self._search(look_around(self._sizes, self._at))

    def _has_changed(self, size: int) -> bool:
        """Whether the device is not what it was: at once, or bit by bit."""
        kept = self._kept or 0.0
        return self._speeds.is_strange or abs(self._speeds.speed(size) - kept) > _CHANGED * kept

    def _is_slow(self, size: int) -> bool:
        """Whether batches of the size kept take a little too long; where they take far longer, the device changed."""
        return self.target is not None and self._speeds.is_calm and self._speeds.slow_end(size) > _SLACK * self.target

    def _anew(self) -> None:
        self._speeds.forget()
        self._search(search_all(self._sizes, self._at))

    # Late and failing batches.

    def _are_late(self, seconds: float) -> bool:
        """Whether far more batches than 1 in 20 take longer than the target."""
        late = self.target is not None and seconds > self.target
        self._late += _LATE_WEIGHT * (late - self._late)
        return self._late > _TOO_LATE

    def _stay_below(self) -> None:
        """Too many batches were late: search below this size, and anew when it is the device that changed."""
        if self.settled and not self._speeds.is_calm:
            self._anew()
        elif self.settled:
            self._search(search_below(self._sizes, self._at))
        self._climb.limit, self._late = max(1, self._at), 0.0

    def _recover(self) -> None:
        """A size cut by failures grows back, a rung at a time."""
        self._quiet += 1
        if self._quiet >= _QUIET:
            self._quiet = 0
            self._ceiling = min(len(self._sizes) - 1, self._ceiling + 1)
