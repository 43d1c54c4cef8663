"""The stored reference: what is written is read back, and what is broken is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedfleet_server.engine.protocols import Pair
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.reference import FILE, Reference, read, write
from embedfleet_server.models.self_test import close

pytestmark = pytest.mark.requirement("S5")
ROWS = np.random.default_rng(5).standard_normal((2, 6)).astype(np.float32)
BY_TASK: dict[Any, AnyRows] = {
    "Dense": ROWS,
    "Rerank": ROWS[:, :1],
    "Sparse": SparseRows.of(np.where(ROWS > 0, ROWS, 0)),
    "MultiVector": Ragged(ROWS, np.array([0, 1, 2])),
}
GOOD = {"version": 1, "task": "Dense", "items": ["a", "b"], "rows": [[1, 2], [3, 4]]}


@pytest.mark.parametrize("task", BY_TASK)
def test_rows_of_every_task_are_kept(tmp_path: Path, task: Any) -> None:
    """Written and read back they are the same, to the last digit of a float32."""
    items = (Pair("q", "a"), Pair("q", "b")) if task == "Rerank" else ("a", "b ü")
    write(Reference(task, items, BY_TASK[task]), tmp_path / FILE)
    found = read(tmp_path)
    assert found is not None
    assert (found.task, found.items) == (task, items)
    assert close(task, found.rows, BY_TASK[task]) >= 1 - 1e-12
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def test_no_file_is_no_reference(tmp_path: Path) -> None:
    """Models without one are served."""
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        GOOD | {"version": 2},
        GOOD | {"task": "Other"},
        GOOD | {"items": []},
        GOOD | {"items": ["a"]},
        GOOD | {"items": ["a", 5]},
        GOOD | {"rows": [[1, 2], [3]]},
        GOOD | {"rows": [[1, 2], [3, float("nan")]]},
        GOOD | {"rows": [1, 2]},
        GOOD | {"rows": "x"},
        GOOD | {"task": "MultiVector", "vectors": [[1.0], [2.0]], "offsets": [0, 2, 1]},
        GOOD | {"task": "Sparse", "values": [1.0], "indices": [7], "offsets": [0, 1, 1], "dimensions": 3},
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: Any) -> None:
    """It is never passed over: the model fails to load with the file's name."""
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ModelProblem, match="embedfleet-reference"):
        read(tmp_path)
