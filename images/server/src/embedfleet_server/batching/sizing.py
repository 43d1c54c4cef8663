"""How much a batch should hold, learnt from the batches that ran.

Three questions, apart from one another: the size that computes the most tokens a second is searched (`climb`) by what
was measured (`speeds`); the latency target is a budget of tokens (`target`); batches that fail lower a ceiling. Here
stands when to search: at the start, when the device is no longer what it was, and now and then, as only a look at its
neighbours can show that they became better.

A size is a count of inputs, of which long ones take more time: a batch also holds no more than a few times the tokens
that as many inputs of average length have.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedfleet_server.batching.climb import Climb, ladder, look_around, search_all
from embedfleet_server.batching.speeds import LONG, Speeds
from embedfleet_server.batching.target import TargetBudget

_CHANGED = 0.2  # the speed of the size kept moved by this much: the device or the texts are not what they were
_BESIDE = 0.7  # of what the target allowed when a size was kept: a size so near to it was chosen for want of more,
_WIDER = 1.1  # and is left when so many times that is allowed
_RECHECK = 1000  # batches from one look at the neighbours to the next: some 15 of these are a little slower
_QUIET = 20  # batches without a failure before a size cut by failures grows by a rung
_CUT = 0.8  # of its budget: a batch with more tokens was ended by them, as no further input fitted


@dataclass(slots=True)
class AdaptiveSize:
    """The size of the next batch of one model; `target` is the longest that a batch should take, in seconds."""

    smallest: int = 1
    largest: int = 256
    initial: int = 32
    target: float | None = None
    _speeds: Speeds = field(default_factory=Speeds)
    _budget: TargetBudget = field(default_factory=TargetBudget)
    _allowed: float = math.inf
    """Computed tokens, by what else cuts batches short."""
    _limit: float = math.inf
    """Inputs of average length that the target and the tokens allowed leave."""
    _sizes: list[int] = field(init=False)
    _climb: Climb = field(init=False)
    _at: int = field(init=False)
    _ceiling: int = field(init=False)
    """Highest rung for the present: batches failed."""
    _kept: float | None = None
    """Speed of the size kept, as it was when the search ended; None while it goes on."""
    _kept_limit: float = math.inf
    """What the target allowed then."""
    _kept_for: int = 0
    _quiet: int = 0

    def __post_init__(self) -> None:
        self._bind(self.initial)

    @property
    def most(self) -> int:
        """Most inputs in the next batch, however short."""
        at = len(self._sizes) - 1 if self._is_cut else self._at
        return self._sizes[min(at, self._ceiling)]

    @property
    def tokens(self) -> int | None:
        """Most tokens that the next batch may compute; before the first ran, by the target alone, None where none is.

        One input always may go.
        """
        mean = self._budget.mean
        if not mean:
            return None if self.target is None else self._budget.tokens(self.target)
        tokens = min(LONG * self.most, max(self.smallest, self._limit)) * mean
        return max(1, int(tokens + 1e-6))  # what was divided by the mean comes back whole

    @property
    def size(self) -> int:
        """Most inputs of average length in the next batch."""
        return max(self.smallest, min(self.most, int(min(self._limit, self.largest) + 1e-6)))

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return self._kept is not None

    def change(self, smallest: int, largest: int, target: float | None) -> None:
        """New bounds; what was measured still counts."""
        if (smallest, largest, target) != (self.smallest, self.largest, self.target):
            size = self.size
            self.smallest, self.largest, self.target = smallest, largest, target
            self._cap()
            self._bind(size)
            self._step()

    def ran(
        self, inputs: int, tokens: int, seconds: float, computed: int | None = None, allowed: float = math.inf
    ) -> None:
        """A batch of so many inputs ran; `tokens` are those of the texts, `computed` those with padding.

        One whose size is a rung teaches the speed there, whatever the present size is. `allowed` are the computed
        tokens beyond which something else cuts batches short: the configuration, or memory.
        """
        if inputs <= 0 or tokens <= 0 or seconds <= 0:
            return
        self._recover()
        computed = computed or tokens
        size = self._size_of(inputs, computed)
        self._budget.learn(inputs, computed, seconds, self.target)
        self._allowed = allowed
        self._cap()
        if size is not None:
            self._speeds.learn(size, inputs, tokens, seconds)
        if self.settled:
            self._keep()
        self._step()

    def seed(self, points: Sequence[tuple[int, float]]) -> None:
        """Computed tokens and seconds of forwards before the first batch: they tell what the target allows.

        Which size is the best they do not: sizes are compared with the texts that come.
        """
        self._budget.seed(points)

    def failed(self) -> None:
        """A batch failed: go on with smaller ones for a while."""
        self._ceiling = max(0, bisect_right(self._sizes, self.size) - 2)
        self._quiet = 0

    # When to search.

    def _bind(self, size: int) -> None:
        """Take up the bounds, and search from `size` on."""
        self._sizes = ladder(self.smallest, self.largest)
        self._ceiling = len(self._sizes) - 1
        self._at = max(0, bisect_right(self._sizes, size) - 1)
        self._search(search_all(self._sizes, self._at))

    def _search(self, climb: Climb) -> None:
        self._climb, self._kept = climb, None

    def _step(self) -> None:
        """Where a search goes on, its next rung."""
        if not self.settled:
            self._at, done = self._climb.next(self._speeds, self._limit)
            if done:
                self._kept, self._kept_for = self._speeds.speed(self._sizes[self._at]), 0
                self._kept_limit = self._limit

    def _keep(self) -> None:
        """Stay, unless the device changed or more is allowed, or it is time to look at the neighbours."""
        self._kept_for += 1
        size = self._sizes[self._at]
        if self._has_changed(size):
            self._speeds.forget()
            self._search(search_all(self._sizes, self._at))
        elif not self._is_cut and size > _BESIDE * self._kept_limit and self._limit > _WIDER * self._kept_limit:
            self._search(search_all(self._sizes, self._at))
        elif self._kept_for >= _RECHECK:
            self._speeds.forget_others(size)
            self._search(look_around(self._sizes, self._at))

    def _has_changed(self, size: int) -> bool:
        """Whether the device is not what it was: at once, or bit by bit."""
        kept = self._kept or 0.0
        return self._speeds.is_strange or abs(self._speeds.speed(size) - kept) > _CHANGED * kept

    # What ends a batch.

    def _cap(self) -> None:
        """Take up what the target allows, and what else cuts batches short."""
        target = None if self.target is None else self._budget.tokens(self.target)
        tokens = self._allowed if target is None else min(target, self._allowed)
        self._limit = tokens / self._budget.mean if self._budget.mean else math.inf
        self._speeds.limit = self._limit

    @property
    def _is_cut(self) -> bool:
        """Whether the size kept is one that the target cuts short: then that alone decides."""
        return self.settled and self._sizes[self._at] >= self._kept_limit

    def _size_of(self, inputs: int, computed: int) -> int | None:
        """Of which size a batch teaches: the present one if its tokens ended it, else its own, if that is a rung."""
        if inputs < self.most and self.tokens is not None and computed >= _CUT * self.tokens:
            return self._sizes[min(self._at, self._ceiling)]
        return inputs if inputs in self._sizes else None

    def _recover(self) -> None:
        """A size cut by failures grows back, a rung at a time."""
        self._quiet += 1
        if self._quiet >= _QUIET:
            self._quiet = 0
            self._ceiling = min(len(self._sizes) - 1, self._ceiling + 1)
