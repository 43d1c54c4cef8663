"""Whose text is tokenised when: small requests do not wait for large texts."""

import asyncio
import itertools
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.protocols import Encoded, Item, Model, Side
from embedfleet_server.engine.tokenizing import Tokenizing, pieces
from embedfleet_server.engine.workers import ThreadWorkers
from tests.support.fake_model import FakeModel
from tests.support.simulation import SimulatedWorkers
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("S1", "N3")
FULL = 100_000
"""Characters of one call at most, unless it is one text."""


class Slow(SimulatedWorkers):
    """Tokenises a hundred thousand characters a second, of virtual time; notes how long the texts of each call are."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        self.calls.append([len(item) for item in items])
        await asyncio.sleep(sum(map(len, items)) / FULL)
        bad = [ItemError(n, "invalid_input", "is bad") for n, item in enumerate(items) if str(item).startswith("BAD")]
        if bad:
            raise BadItems(bad)
        return [Encoded([len(item)]) for item in items]


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_small_requests_do_not_wait_for_large_texts() -> None:
    """Four texts of a million characters and a request of three more: each takes 10 s, one after the other, and every
    small request that comes meanwhile is answered within what small ones take.
    """

    async def main() -> None:
        workers = Slow()
        tokenizing, model = Tokenizing(workers), FakeModel()
        large = [asyncio.create_task(tokenizing.encode(model, ["x" * 1_000_000] * n, "")) for n in (1, 1, 1, 1, 3)]
        while not all(task.done() for task in large):
            begun = _now()
            assert await tokenizing.encode(model, ["a text", "another"], "") == [Encoded([6]), Encoded([7])]
            assert _now() - begun == pytest.approx(0.00013)
            await asyncio.sleep(1)
        assert [len(task.result()) for task in large] == [1, 1, 1, 1, 3]
        assert _now() == pytest.approx(70, abs=1.1)
        assert [sizes for sizes in workers.calls if max(sizes) > FULL] == [[1_000_000]] * 7
        await tokenizing.close()

    run(main())


def test_a_request_of_many_texts_lets_others_in_between() -> None:
    """Forty texts of half a call are twenty calls, of which one at a time waits: a small request is never behind more
    than what runs when it comes.
    """

    async def main() -> None:
        workers = Slow()
        tokenizing, model = Tokenizing(workers, calls_at_once=1), FakeModel()
        many = asyncio.create_task(tokenizing.encode(model, ["y" * (FULL // 2)] * 40, ""))
        while not many.done():
            begun = _now()
            await tokenizing.encode(model, ["small"], "")
            assert _now() - begun <= 1.0001
            await asyncio.sleep(0.3)
        assert many.result() == [Encoded([FULL // 2])] * 40
        assert workers.calls.count([FULL // 2] * 2) == 20
        await tokenizing.close()

    run(main())


def test_bad_texts_are_named_by_their_place_in_the_request() -> None:
    """Whichever piece of it they are in, all of them."""

    async def main() -> None:
        tokenizing = Tokenizing(Slow())
        items = ["BAD 0", "x" * FULL, "y" * FULL, "BAD 3", "z" * (FULL + 1), "BAD" * FULL, "good", "BAD 7"]
        with pytest.raises(BadItems) as raised:
            await tokenizing.encode(FakeModel(), items, "")
        assert [error.index for error in raised.value.errors] == [0, 3, 5, 7]
        await tokenizing.close()

    run(main())


def test_a_caller_that_goes_away_takes_the_rest_of_its_texts_along() -> None:
    """Of five large texts the second is being tokenised: the others never are."""

    async def main() -> None:
        workers = Slow()
        tokenizing = Tokenizing(workers)
        asked = asyncio.create_task(tokenizing.encode(FakeModel(), ["x" * 1_000_000] * 5, ""))
        await asyncio.sleep(15)
        asked.cancel()
        await asyncio.sleep(100)
        assert len(workers.calls) == 2
        await tokenizing.close()

    run(main())


def test_other_large_work_takes_no_small_requests_turn() -> None:
    """Tokens shown rather than embedded: what is large of it waits among the large, the rest among the small."""

    async def main() -> None:
        workers = Slow()
        tokenizing, done = Tokenizing(workers), list[str]()
        large = asyncio.create_task(tokenizing.encode(FakeModel(), ["x" * 1_000_000], ""))
        shown = asyncio.create_task(tokenizing.aside(lambda: done.append("large"), FULL + 1))
        await asyncio.sleep(1)
        await tokenizing.aside(lambda: done.append("small"), FULL)
        await large
        await shown
        assert done == ["small", "large"]
        await tokenizing.close()

    run(main())


@given(st.lists(st.sampled_from([1, 30_000, 50_000, 99_999, 100_000, 100_001, 1_000_000]), max_size=12))
def test_pieces_are_full_calls_or_one_text(sizes: list[int]) -> None:
    """Together they are the request, in its order; none is over a call's limit but a text alone, none could take the
    next one's first text.
    """
    items = [range(size) for size in sizes]
    made = list(pieces(items))
    assert [len(item) for _, piece in made for item in piece] == sizes
    assert [items[start : start + len(piece)] for start, piece in made] == [piece for _, piece in made]
    for (_, piece), (_, following) in itertools.pairwise(made):
        assert sum(map(len, piece)) + len(following[0]) > FULL
    assert all(len(piece) <= 1 or sum(map(len, piece)) <= FULL for _, piece in made)


class Held(FakeModel):
    """Its tokenizer holds a text that begins with H until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.let_go = threading.Semaphore(0), threading.Event()

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        if any(str(item).startswith("H") for item in items):
            self.held.release()
            assert self.let_go.wait(60)
        return super().encode(items, prompt, input_type, side)


def test_there_is_a_thread_for_each_call() -> None:
    """Real threads: one held by a large text, one by a small one, and a third request is answered."""

    async def main() -> None:
        workers, model = ThreadWorkers(), Held()
        tokenizing = Tokenizing(workers)
        held = [asyncio.create_task(tokenizing.encode(model, ["H" * size], "")) for size in (FULL + 1, FULL + 1, 5)]
        for _ in range(2):
            assert await asyncio.to_thread(model.held.acquire, timeout=60)
        async with asyncio.timeout(60):
            assert len(await tokenizing.encode(model, ["a text", "another"], "")) == 2
        model.let_go.set()
        await asyncio.gather(*held)
        await tokenizing.close()
        workers.close()

    asyncio.run(main())
