"""constraints.txt pins what the pyproject files ask for, names no index, and holds a hash for each pin."""

import re
from pathlib import Path

from tools import lock

TEXT = lock.LOCK.read_text(encoding="utf-8")
PINS = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", TEXT, re.MULTILINE)}


def test_everything_asked_for_is_pinned() -> None:
    """Each dependency of a distribution, its extras and the tools has a pin: what is added is locked with it."""
    asked = {re.split(r"[^-\w.]", line)[0].lower().replace("_", "-") for line in lock.requirements(lock.ROOT)}
    assert asked - PINS == set()


def test_our_own_distributions_are_not_pinned() -> None:
    """The three distributions come from the tree, never from an index."""
    assert PINS & {"embedfleet", "embedfleet-server", "embedfleet-operator"} == set()


def test_every_pin_has_a_hash() -> None:
    """pip can check each file it fetches."""
    blocks = re.split(r"^(?=[\w.-]+==)", TEXT, flags=re.MULTILINE)[1:]
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_no_index_is_named() -> None:
    """The lock works behind whatever index pip is configured for."""
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", TEXT)


def test_extras_and_build_tools_are_asked_for(tmp_path: Path) -> None:
    """What an extra, the build or the tools need is locked; our own names are left out."""
    for folder in lock.DISTRIBUTIONS:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(
            f'[build-system]\nrequires = ["builder>=1"]\n[project]\nname = "{folder.replace("/", "-")}"\n'
            'dependencies = ["sdk", "numpy>=2.0"]\n[project.optional-dependencies]\nmodels = ["torch>=2.11"]\n'
        )
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\ndev = ["pytest"]\n')
    assert lock.requirements(tmp_path) == ["builder>=1", "numpy>=2.0", "pytest", "torch>=2.11"]
