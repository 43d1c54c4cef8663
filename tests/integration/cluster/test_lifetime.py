"""Clusters come and go without a trace, several at once, and never outlive their starter."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import build, down
from tests.cluster.cluster import Cluster
from tests.cluster.errors import LeftBehind, StartFailed
from tests.cluster.leftovers import assert_nothing_left, look
from tests.support.clusters import require, running

ROOT = Path(__file__).resolve().parents[3]
START = """
import sys
from tests.cluster.cluster import Cluster
cluster = Cluster(int(sys.argv[1])).start()
print(cluster.directory, flush=True)
sys.stdin.read()
"""


def test_two_at_once_share_nothing() -> None:
    """Each has its own objects; when one is closed the other goes on; of both nothing is left."""
    before = look()
    with running() as first, running() as second:
        first.kubectl("create", "namespace", "of-the-first")
        assert "of-the-first" not in second.kubectl("get", "namespaces")
        second.close()
        assert_nothing_left(second.directory, before)
        assert "of-the-first" in first.kubectl("get", "namespaces")
    assert_nothing_left(first.directory, before)


def test_what_is_left_is_named() -> None:
    """A running cluster is reported as left behind: its processes and its directory."""
    before = look()
    with running() as cluster, pytest.raises(LeftBehind) as found:
        assert_nothing_left(cluster.directory, before)
    assert "kube-apiserver" in str(found.value)
    assert f"directory {cluster.directory}" in str(found.value)


@pytest.mark.parametrize("nodes", [0, 1], ids=["control plane", "node"])
def test_a_killed_starter_leaves_nothing(nodes: int) -> None:
    """SIGKILL of the process that started a cluster ends and removes all of it."""
    require(nodes)
    before = look()
    command = [sys.executable, "-c", START, str(nodes)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        directory = Path(starter.stdout.readline().strip())
        keeper = down.keeper_of(directory)
        assert keeper is not None
        ended = os.pidfd_open(keeper.pid)
        starter.kill()
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    assert_nothing_left(directory, before)


@pytest.mark.parametrize("nodes", [0, 1], ids=["control plane", "node"])
def test_a_killed_keeper_takes_the_programs_along(nodes: int) -> None:
    """SIGKILL of the keeper ends every program; closing removes what it could not."""
    before = look()
    with running(nodes) as cluster:
        keeper = down.keeper_of(cluster.directory)
        assert keeper is not None
        keeper.send_signal(signal.SIGKILL)
    assert_nothing_left(cluster.directory, before)


def test_a_program_that_ends_ends_the_cluster() -> None:
    """Without its scheduler a cluster is none: the rest ends too, and what each wrote stays until it is closed."""
    before = look()
    with running() as cluster:
        keeper = down.keeper_of(cluster.directory)
        assert keeper is not None
        (scheduler,) = (child for child in keeper.children() if child.name() == "kube-scheduler")
        ended = os.pidfd_open(keeper.pid)
        scheduler.kill()
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
        assert "kube-scheduler ended with status -9" in cluster.logs()
    assert_nothing_left(cluster.directory, before)


def test_a_start_that_fails_tells_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds what the program at fault wrote last."""
    require()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    programs = build.place()
    programs.mkdir(parents=True)
    for name in ("kubebox", "pause"):
        (programs / name).write_text("#!/bin/sh\necho out of order\nexit 3\n")
        (programs / name).chmod(0o755)
    before, cluster = look(), Cluster()
    with pytest.raises(StartFailed, match=r"ended with status 3\n--- .*\nout of order"):
        cluster.start()
    assert_nothing_left(cluster.directory, before)


def test_a_taken_directory_is_refused(tmp_path: Path) -> None:
    """A directory that is there already is an error before anything is started, and is left as it was."""
    require()
    (tmp_path / "mine").touch()
    before = look()
    with pytest.raises(FileExistsError):
        Cluster(directory=tmp_path).start()
    assert (tmp_path / "mine").exists()
    assert look() == before


def test_the_command_line(tmp_path: Path) -> None:
    """`up` starts one that outlives the command and says how to reach it; `status` shows it; `down` removes it."""
    require()
    before, directory = look(), tmp_path / "cluster"
    told = command("up", str(directory)).stdout.splitlines()
    try:
        assert told[0] == f"kubeconfig: {directory / 'kubeconfig'}"
        assert any(line.startswith(f"export KUBECONFIG={directory / 'kubeconfig'} ") for line in told)
        assert command("status", str(directory)).returncode == 0
        assert "is up" in command("up", str(directory)).stderr
    finally:
        assert command("down", str(directory)).returncode == 0
    assert command("status", str(directory)).returncode == 1
    assert_nothing_left(directory, before)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tests.cluster", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
