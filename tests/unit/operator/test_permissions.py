"""The role's table: what must never be in it."""

import pytest

from embedfleet_operator import permissions
from embedfleet_operator.resources import SECRETS


@pytest.mark.requirement("O6")
def test_secrets_are_read_by_name_only() -> None:
    """The role cannot list or watch Secrets, and so sees only those that a spec names."""
    assert [one.verbs for one in permissions.TABLE if one.resource == SECRETS] == [("get",)]


@pytest.mark.requirement("O6")
def test_nothing_is_granted_by_wildcard() -> None:
    """Each rule names its group, resource and verbs; the role for one namespace asks for nothing of the cluster."""
    assert "*" not in str(permissions.roles())
    assert "nodes" not in str(permissions.rules("services"))


def test_a_request_that_is_not_in_the_table_is_not_allowed() -> None:
    """What `cluster` may ask is what the role has."""
    assert permissions.allows("get", SECRETS)
    assert not permissions.allows("list", SECRETS)
