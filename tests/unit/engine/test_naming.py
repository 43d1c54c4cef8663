"""Which model a request means."""

import pytest

from embedfleet.api.models import Task
from embedfleet_server.engine.errors import ModelNotFound
from embedfleet_server.engine.naming import choose
from embedfleet_server.engine.protocols import ModelInfo
from tests.support.fake_tasks import EVERY_TASK, FakeSparse

pytestmark = pytest.mark.requirement("S3")
INFOS: dict[str, ModelInfo | None] = {name: make().info for name, make in EVERY_TASK.items()}


@pytest.mark.parametrize(
    ("task", "default", "chosen"),
    [
        (None, "late", "late"),
        ("MultiVector", "semantic", "late"),
        ("MultiVector", "fleet", "late"),
        ("Dense", "semantic", "semantic"),
    ],
)
def test_the_default_unless_another_is_the_only_one_of_the_task(task: Task | None, default: str, chosen: str) -> None:
    """The default where there is one and it is of the task, else the only model of the task."""
    assert choose(None, task, INFOS, default) == chosen


def test_where_the_task_leaves_it_open() -> None:
    """Two of the task, or none that is loaded: the default, which then says what it is for; with no default, a list."""
    two = {**INFOS, "sparser": FakeSparse("sparser").info}
    assert choose(None, "Sparse", two, "semantic") == "semantic"
    with pytest.raises(ModelNotFound, match=r"has: sparse, sparser$"):
        choose(None, "Sparse", two, "fleet")
    assert choose(None, "Sparse", {"only": None}, "fleet") == "only"
    with pytest.raises(ModelNotFound, match=r"has: a, b$"):
        choose(None, "Sparse", {"a": None, "b": None}, "fleet")


def test_a_name_is_a_name() -> None:
    """Whatever the task; one that there is not is an error."""
    assert choose("semantic", "Sparse", INFOS, "late") == "semantic"
    with pytest.raises(ModelNotFound, match="'nope' does not exist"):
        choose("nope", None, INFOS, "late")
