"""What a model costs, measured before it serves: which forwards of made texts are run, and what they tell.

Pure. First two small ones at the shortest length, which tell what a start costs and foretell the rest; then so many
tokens at every length, and so many more where that may be faster. What would take longer than is left of the time, or
has no room in memory, is left out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_LENGTHS = (64, 16, 256, 1024)
"""Tokens of a text, the most usual first; a model's own limit stands for those above it."""
_FIRST = (1, 8)
"""Texts of the first forwards, of the shortest length."""
_TOKENS = (512, 4096, 16384)
"""Tokens of those that follow, at every length: what a CPU does in 0.1 s, and what fills a GPU."""
_GAIN = 0.1  # a start that takes less of a batch's time than this part is all that a larger batch could save
_AGAIN = 0.1  # seconds; a forward that took less is run once more, as it may have paid for what is prepared only once


@dataclass(frozen=True, slots=True)
class Shape:
    """A batch of texts of one length."""

    inputs: int
    length: int

    @property
    def tokens(self) -> int:
        """What a forward of it computes; nothing is padded."""
        return self.inputs * self.length


@dataclass(frozen=True, slots=True)
class Costs:
    """What a warm-up measured."""

    tokens_per_second: Mapping[int, float]
    """By the length of the texts, in the largest batch of it that ran."""
    start_seconds: float | None
    """What a forward takes however few its tokens; None where one size alone ran."""
    seconds: float
    """Of all its forwards."""
    reason: str
    """How far it went, in words."""


def ladder(max_tokens: int, most_inputs: int, most_tokens: int) -> list[Shape]:
    """The batches, the most telling first: of texts that the model takes, and none larger than traffic may form."""
    lengths = [length for length in _LENGTHS if length < max_tokens]
    lengths += [max_tokens] if max_tokens <= max(_LENGTHS) else []
    wanted = [(inputs * min(lengths), min(lengths)) for inputs in _FIRST]
    wanted += [(tokens, length) for tokens in _TOKENS for length in lengths]
    shapes = (Shape(max(1, min(most_inputs, min(tokens, most_tokens) // length)), length) for tokens, length in wanted)
    return list(dict.fromkeys(shapes))


@dataclass(slots=True)
class WarmUp:
    """One warm-up: asked for the next forward, told what became of it."""

    shapes: list[Shape]
    seconds: float
    """What all forwards together may take."""
    spent: float = 0.0
    _begun: bool = False
    _took: dict[Shape, float] = field(default_factory=dict)
    _again: Shape | None = None
    _reasons: list[str] = field(default_factory=list)

    def next(self, fitting: float) -> Shape | None:
        """The next batch, None at the end; of at most `fitting` tokens, but for the first, however tight memory is."""
        again, self._again = self._again, None
        if again is not None and self._has_time(again):
            return again
        while self.shapes:
            shape = self.shapes.pop(0)
            if self._begun and shape.tokens > fitting:
                self.say("larger batches would not have had room in memory")
            elif not self._has_time(shape):
                self.say(f"the rest would not have been done within {self.seconds:.2g} s")
            elif not self._may_gain(shape.length):
                self.say("larger batches would hardly have been faster")
            else:
                self._begun = True
                return shape
        return None

    def ran(self, shape: Shape, seconds: float) -> None:
        """A forward of it took so long; of two the shorter counts."""
        self.spent += seconds
        is_first = shape not in self._took
        self._took[shape] = min(seconds, self._took.get(shape, math.inf))
        self._again = shape if is_first and seconds < _AGAIN else None

    def failed(self, seconds: float) -> None:
        """A forward took so long and gave nothing."""
        self.spent += seconds

    def end(self, reason: str) -> None:
        """Nothing more is run."""
        self.shapes.clear()
        self._again = None
        self.say(reason)

    def say(self, reason: str) -> None:
        """Why it did not go on."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def points(self) -> list[tuple[int, float]]:
        """Tokens and seconds of each batch that ran."""
        return [(shape.tokens, seconds) for shape, seconds in self._took.items()]

    def costs(self) -> Costs:
        """What it measured."""
        speeds = _speeds(self._took.items())
        return Costs(speeds, self._start(), self.spent, "; ".join(self._reasons) or "all of it was run")

    def _has_time(self, shape: Shape) -> bool:
        """Whether it would be done in time, in proportion to the quickest tokens so far; the first is always run."""
        quickest = min((seconds / known.tokens for known, seconds in self._took.items()), default=0.0)
        return self.spent + quickest * shape.tokens <= self.seconds

    def _may_gain(self, length: int) -> bool:
        """Whether, in the largest batch of such texts so far, the start was more than little of the time."""
        took = max(
            ((shape.tokens, seconds) for shape, seconds in self._took.items() if shape.length == length), default=None
        )
        start = self._start()
        return took is None or start is None or start >= _GAIN * took[1]

    def _start(self) -> float | None:
        """By the smallest and the largest batch of the shortest texts, whose tokens cost the same."""
        shortest = min((shape.length for shape in self._took), default=0)
        found = sorted((shape.tokens, seconds) for shape, seconds in self._took.items() if shape.length == shortest)
        if len(found) < 2:  # a line takes two points
            return None
        (few, short), (many, long) = found[0], found[-1]
        return min(short, max(0.0, short - few * (long - short) / (many - few)))


def _speeds(took: Iterable[tuple[Shape, float]]) -> dict[int, float]:
    """Tokens a second by length; a clock that stood still tells none."""
    largest = sorted((shape.length, shape.tokens, seconds) for shape, seconds in took if seconds > 0)
    return {length: tokens / seconds for length, tokens, seconds in largest}
