"""`make requirements`: rows, their tests, rows without any, and marks that name no row."""

from tools.requirements import ROWS, rows, table, unknown

PAGE = """\
# Requirements
| id | what |
|---|---|
| B1 | One queue per model |
| K5 | Command line: `serve \\| get` |
"""


def test_rows_are_read_from_the_page() -> None:
    """Heads and rules of the table are no rows; a bar inside a row belongs to it."""
    assert rows(PAGE) == {"B1": "One queue per model", "K5": "Command line: `serve \\| get`"}


def test_the_list_of_the_repository_is_whole() -> None:
    """Every group of requirements is read from docs/requirements.md."""
    found = rows(ROWS.read_text(encoding="utf-8"))
    assert {row[0] for row in found} == set("BPAHGSOKN")
    assert [row for row in found if row.startswith("B")] == [f"B{number}" for number in range(1, 26)]


def test_rows_without_tests_are_told() -> None:
    """The closing lines count the rows that have tests and name those that have none."""
    lines = table(rows(PAGE), {"B1": ["tests/a.py::test_x"]})
    assert "          tests/a.py::test_x" in lines
    assert lines[-1] == "1 of 2 rows have tests; none yet: K5"


def test_a_mark_that_names_no_row_is_told() -> None:
    """A slip in a test's mark does not pass for a covered row."""
    lines = table(rows(PAGE), {"B11": ["tests/a.py::test_x"]})
    assert unknown(rows(PAGE), {"B11": []}) == ["B11"]
    assert lines[-1] == "no such row: B11 (tests/a.py::test_x)"
