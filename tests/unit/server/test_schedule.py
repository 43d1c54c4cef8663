"""The headers that place a request in the queue."""

import pytest

from embedfleet_server.app.schedule import Schedule, of
from embedfleet_server.engine.errors import InvalidRequest


@pytest.mark.requirement("B8")
@pytest.mark.parametrize(
    ("said", "priority"), [("0", 0), ("255", 255), ("LOW", 64), ("critical", 255), (" high ", 192)]
)
def test_priority_is_a_number_or_one_of_four_names(said: str, priority: int) -> None:
    """0 to 255 as they are, the names whatever their case."""
    assert of({"X-Embedfleet-Priority": said}).priority == priority


@pytest.mark.requirement("B8")
@pytest.mark.parametrize("said", ["256", "-1", "URGENT", "", "1.5", "٣٠٠", "1_0", "9" * 400, "9" * 5000])
def test_any_other_priority_is_named_as_wrong(said: str) -> None:
    """The error names the header, the value and what it must be."""
    with pytest.raises(InvalidRequest, match=r"X-Embedfleet-Priority is .* it must be 0 to 255, or one of LOW"):
        of({"X-Embedfleet-Priority": said})


@pytest.mark.requirement("B10")
def test_a_deadline_is_milliseconds_from_the_arrival() -> None:
    """250 is a quarter of a second; a past one is passed on, for the engine refuses it."""
    assert of({"X-Embedfleet-Deadline-Milliseconds": "250"}).within == 0.25
    assert of({"X-Embedfleet-Deadline-Milliseconds": "-5"}).within == -0.005
    assert of({"X-Embedfleet-Deadline-Milliseconds": "9" * 15}).within == pytest.approx(1e12)


@pytest.mark.requirement("B10")
@pytest.mark.parametrize("said", ["soon", "", "1.5", "1_000", "٣", "9" * 16, "9" * 400, "9" * 5000])
def test_any_other_deadline_is_named_as_wrong(said: str) -> None:
    """Numbers past what a float or Python's own limit holds are no bug of the server's; the value is quoted cut."""
    with pytest.raises(InvalidRequest, match="it must be a whole number of milliseconds") as caught:
        of({"X-Embedfleet-Deadline-Milliseconds": said})
    assert len(str(caught.value)) < 200


@pytest.mark.requirement("B21")
def test_a_tenant_is_told_by_its_key_and_the_key_cannot_be_read_from_it() -> None:
    """Both headers of one key give one tenant, another key another, no key none; the key itself is nowhere in it."""
    bearer, plain = of({"Authorization": "Bearer secret"}), of({"X-API-Key": "secret"})
    assert bearer.tenant == plain.tenant != of({"X-API-Key": "other"}).tenant
    assert "secret" not in bearer.tenant
    assert of({}) == Schedule()
