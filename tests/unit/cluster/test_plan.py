"""A plan is checked before anything is started, and reaches the other processes as it was."""

from pathlib import Path

import pytest

from tests.cluster.plan import Plan, group_name


def plan(directory: str, nodes: int = 0, hollow: int = 0) -> Plan:
    return Plan(Path(directory), Path("/programs"), nodes, hollow)


@pytest.mark.parametrize(
    ("directory", "nodes", "hollow", "said"),
    [
        ("/tmp/c", 4, 0, "nodes is 4; it must be 0 to 3"),
        ("/tmp/c", -1, 0, "nodes is -1; it must be 0 to 3"),
        ("/tmp/c", 0, -1, "hollow is -1; it must be 0 or more"),
        ("/var/tmp/c", 1, 0, "/var/tmp/c lies under /var"),
        ("/tmp/" + 90 * "c", 1, 0, "too long for unix sockets"),
    ],
)
def test_a_wrong_plan_is_refused(directory: str, nodes: int, hollow: int, said: str) -> None:
    """The error names the value and what it must be."""
    with pytest.raises(ValueError, match=said):
        plan(directory, nodes, hollow)


def test_a_control_plane_may_lie_anywhere() -> None:
    """What only whole nodes need is not asked of a control plane."""
    assert plan("/var/tmp/" + 90 * "c").directory.is_relative_to("/var")


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """The processes of a cluster know the same plan as its starter."""
    saved = Plan(tmp_path, Path("/programs"), 2, 100, tied=False)
    saved.save()
    assert Plan.load(tmp_path) == saved


def test_each_cluster_has_a_group_of_its_own() -> None:
    """Control groups of two clusters never meet, and their name is one folder."""
    one, other = group_name(Path("/tmp/one")), group_name(Path("/tmp/other"))
    assert one != other
    assert "/" not in one
