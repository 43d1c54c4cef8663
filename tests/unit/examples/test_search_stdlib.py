"""The example's corpus and its answers: docstrings are read without importing, and the nearest rows come first."""

from pathlib import Path

import numpy as np
import pytest

from examples.search_stdlib import docstrings, module_name, nearest

SOURCE = '''
"""A module."""
raise RuntimeError("importing this is wrong")

def parse(text):
    """Parse a date
    from a string.

    Details follow.
    """

class Date:
    """A date."""
    def iso(self):
        """The date as text."""
        def inner():
            """Not of the module."""
    def _private(self):
        """Not for users."""
    def silent(self): ...
'''


def test_first_paragraphs_by_dotted_name(tmp_path: Path) -> None:
    """Functions, classes and methods give their first paragraph on one line; private and silent ones give nothing."""
    (tmp_path / "calendar").mkdir()
    (tmp_path / "calendar" / "__init__.py").write_text(SOURCE)
    assert docstrings(tmp_path) == {
        "calendar.parse": "Parse a date from a string.",
        "calendar.Date": "A date.",
        "calendar.Date.iso": "The date as text.",
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("json/decoder.py", "json.decoder"),
        ("json/__init__.py", "json"),
        ("_pydatetime.py", "datetime"),
        ("_strptime.py", None),
        ("test/test_json.py", None),
        ("site-packages/numpy/core.py", None),
    ],
)
def test_modules_have_the_names_one_imports(path: str, name: str | None) -> None:
    """Private modules, tests and installed packages are no part of the corpus; Python twins of C modules are."""
    assert module_name(Path(path)) == name


def test_the_nearest_come_first() -> None:
    """The answer to a question is the rows of highest cosine, best first, five at most."""
    vectors = np.eye(7, 4, dtype=np.float32)
    asked = np.array([0.1, 0.7, 0.5, 0.5], dtype=np.float32)
    found = nearest(vectors, asked)
    assert found[0][0] == 1
    assert len(found) == 5
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
