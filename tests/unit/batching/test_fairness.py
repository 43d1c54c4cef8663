"""Accounts of what was served, and places shared between tenants."""

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.fairness import Accounts, Shares
from embedfleet_server.batching.types import Bound, Policy, Refusal


@pytest.mark.requirement("B21")
def test_one_that_comes_back_is_level_with_those_being_served() -> None:
    """Red was served 100 and 100 more while blue was away: blue begins where red's last turn began."""
    accounts = Accounts()
    accounts.arrive("red", 5)
    accounts.serve("red", 100)
    accounts.serve("red", 100)
    accounts.arrive("blue", 1)
    assert (accounts.served("red"), accounts.served("blue")) == (200.0, 100.0)


@pytest.mark.requirement("B21")
def test_one_that_leaves_and_comes_back_at_once_still_owes_what_it_was_served() -> None:
    """Else a tenant with one input at a time would always be first."""
    accounts = Accounts()
    accounts.arrive("red", 1)
    accounts.arrive("blue", 2)
    accounts.serve("red", 30)
    accounts.leave("red", 1)
    accounts.arrive("red", 1)
    assert accounts.served("red") == 30.0
    assert accounts.served("blue") == 0.0


@pytest.mark.requirement("B21")
def test_more_inputs_of_one_that_waits_change_nothing_of_its_account() -> None:
    """It was served less than the others, and that stays owed to it."""
    accounts = Accounts()
    accounts.arrive("red", 1)
    accounts.arrive("blue", 9)
    accounts.serve("blue", 50)
    accounts.serve("blue", 50)
    accounts.arrive("red", 1)
    assert accounts.served("red") == 0.0


@pytest.mark.requirement("B21")
def test_a_tenant_alone_may_fill_the_queue() -> None:
    """And one of two holds half of it at most, but for one that holds nothing, which is always let in."""
    shares = Shares()
    shares.seen("red", 0.0)
    shares.hold("red", 9)
    assert shares.over("red", 1, 10, 1.0) is None
    shares.seen("blue", 0.0)
    refused = shares.over("red", 1, 10, 1.5)
    assert refused is not None
    assert refused.retry_after == 1.5
    assert refused.reason == "the queue is full: this tenant holds 9 of its 5 places, with 2 tenants present"
    assert shares.over("blue", 9, 10, 1.0) is None
    shares.hold("blue", 3)
    assert shares.over("blue", 2, 10, 1.0) is None
    assert shares.over("blue", 3, 10, 1.0) is not None


@pytest.mark.requirement("B21")
def test_a_tenant_is_present_for_ten_seconds_or_as_long_as_it_holds_places() -> None:
    """Blue asked at 0 and holds nothing: at 10 it still counts, after that no more. With a place held it does."""
    for held, over_later in ((0, False), (2, True)):
        shares = Shares()
        shares.seen("blue", 0.0)
        shares.hold("blue", held)
        shares.hold("red", 6)
        shares.seen("red", 10.0)
        assert shares.over("red", 1, 10, 1.0) is not None
        shares.seen("red", 10.1)
        assert (shares.over("red", 1, 10, 1.0) is not None) == over_later


@pytest.mark.requirement("B21")
@pytest.mark.parametrize(("came", "holds"), [(("red", "blue"), "red"), (("red", "blue", "red"), "")])
def test_who_is_present_is_told_one_by_one(came: tuple[str, ...], holds: str) -> None:
    """Red and blue came by 5, green at 15: red is present, as it holds a place or came again, and blue is not."""
    shares = Shares()
    for turn, tenant in enumerate(came):
        shares.seen(tenant, 2.5 * (turn + 1))
    if holds:
        shares.hold(holds, 1)
    shares.seen("green", 15.1)
    shares.hold("green", 1)
    assert shares.over("green", 4, 10, 1.0) is None
    assert shares.over("green", 5, 10, 1.0) is not None


@pytest.mark.requirement("B21")
def test_places_given_back_are_free_again() -> None:
    """Held are those reserved, queued, and no longer those that run, failed or were dropped."""
    core = BatchingCore(1, Bound(10))
    core.add_model("m", Policy(max_batch_size=2))
    core.model_ready("m", "gpu", padded=True)
    assert core.reserve("m", 1, 0.0, tenant="blue") is None
    assert core.reserve("m", 5, 0.0, tenant="red") is None
    assert core.reserve("m", 1, 0.0, tenant="red") is not None
    core.release("m", 5, tenant="red")
    work = core.submit("m", range(5), [1] * 5, None, 0.0, tenant="red")
    assert not isinstance(work, Refusal)
    assert core.reserve("m", 1, 0.0, tenant="red") is not None
    assert core.next_batch(0.0) is not None
    assert core.reserve("m", 2, 0.0, tenant="red") is None
    assert core.reserve("m", 1, 0.0, tenant="red") is not None
    core.cancel(work)
    assert core.reserve("m", 3, 0.0, tenant="red") is None
    assert core.reserve("m", 1, 0.0, tenant="red") is not None


@pytest.mark.requirement("B1", "B21")
def test_models_on_one_device_take_turns_by_tokens() -> None:
    """One with texts ten times as long gets one batch in eleven, about, and each the same tokens."""
    core = BatchingCore(1, Bound(100_000))
    for name in ("long", "short"):
        core.add_model(name, Policy(max_batch_size=1))
        core.model_ready(name, "gpu", padded=True)
        core.submit(name, range(500), [100 if name == "long" else 10] * 500, None, 0.0)
    ran = []
    for _ in range(110):
        batch = core.next_batch(0.0)
        assert batch is not None
        ran.append(batch.model)
        core.complete(batch)
    assert ran.count("long") == pytest.approx(10, abs=1)


@pytest.mark.requirement("B1")
def test_of_models_served_alike_the_one_whose_request_is_oldest_goes_first() -> None:
    """Whatever the order in which they were added."""
    core = BatchingCore(3, Bound(100))
    for name in "abc":
        core.add_model(name, Policy())
        core.model_ready(name, f"device of {name}", padded=True)
    for name in "bca":
        core.submit(name, ["x"], [1], None, 0.0)
    batches = [core.next_batch(0.0) for _ in range(3)]
    assert [batch and batch.model for batch in batches] == ["b", "c", "a"]


@pytest.mark.requirement("B21")
def test_many_tenants_over_a_day_are_not_remembered() -> None:
    """Ten thousand tenants that come once each while another always waits: a thousand accounts are kept, no more."""
    accounts = Accounts()
    accounts.arrive("always", 1)
    for number in range(10_000):
        name = f"tenant {number}"
        accounts.arrive(name, 1)
        accounts.serve(name, 10)
        accounts.leave(name, 1)
    assert len(accounts._served) <= 1002
    assert accounts.served("tenant 9999") == 10.0


@pytest.mark.requirement("B21")
def test_a_moment_in_which_nothing_waits_forgives_nobody() -> None:
    """A batch that took all there was leaves the queues empty: who was served much goes after who was not."""
    accounts = Accounts()
    for name, tokens in (("little", 10), ("much", 1_000)):
        accounts.arrive(name, 1)
        accounts.serve(name, tokens)
        accounts.leave(name, 1)
    for name in ("much", "little"):
        accounts.arrive(name, 1)
    assert accounts.served("much") > accounts.served("little")


@pytest.mark.requirement("B21")
def test_one_that_comes_back_is_not_forgotten_when_the_oldest_of_those_who_left_are() -> None:
    """It was the first to leave, then came back: its account outlives a thousand others who left after it."""
    accounts = Accounts()
    for name, tokens in (("always", 0), ("back", 500)):
        accounts.arrive(name, 1)
        accounts.serve(name, tokens)
    accounts.leave("back", 1)
    accounts.arrive("back", 1)
    for number in range(1_100):
        name = f"tenant {number}"
        accounts.arrive(name, 1)
        accounts.serve(name, 10)
        accounts.leave(name, 1)
    assert accounts.served("back") == 500


@pytest.mark.requirement("B21")
def test_a_turn_lasts_for_512_tokens_whatever_their_lengths() -> None:
    """Two tenants share a batch by turns: the second has its whole turn though no two lengths are alike."""
    core = BatchingCore(1, Bound())
    core.add_model("m", Policy(max_batch_size=17))
    core.model_ready("m", "cpu", padded=False)
    core.submit("m", ["x"] * 16, [64] * 16, None, 0.0, tenant="alike")
    core.submit("m", ["x"] * 8, [*range(57, 65)], None, 0.0, tenant="all kinds")
    batch = core.next_batch(0.0)
    assert batch is not None
    tenants = [entry[2].tenant for entry in batch.entries]
    assert (tenants.count("all kinds"), tenants.count("alike")) == (8, 9)
