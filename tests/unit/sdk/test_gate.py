"""How many requests are in flight."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.gate import FIRST_LIMIT, HIGHEST_LIMIT, LONG_QUEUE_SECONDS, Gate, Place


async def turns() -> None:
    """Let every other task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def sent(gate: Gate, count: int) -> list[Place]:
    """So many requests of one input, on their way."""
    places = [await gate.enter(1) for _ in range(count)]
    for place in places:
        gate.sent(place)
    return places


def test_the_limit_holds_and_the_first_come_is_the_first_served() -> None:
    """The fifth request waits for a place, and those who wait enter in their order."""

    async def main() -> None:
        gate, entered = Gate(), list[int]()
        held = [await gate.enter(1) for _ in range(FIRST_LIMIT)]

        async def late(number: int) -> None:
            await gate.enter(1)
            entered.append(number)

        waiting = [asyncio.create_task(late(number)) for number in range(3)]
        await turns()
        assert entered == []
        gate.leave(held[0])
        gate.leave(held[1])
        await turns()
        assert entered == [0, 1]
        gate.leave(held[2])
        await asyncio.gather(*waiting)
        assert entered == [0, 1, 2]

    asyncio.run(main())


def test_inputs_in_flight_stay_within_what_the_server_holds() -> None:
    """With room for 100 inputs the third request of 40 waits; one of more than the room goes alone."""

    async def main() -> None:
        gate = Gate(room=100)
        first, second = await gate.enter(40), await gate.enter(40)
        third = asyncio.create_task(gate.enter(400))
        await turns()
        assert not third.done()
        gate.leave(first)
        await turns()
        assert not third.done()
        gate.leave(second)
        assert (await third).inputs == 400

    asyncio.run(main())


def test_the_limit_rises_by_one_for_each_window_of_answers() -> None:
    """Four answers at a limit of four make it about five; it never passes its bound."""
    gate = Gate()
    for _ in range(FIRST_LIMIT + 1):
        gate.answered(0.0)
    assert int(gate.limit) == FIRST_LIMIT + 1
    for _ in range(HIGHEST_LIMIT**2):
        gate.answered(0.0)
    assert gate.limit == HIGHEST_LIMIT


def test_a_cap_is_never_passed() -> None:
    """However well the server takes it: a way that others share has a limit of its own."""
    gate = Gate(most=5)
    for second in range(1000):
        gate.answered(float(second))
    assert gate.limit == 5


def test_a_long_queue_at_the_server_keeps_the_limit() -> None:
    """More in flight would only wait longer there."""
    gate = Gate()
    gate.answered(0.0, LONG_QUEUE_SECONDS)
    assert gate.limit == FIRST_LIMIT


def test_refusals_of_one_congestion_halve_once() -> None:
    """All requests that were out when the server was full count as one sign of it; the next time counts anew."""

    async def main() -> None:
        gate = Gate(limit=16)
        places = [await gate.enter(1) for _ in range(10)]
        for place in places:
            gate.refused(place)
        assert gate.limit == 8
        gate.sent(places[0])
        gate.refused(places[0])
        assert gate.limit == 4

    asyncio.run(main())


def test_the_limit_never_falls_below_one() -> None:
    """A server that always refuses is still asked, by one request at a time."""

    async def main() -> None:
        gate = Gate()
        place = await gate.enter(1)
        for _ in range(20):
            gate.sent(place)
            gate.refused(place)
        assert gate.limit == 1

    asyncio.run(main())


def _cancel_waiting(_: Gate, task: "asyncio.Task[Place]", held: Place) -> None:
    task.cancel()


def _cancel_as_its_turn_comes(gate: Gate, task: "asyncio.Task[Place]", held: Place) -> None:
    gate.leave(held)
    task.cancel()


def _cancel_then_free(gate: Gate, task: "asyncio.Task[Place]", held: Place) -> None:
    task.cancel()
    gate.leave(held)


@pytest.mark.parametrize(
    ("cancel", "left"), [(_cancel_waiting, 1), (_cancel_as_its_turn_comes, 0), (_cancel_then_free, 0)]
)
def test_a_cancelled_wait_loses_no_place(
    cancel: Callable[[Gate, "asyncio.Task[Place]", Place], None], left: int
) -> None:
    """Whenever the cancel comes, the place is neither kept nor given back twice."""

    async def main() -> None:
        gate = Gate(limit=1)
        held = await gate.enter(1)
        task = asyncio.create_task(gate.enter(1))
        await turns()
        cancel(gate, task, held)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert (gate.requests, gate.inputs) == (left, left)

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 100))
def test_places_add_up(requests: list[tuple[int, int, bool]], room: int) -> None:
    """Whatever comes and whatever is cancelled: the bounds hold at every moment and at the end the gate is empty."""

    async def main() -> None:
        gate = Gate(room=room)

        async def one(inputs: int, work: int) -> None:
            place = await gate.enter(inputs)
            try:
                assert gate.requests <= FIRST_LIMIT
                assert gate.inputs <= room or gate.requests == 1
                for _ in range(work):
                    await asyncio.sleep(0)
            finally:
                gate.leave(place)

        tasks: list[tuple[Awaitable[None], bool]] = []
        for inputs, work, cancelled in requests:
            task = asyncio.create_task(one(inputs, work))
            tasks.append((task, cancelled))
            await asyncio.sleep(0)
            if cancelled:
                task.cancel()
        outcomes = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert (gate.requests, gate.inputs) == (0, 0)

    asyncio.run(main())


@pytest.mark.requirement("K3")
def test_a_growing_queue_halves_once() -> None:
    """Waits that are long and get longer are as good as a refusal; steady long ones keep the limit as it is."""

    async def main() -> None:
        gate = Gate(limit=16)
        places = await sent(gate, 3)
        for _ in range(20):
            gate.answered(0.0, 0.1, places[0])
        before = gate.limit
        for place in places:
            gate.sent(place)
        gate.answered(0.0, 2.0, places[1])
        assert gate.limit == before / 2
        gate.answered(0.0, 9.0, places[2])
        assert gate.limit == before / 2
        for _ in range(100):
            gate.sent(places[0])
            gate.answered(0.0, 2.0, places[0])
        settled = gate.limit
        gate.sent(places[0])
        gate.answered(0.0, 2.0, places[0])
        assert gate.limit == settled

    asyncio.run(main())


@pytest.mark.requirement("K3")
def test_what_begins_at_once_waits_for_itself() -> None:
    """Ever longer waits of requests that were sent together, before any answer, are no sign of others; later are."""

    async def main() -> None:
        gate = Gate()
        first = await sent(gate, FIRST_LIMIT)
        gate.answered(0.0, 0.0, first[0])
        gate.leave(first[0])
        (second,) = await sent(gate, 1)
        gate.answered(0.0, 1.0, second)  # it overtook the others, which all of one length can
        for place in first[1:]:
            gate.answered(0.0, 3.0, place)
        settled = gate.limit
        assert settled >= FIRST_LIMIT
        gate.sent(second)
        gate.answered(0.0, 4.4, second)
        assert gate.limit == settled
        gate.answered(0.0, 6.0, second)
        assert gate.limit == settled / 2

    asyncio.run(main())


def test_a_lone_request_does_not_tell_how_long_many_wait() -> None:
    """What waited when nothing else was in flight is forgotten once nothing is: the next call tells anew."""

    async def main() -> None:
        gate = Gate()
        for _ in range(2 * FIRST_LIMIT):
            (lone,) = await sent(gate, 1)
            gate.answered(0.0, 0.001, lone)
            gate.leave(lone)
        before = gate.limit
        for place in await sent(gate, FIRST_LIMIT):
            gate.answered(0.0, 2.0, place)
        assert gate.limit == before

    asyncio.run(main())


def test_an_answer_that_does_not_tell_its_wait_teaches_none() -> None:
    """Answers of routes without that header, among others, do not make the others' waits look long."""

    async def main() -> None:
        gate = Gate()
        places = await sent(gate, 2)
        gate.answered(0.0, 2.0, places[0])
        for _ in range(100):
            gate.sent(places[1])
            gate.answered(0.0, None, places[1])
        before = gate.limit
        gate.sent(places[0])
        gate.answered(0.0, 2.0, places[0])
        assert gate.limit == before

    asyncio.run(main())


def test_those_that_return_go_before_those_that_never_were_in() -> None:
    """After an outage requests enter one by one, the interrupted ones first and in their order; none is lost."""

    async def main() -> None:
        gate, entered = Gate(limit=3), list[str]()
        places = [await gate.enter(1) for _ in range(3)]

        async def late() -> None:
            await gate.enter(1)
            entered.append("new")

        async def again(place: Place, name: str) -> None:
            await gate.back(place)
            entered.append(name)

        for place in places:
            gate.leave(place)
            gate.leave(place)
        assert gate.requests == 0
        gate.restart()
        busy = await gate.enter(1)
        waiting = [asyncio.create_task(late())]
        await turns()
        waiting += [asyncio.create_task(again(place, name)) for place, name in zip(places, "abc", strict=True)]
        await turns()
        assert entered == []
        gate.leave(busy)
        for place in places:
            await turns()
            gate.leave(place)
        await turns()
        assert entered == ["a", "b", "c", "new"]
        assert gate.requests == 1

    asyncio.run(main())
