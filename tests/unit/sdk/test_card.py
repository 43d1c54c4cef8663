"""The card of a service in a notebook: how long its last requests took, as a line."""

import re

from embedfleet.card import service_card, sparkline
from embedfleet.explained import Journey


def heights(svg: str) -> list[float]:
    """The y of each point."""
    found = re.search(r'points="([^"]*)"', svg)
    assert found is not None
    return [float(point.split(",")[1]) for point in found[1].split()]


def test_a_point_for_each_request_the_longest_on_top() -> None:
    """From 0 to the longest, oldest first; the words say both."""
    svg = sparkline([0.010, 0.040, 0.020])
    assert heights(svg) == [17.5, 1.0, 12.0]
    assert "20 ms median, 40 ms longest of the last 3 requests" in svg


def test_few_and_short_ones() -> None:
    """One request is a level line, requests without a measurable time are too, none is nothing."""
    assert len(heights(sparkline([0.002]))) == 2
    assert "2.0 ms median, 2.0 ms longest of the last request<" in sparkline([0.002])
    assert heights(sparkline([0.0, 0.0])) == [23.0, 23.0]
    assert sparkline([]) == ""


def test_seconds_are_told_as_seconds() -> None:
    """What takes a second or more is not told in thousands of milliseconds."""
    assert "1.6 s median, 3.2 s longest of the last 2 requests" in sparkline([0.04, 3.16])


def test_it_stands_on_the_card() -> None:
    """The card has it once there were requests."""
    assert "<svg" in service_card("semantic", (), Journey(), "http://x", [0.01])
    assert "<svg" not in service_card("semantic", (), Journey(), "http://x")
