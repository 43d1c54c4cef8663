"""Request ids and W3C's traceparent: what is taken over, and what is begun anew."""

import pytest

from embedfleet_server.app.trace import continued, parent_of, request_id

pytestmark = pytest.mark.requirement("S1")
TRACE, SPAN, OWN, NEW = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "c" * 16, "d" * 32


@pytest.mark.parametrize("parent", [f"00-{TRACE}-{SPAN}-01", f" 00-{TRACE}-{SPAN}-01 ", f"01-{TRACE}-{SPAN}-01-more"])
def test_a_valid_parent_is_continued(parent: str) -> None:
    """Its trace and flags go on in a span of our own; later versions are read as this one."""
    assert str(continued(parent_of(parent), OWN, NEW)) == f"00-{TRACE}-{OWN}-01"


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_valid_parent_begins_a_trace(parent: str | None) -> None:
    """As the specification asks: an invalid parent is passed over, not refused."""
    assert str(continued(parent_of(parent), OWN, NEW)) == f"00-{NEW}-{OWN}-00"


@pytest.mark.parametrize(
    ("said", "taken"),
    [("a-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False), (None, False)],
)
def test_a_request_id_is_echoed_when_a_header_can_carry_it(said: str | None, taken: bool) -> None:
    """Printable ASCII without spaces, up to 128 characters; anything else gets an id of ours."""
    assert request_id(said, "new") == (said if taken else "new")
