"""How full memory is, from what the system tells."""

from pathlib import Path

import pytest

from embedfleet_server.app.memory import host

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n"


def group(folder: Path, limit: str) -> tuple[Path, Path, Path]:
    """A control group that holds 300 kB, 100 of them file pages it would give up."""
    files = folder / "usage", folder / "limit", folder / "stat"
    for path, content in zip(files, (str(300 * 1024), limit, f"anon 5\ninactive_file {100 * 1024}\n"), strict=True):
        path.write_text(content)
    return files


@pytest.mark.requirement("A3")
def test_the_group_counts_where_it_has_a_limit(tmp_path: Path) -> None:
    """200 of 250 kB in a group of that size; 600 of the machine's 1000 where the group has none."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    limited = host(meminfo, (group(tmp_path, str(250 * 1024)),))
    assert limited["host"].share == pytest.approx(0.8)
    unlimited = host(meminfo, (group(tmp_path, "max"),))
    assert unlimited["host"].share == pytest.approx(0.6)


def test_a_system_that_tells_nothing_has_no_reading(tmp_path: Path) -> None:
    """No /proc/meminfo: no reading, hence no finding."""
    assert host(tmp_path / "none", ()) == {}


def test_this_machine_has_one() -> None:
    """A share between 0 and 1."""
    assert 0.0 < host()["host"].share < 1.0
