"""Splitting and putting together."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet import chunks, stream
from embedfleet.chunks import Bounds, Chunk, split
from embedfleet.errors import BadInput, ModelChanged, ProtocolError
from embedfleet.gate import Gate, Place
from embedfleet.stream import Result
from embedfleet.tally import Tally
from embedfleet.wire import Rows


@given(st.lists(st.text(max_size=12), max_size=60), st.integers(1, 9), st.integers(1, 40))
def test_chunks_are_the_texts_in_order_within_both_bounds(texts: list[str], inputs: int, characters: int) -> None:
    """Nothing is lost, doubled or moved; a chunk passes the bound of characters only when one text alone does."""
    made = list(split(texts, Bounds(inputs, characters), window=0))
    assert [text for chunk in made for text in chunk.texts] == texts
    assert [chunk.start for chunk in made] == [sum(len(c.texts) for c in made[:i]) for i in range(len(made))]
    for chunk in made:
        assert 1 <= len(chunk.texts) <= inputs
        assert len(chunk.texts) == 1 or sum(map(len, chunk.texts)) <= characters


def test_the_iterable_is_read_only_as_far_as_needed() -> None:
    """The first chunk of ten needs eleven texts, not the million."""
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for number in range(1_000_000):
            read += 1
            yield str(number)

    assert len(next(split(texts(), Bounds(10))).texts) == 10
    assert read == 11


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a", None], r"texts\[1\]: is None; it must be a str"),
        (["a", b"b"], r"texts\[1\]: is the bytes b'b'"),
        (["a", ["b"]], r"texts\[1\]: is the list \['b'\]"),
        (["a", 1.5], r"texts\[1\]: is the float 1.5"),
        (b"abc", "texts is the bytes b'abc'"),
        ({"a": "b"}, "texts is the dict"),
        ({"a"}, "texts is the set"),
        (7, "texts is the int 7"),
        (None, "texts is None"),
        ("abc", "texts is one str"),
        (np.array([["a", "b"]]), "of 2 dimensions"),
    ],
)
def test_what_is_no_text_is_named(texts: Any, says: str) -> None:
    """The error says which place, what stands there and what must stand there."""
    with pytest.raises(BadInput, match=says):
        list(split(texts))


def test_a_list_is_checked_whole_before_anything_is_sent() -> None:
    """All bad places of a list are told at once."""
    with pytest.raises(BadInput) as caught:
        chunks.check(["a", None, "b", 3])
    assert caught.value.indexes == [1, 3]


def test_numpy_strings_are_texts() -> None:
    """An array of strings works as it is."""
    assert next(split(np.array(["a", "b"]))).texts == ["a", "b"]


@pytest.mark.parametrize("total", [5, None])
def test_rows_stand_in_order_whichever_came_first(total: int | None) -> None:
    """Chunks that arrive in any order make one float32 array in C order, whether or not n was known before."""
    result = Result(total)
    for chunk in (Chunk(3, ["d", "e"]), Chunk(0, ["a", "b", "c"])):
        result.place(chunk, 2)[:] = chunk.start
        result.settle(chunk)
    rows = result.rows()
    assert rows is not None
    assert rows.tolist() == [[0, 0]] * 3 + [[3, 3]] * 2
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous


def test_answers_that_do_not_fit_together_are_refused() -> None:
    """Two lengths of vectors, or two fingerprints, in one call are vectors that cannot be compared."""
    result = Result(None)
    result.place(Chunk(0, ["a"]), 2)
    with pytest.raises(ProtocolError, match="3 dimensions"):
        result.place(Chunk(1, ["b"]), 3)
    tally = Tally()
    tally.made_by("f1")
    tally.made_by(None)
    with pytest.raises(ModelChanged, match="the model changed during the call"):
        tally.made_by("f2")


def test_a_sequence_that_gives_fewer_texts_than_it_says_is_refused() -> None:
    """Rows that nobody wrote are never given out."""
    result = Result(3)
    result.place(Chunk(0, ["a"]), 2)
    result.settle(Chunk(0, ["a"]))
    with pytest.raises(BadInput, match="gave 1 texts and said that it had 3"):
        result.rows()


def test_halves_share_the_place_of_the_whole() -> None:
    """Both halves of a chunk that was too large write where the chunk would have."""
    whole = np.zeros((3, 2), np.float32)
    (first, one), (second, two) = chunks.halves(Chunk(7, ["a", "b", "c"]), lambda dimensions: whole)
    one(2)[:], two(2)[:] = 1, 2
    assert (first.place(0), first.texts, second.place(1), second.texts) == (7, ["a"], 9, ["b", "c"])
    assert whole.tolist() == [[1, 1], [2, 2], [2, 2]]


@given(st.integers(0, 60), st.integers(1, 7), st.randoms(use_true_random=False), st.booleans())
def test_every_run_gives_every_row_its_place(count: int, size: int, random: Any, known: bool) -> None:
    """However answers overtake each other, row i is text i's; progress adds up; the gate is empty afterwards."""
    texts = [str(number) for number in range(count)]

    async def main() -> None:
        gate, told, result = Gate(), list[int](), Result(count if known else None)
        pieces = split(texts, Bounds(size))

        async def pull() -> Chunk | None:
            return next(pieces, None)

        async def embed(chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
            for _ in range(random.randrange(5)):
                await asyncio.sleep(0)
            place(1)[:, 0] = [float(text) for text in chunk.texts]

        await stream.run(pull, embed, gate, result, told.append)
        rows = result.rows()
        assert (rows[:, 0].tolist() if rows is not None else []) == list(range(count))
        assert sum(told) == count
        assert (gate.requests, gate.inputs) == (0, 0)

    asyncio.run(main())


def test_the_first_error_cancels_the_rest_and_comes_out_alone() -> None:
    """A failing request ends the call with its own error, not a group, and leaves no place taken."""

    async def main() -> None:
        gate, ended = Gate(), list[str]()
        pieces = split([str(number) for number in range(10)], Bounds(1))

        async def pull() -> Chunk | None:
            return next(pieces, None)

        async def embed(chunk: Chunk, where: Place, place: Callable[[int], Rows]) -> None:
            try:
                if chunk.start == 2:
                    raise BadInput("the third")
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append(chunk.texts[0])

        with pytest.raises(BadInput, match="the third"):
            await stream.run(pull, embed, gate, Result(10), lambda _: None)
        assert "2" in ended
        assert (gate.requests, gate.inputs) == (0, 0)

    asyncio.run(main())
