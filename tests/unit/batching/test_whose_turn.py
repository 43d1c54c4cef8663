"""Who leads the next batch of a model: by priority, by waiting, by what was served."""

import pytest

from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import length_bucket, one_bucket
from embedfleet_server.batching.policy import form
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import CRITICAL, HIGH, LOW, LOWEST, NORMAL, Policy, Room, Work


class Queue(ModelQueue):
    """A queue with shorter ways to fill it and to empty it."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        super().__init__(one_bucket, self.accounts)
        self.number = 0

    def put(self, *costs: int, now: float = 0.0, tenant: str = "", priority: int = NORMAL) -> Work:
        self.number += 1
        work = Work("m", costs, costs, None, now, self.number, priority, tenant)
        self.push(work, now)
        return work

    def take(self, inputs: int = 1, now: float = 0.0, tokens: int = 16384, *, sort: bool = False) -> list[Work]:
        """The requests of the next batch, an entry for each input."""
        policy = Policy(sort_by_length=sort)
        return [entry[2] for entry in form(policy, Room(inputs, tokens), self, now, padded=False, start_tokens=0.0)]

    def leader(self, now: float) -> tuple[str, int]:
        """Tenant and priority of the one who leads now."""
        levels, flow = self.lead(now)
        return flow.tenant, levels[0]


@pytest.mark.requirement("B8")
def test_the_names_of_priorities_are_numbers_from_0_to_255() -> None:
    """Evenly spread, NORMAL in the middle."""
    assert (LOWEST, LOW, NORMAL, HIGH, CRITICAL) == (0, 64, 128, 192, 255)


@pytest.mark.requirement("B8")
def test_the_higher_priority_leads_and_lower_ones_fill_up() -> None:
    """From high to low, each in order of arrival."""
    queue = Queue()
    low, normal, high = (queue.put(1, 1, priority=priority) for priority in (LOW, NORMAL, HIGH))
    assert queue.take(5) == [high, high, normal, normal, low]
    assert (queue.count, queue.tokens) == (1, 1)


@pytest.mark.requirement("B8")
def test_a_tenth_of_a_second_of_waiting_is_worth_one_priority() -> None:
    """LOW is level with a fresh CRITICAL after 19.1 s, and above it a little later."""
    queue = Queue()
    queue.put(1, priority=LOW)
    queue.put(1, now=19.1, priority=CRITICAL)
    assert queue.leader(19.0) == ("", CRITICAL)
    late = Queue()
    late.put(1, priority=LOW)
    late.put(1, now=19.2, priority=CRITICAL)
    assert late.leader(19.2) == ("", LOW)


@pytest.mark.requirement("B8")
def test_of_equal_urgency_the_higher_priority_leads() -> None:
    """Priority 2 without a wait, priority 1 after a tenth of a second."""
    queue = Queue()
    queue.put(1, now=0.0, priority=1)
    queue.put(1, now=0.1, priority=2)
    assert queue.leader(0.1)[1] == 2


@pytest.mark.requirement("B8")
def test_who_led_waits_anew() -> None:
    """LOW led once by its wait; the CRITICAL ones that came since go before it again."""
    queue = Queue()
    queue.put(1, 1, priority=LOW)
    queue.put(1, 1, now=20.0, priority=CRITICAL)
    assert queue.leader(20.0)[1] == LOW
    assert queue.leader(20.1)[1] == CRITICAL


@pytest.mark.requirement("B21")
def test_of_the_tenants_of_the_highest_priority_the_one_served_least_leads() -> None:
    """Whoever came first."""
    queue = Queue()
    queue.put(1, 1, tenant="red")
    queue.put(1, 1, tenant="blue")
    queue.accounts.serve("red", 50)
    assert queue.leader(0.0)[0] == "blue"
    queue.accounts.serve("blue", 60)
    assert queue.leader(0.0)[0] == "red"


@pytest.mark.requirement("B8", "B21")
def test_no_tenant_waits_longer_than_25_and_a_half_seconds_to_lead() -> None:
    """Though it was served far more than the other: before that time it does not, from then on it does."""
    for now, leader in ((25.4, "blue"), (25.5, "red")):
        queue = Queue()
        queue.put(1, tenant="red")
        queue.put(1, now=1.0, tenant="blue")
        queue.accounts.serve("red", 10_000)
        assert queue.leader(now)[0] == leader


@pytest.mark.requirement("B8", "B21")
def test_at_a_priority_that_rose_the_tenant_whose_wait_raised_it_leads() -> None:
    """Red of LOW waits since 0, blue of LOW came now and was served nothing: the turn is red's."""
    queue = Queue()
    queue.put(1, tenant="red", priority=LOW)
    queue.accounts.serve("red", 10_000)
    queue.put(1, now=20.0, tenant="blue", priority=LOW)
    queue.put(1, now=20.0, tenant="green", priority=CRITICAL)
    assert queue.leader(20.0) == ("red", LOW)


@pytest.mark.requirement("B21")
def test_tenants_take_turns_of_512_tokens_within_a_batch() -> None:
    """Of inputs of 128 four each, then four of the other; a tenant alone takes all."""
    queue = Queue()
    red, blue = queue.put(*[128] * 20, tenant="red"), queue.put(*[128] * 20, tenant="blue")
    assert queue.take(12) == [red] * 4 + [blue] * 4 + [red] * 4
    assert queue.take(6) == [blue] * 4 + [red] * 2
    assert (queue.served(queue.flows(NORMAL)[0]), queue.served(queue.flows(NORMAL)[1])) == (1280, 1024)
    alone = Queue()
    only = alone.put(*[128] * 20)
    assert alone.take(15) == [only] * 15


@pytest.mark.requirement("B21")
def test_a_tenant_with_nothing_left_or_nothing_that_fits_gives_its_turn_away() -> None:
    """Red has one input; of blue's the first two fit beside it, and green's small one goes last."""
    queue = Queue()
    red, blue = queue.put(10, tenant="red"), queue.put(300, 300, 300, tenant="blue")
    green = queue.put(5, tenant="green")
    queue.accounts.serve("green", 9999)
    queue.accounts.serve("blue", 1)
    assert queue.take(9, tokens=700) == [red, blue, blue, green]
    assert [flow.tenant for flow in queue.flows(NORMAL)] == ["blue"]


@pytest.mark.requirement("B10")
def test_only_works_whose_time_is_up_expire_and_each_once() -> None:
    """At its deadline a work is late; one that runs is not in the queue any more, one without a deadline never is."""
    queue = Queue()
    works = [Work("m", [0], [1], None, 0.0, n, deadline=at) for n, at in enumerate((3.0, 1.0, 2.0, float("inf")))]
    for work in works:
        queue.push(work, 0.0)
    assert queue.expired(0.9) == []
    works[1].cancelled = True
    queue.forget(works[1])
    assert queue.expired(2.0) == [works[2]]
    assert queue.expired(2.5) == []
    assert queue.expired(99.0) == [works[0]]
    assert queue.expired(99.0) == []


def test_a_work_that_waits_long_does_not_keep_the_deadlines_of_those_that_left() -> None:
    """One with the nearest deadline of all waits while 10,000 others come and go behind it."""
    queue = Queue()
    queue.push(Work("m", [0], [1], None, 0.0, 0, LOW, deadline=100.0), 0.0)
    for number in range(1, 10_000):
        work = Work("m", [0], [1], None, 0.0, number, deadline=100.0 + number)
        queue.push(work, 0.0)
        assert queue.expired(0.0) == []
        assert queue.take() == [work]
    assert len(queue._deadlines) < 200
    assert [work.number for work in queue.expired(1e9)] == [0]


@pytest.mark.requirement("B16")
def test_what_a_work_leaves_behind_is_nothing() -> None:
    """Its tenant's flow and its priority's level go with the last input, and counts are those of what stays."""
    queue = Queue()
    red, blue = queue.put(3, 4, tenant="red", priority=LOW), queue.put(5, tenant="blue")
    for _ in range(2):
        queue.forget(red)
        assert (queue.count, queue.tokens, queue.oldest()) == (1, 5, blue)
    assert queue.lead(0.0)[0] == [NORMAL]
    assert queue.take(9) == [blue]
    assert (queue.count, queue.tokens, queue.oldest()) == (0, 0, None)


@pytest.mark.requirement("B20")
def test_flows_that_come_after_a_change_have_the_new_buckets_too() -> None:
    """Sorted by length from now on: those that wait and those that come."""
    queue = Queue()
    queue.put(30, 10, tenant="red")
    queue.regroup(length_bucket)
    queue.put(20, 5, tenant="blue")
    assert [list(flow.nearest(1)) for flow in queue.flows(NORMAL)] == [[10, 30], [5, 20]]
