"""Texts of any iterable, cut into what one request carries: lazily, each text within a window once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from embedfleet.errors import BadInput, InputError
from embedfleet.wire import Rows

MAX_INPUTS = 128
"""Texts in one request: work per request stays small beside the forward, and several requests fill a batch."""

MAX_CHARACTERS = 500_000
"""Characters in one request, so that its body stays a few MB; one longer text goes alone."""

MAX_TOKENS = 16_384
"""Tokens in one request, by estimate: the server's own default for one batch (`maxBatchTokens`)."""

WINDOW = 8192
"""Places that a text is remembered for, so that it is computed once however often it comes meanwhile."""

MOST_COVERED = 4096
"""Places that one chunk may cover, when most of its texts are repeated."""

_CHARACTERS_PER_TOKEN = 4  # of English by WordPiece or BPE; text outside ASCII is taken for one token a character
_OWN_TOKENS = 2  # the special ones
_LONG = 64  # characters; of longer texts a digest is remembered, so that the window's memory is bounded
_WANTED = "it must be a str"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive places of the call, and the texts among them that are new."""

    start: int
    """The place of the first."""
    texts: list[str]
    """What is to be computed."""
    offsets: tuple[int, ...] | None = None
    """The place of each text, from `start`; None: they are all there is, in order."""
    count: int = -1
    """Places covered."""
    copies: tuple[tuple[int, int], ...] = ()
    """Places (in the call) whose text stands at an earlier place too, with that place."""
    errors: tuple[InputError, ...] = ()
    """Places without a text."""
    floor: int = 0
    """The earliest place that this or a later chunk may copy."""

    def __post_init__(self) -> None:
        if self.count < 0:
            object.__setattr__(self, "count", len(self.texts))

    def place(self, row: int) -> int:
        """The place in the call of the text `row` of `texts`."""
        return self.start + (row if self.offsets is None else self.offsets[row])

    def part_of(self, rows: Sequence[int]) -> "Chunk":
        """Some of the texts, as a chunk that covers nothing else."""
        places = [self.place(row) for row in rows]
        offsets = tuple(place - places[0] for place in places)
        return Chunk(places[0], [self.texts[row] for row in rows], offsets)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may carry; `text_tokens` is where the model cuts a text."""

    inputs: int = MAX_INPUTS
    characters: int = MAX_CHARACTERS
    tokens: int = MAX_TOKENS
    text_tokens: int | None = None

    def estimate(self, text: str) -> int:
        """Tokens that `text` will be, roughly."""
        tokens = len(text) // _CHARACTERS_PER_TOKEN if text.isascii() else len(text)
        tokens += _OWN_TOKENS
        return tokens if self.text_tokens is None or tokens < self.text_tokens else self.text_tokens


DEFAULT_BOUNDS = Bounds()


@dataclass(slots=True)
class _Seen:
    """The first place of each text of the last `window` places."""

    window: int
    places: dict[str | bytes, int] = field(default_factory=dict)

    def before(self, text: str, index: int) -> int | None:
        """Where `text` stood before; remembers that it stands at `index` otherwise."""
        if not self.window:
            return None
        key = text if len(text) <= _LONG else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        earlier = self.places.get(key)
        if earlier is None or earlier < index - self.window:
            self.places.pop(key, None)  # a new entry goes to the end: the dict stays in the order of places
            self.places[key] = index
            earlier = None
        return earlier

    def forget(self, index: int) -> None:
        """Let go of what lies out of the window at `index`."""
        while self.places:
            key = next(iter(self.places))
            if self.places[key] >= index - self.window:
                return
            del self.places[key]


class _Draft:
    """A chunk in the making."""

    def __init__(self, start: int, bounds: Bounds) -> None:
        self._start, self._bounds = start, bounds
        self._texts: list[str] = []
        self._offsets: list[int] = []
        self._copies: list[tuple[int, int]] = []
        self._errors: list[InputError] = []
        self._count = self._characters = self._tokens = 0

    def fits(self, text: str | None) -> bool:
        """Whether the next place, with a text to compute or none, fits in."""
        if self._count >= MOST_COVERED:
            return False
        if text is None or not self._texts:
            return True
        return (
            len(self._texts) < self._bounds.inputs
            and self._characters + len(text) <= self._bounds.characters
            and self._tokens + self._bounds.estimate(text) <= self._bounds.tokens
        )

    def text(self, text: str) -> None:
        """A text to compute."""
        self._texts.append(text)
        self._offsets.append(self._count)
        self._characters += len(text)
        self._tokens += self._bounds.estimate(text)
        self._count += 1

    def copy(self, place: int) -> None:
        """The text of an earlier place."""
        self._copies.append((self._start + self._count, place))
        self._count += 1

    def error(self, error: InputError) -> None:
        """No text."""
        self._errors.append(error)
        self._count += 1

    def chunk(self, floor: int) -> Chunk:
        """As it is now."""
        plain = len(self._texts) == self._count
        return Chunk(
            self._start,
            self._texts,
            None if plain else tuple(self._offsets),
            self._count,
            tuple(self._copies),
            tuple(self._errors),
            floor,
        )

    def __bool__(self) -> bool:
        return self._count > 0


def split(
    texts: Iterable[str],
    bounds: Bounds = DEFAULT_BOUNDS,
    *,
    window: int = WINDOW,
    keep_bad: bool = False,
    first: int = 0,
) -> Iterator[Chunk]:
    """Chunks of `texts`, taken from the iterable only as they are asked for; the first text has the place `first`.

    `BadInput` at one that is no str, unless `keep_bad`: then the chunk names it.
    """
    draft, seen = _Draft(first, bounds), _Seen(window)
    for index, text in enumerate(readable(texts), first):
        is_text = isinstance(text, str)
        if not is_text and not keep_bad:
            raise BadInput.of([not_text(index, text)])
        earlier = seen.before(text, index) if is_text else None
        if not draft.fits(text if is_text and earlier is None else None):
            yield draft.chunk(index - window)
            seen.forget(index)
            draft = _Draft(index, bounds)
        _put(draft, index, text, earlier)
    if draft:
        yield draft.chunk(0)


def _put(draft: _Draft, index: int, text: object, earlier: int | None) -> None:
    if not isinstance(text, str):
        draft.error(not_text(index, text))
    elif earlier is None:
        draft.text(text)
    else:
        draft.copy(earlier)


def readable(texts: Iterable[Any]) -> Iterable[Any]:
    """`texts`, ready to be read one by one; `BadInput` for what is no iterable of texts in an order."""
    if isinstance(texts, str):
        raise BadInput("texts is one str; it must be an iterable of them")
    if isinstance(texts, bytes | bytearray | Mapping | AbstractSet) or not isinstance(texts, Iterable):
        raise BadInput(f"texts is {_shown(texts)}; it must be a str, or an iterable of str that has an order")
    if getattr(texts, "ndim", 1) != 1:
        raise BadInput(f"texts is {_shown(texts)} of {texts.ndim} dimensions; give one column of it")  # type: ignore[attr-defined]  # told by getattr
    return _plain(texts)


def _plain(texts: Iterable[Any]) -> Iterable[Any]:
    """A pyarrow array gives scalars of its own: its texts as Python's, some at a time."""
    if type(texts).__module__.partition(".")[0] != "pyarrow":
        return texts
    column: Any = texts
    return (text for start in range(0, len(column), 1024) for text in column[start : start + 1024].to_pylist())


def not_text(index: int, value: object) -> InputError:
    """The error for a thing that is no str."""
    return InputError(index, "invalid_type", f"is {_shown(value)}; {_WANTED}")


def _shown(value: object) -> str:
    if value is None:
        return "None"
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"


def halves(chunk: Chunk, place: Callable[[int], Rows]) -> list[tuple[Chunk, Callable[[int], Rows]]]:
    """The two halves of `chunk`, each with its part of the chunk's place."""
    middle = len(chunk.texts) // 2
    first, second = chunk.part_of(range(middle)), chunk.part_of(range(middle, len(chunk.texts)))
    return [(first, lambda d: place(d)[:middle]), (second, lambda d: place(d)[middle:])]


def check(texts: object) -> None:
    """`BadInput` listing every item of a list or tuple that is no str; other iterables are checked as they are read."""
    if isinstance(texts, list | tuple):
        errors = [not_text(index, text) for index, text in enumerate(texts) if not isinstance(text, str)]
        if errors:
            raise BadInput.of(errors)


def length(texts: object) -> int | None:
    """How many texts there are, where that can be told before reading them."""
    return len(texts) if isinstance(texts, Sized) else None


def kept(texts: object) -> Sequence[str] | None:
    """The texts themselves, where they can be read again."""
    return texts if isinstance(texts, list | tuple) else None
