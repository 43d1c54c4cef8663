"""A watch that no longer hears is noticed; a quiet cluster is not taken for one."""

from typing import Any

import pytest

from embedfleet_operator.hearing import Hearing


def tree(version: int, uid: str = "u-1") -> dict[str, Any]:
    """An object of this version."""
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


def test_quiet_is_not_deaf() -> None:
    """As long as all that is read has been told, no time counts."""
    hearing = Hearing()
    hearing.told(tree(5))
    hearing.read([tree(5)], 0.0)
    hearing.read([tree(5)], 1000.0)
    assert hearing.silent_seconds(1000.0) == 0.0


@pytest.mark.requirement("O7")
def test_what_is_read_and_never_told_shows_a_deaf_watch() -> None:
    """The time runs from the first reading, whatever newer versions are read since, and ends when they are told."""
    hearing = Hearing()
    hearing.told(tree(5))
    hearing.read([tree(6)], 10.0)
    hearing.read([tree(8)], 50.0)
    assert hearing.silent_seconds(70.0) == 60.0
    hearing.told(tree(8))
    assert hearing.silent_seconds(70.0) == 0.0


def test_what_is_gone_is_owed_no_more() -> None:
    """An object that was deleted before it was told of is not waited for."""
    hearing = Hearing()
    hearing.read([tree(6)], 10.0)
    hearing.read([], 20.0)
    assert hearing.silent_seconds(99.0) == 0.0
    hearing.read([tree(7, "u-2")], 30.0)
    hearing.told(tree(9, "u-2"), gone=True)
    assert hearing.silent_seconds(99.0) == 0.0
