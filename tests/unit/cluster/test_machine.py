"""What whole nodes need is told at once, and what no set-up could cure is told apart."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.errors import MachineLacks
from tests.cluster.machine import PACKAGES, Machine, lacks, missing_packages

ROOT = Path(__file__).resolve().parents[3]
FIT = Machine(root=True, missing=(), namespaces=True, overlay=True, cgroups=True)


def test_a_fit_machine_lacks_nothing() -> None:
    """With all facts given there is nothing to tell."""
    assert lacks(FIT) == ([], [])


def test_everything_that_is_missing_is_named() -> None:
    """Packages can be installed, a kernel's refusal stays: two lists, and one error that names both."""
    curable, hardware = lacks(
        Machine(root=True, missing=("runc", "mount"), namespaces=False, overlay=False, cgroups=True)
    )
    assert curable == ["the packages runc mount"]
    assert [what.split()[0] for what in hardware] == ["namespaces:", "overlayfs"]
    told = str(MachineLacks(curable + hardware, curable=False))
    assert all(what in told for what in curable + hardware)


def test_another_user_learns_of_root_alone() -> None:
    """What root could do cannot be tried by others, and is not held against the machine."""
    curable, hardware = lacks(Machine(root=False, missing=(), namespaces=False, overlay=True, cgroups=False))
    assert [what.split(":")[0] for what in curable] == ["root"]
    assert hardware == []


@pytest.mark.parametrize(("absent", "package"), [("ctr", "containerd"), ("host-local", "containernetworking-plugins")])
def test_the_package_of_a_missing_program(absent: str, package: str) -> None:
    """A package is missing as soon as one of its programs is."""
    assert missing_packages(lambda program: program != absent) == [package]
    assert missing_packages(lambda _: False) == list(PACKAGES)


def test_another_package_s_program_is_not_taken_for_the_plugin() -> None:
    """iproute2 has a program `bridge`, as the network plugins have: where it was found, these were not installed."""
    there = {"containerd", "ctr", "runc", "iptables", "ip", "bridge", "unshare", "mount"}
    assert missing_packages(lambda program: program in there) == ["containernetworking-plugins"]


@pytest.mark.parametrize(("there", "asked"), [("containerd", "runc iptables"), ("containerd runc iptables", "")])
def test_only_missing_packages_are_installed(tmp_path: Path, there: str, asked: str) -> None:
    """tools/debian_packages.sh asks apt for what dpkg does not have, and nothing when all is there."""
    program(tmp_path / "dpkg-query", f'case " {there} " in *" $4 "*) echo ok installed;; esac')
    program(tmp_path / "apt-get", f'echo "$@ $DEBIAN_FRONTEND" >>{tmp_path}/said')
    command = ["sh", str(ROOT / "tools" / "debian_packages.sh"), "containerd", "runc", "iptables"]
    subprocess.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    said = (tmp_path / "said").read_text().splitlines() if (tmp_path / "said").exists() else []
    assert [line.split()[0] for line in said] == (["update", "install"] if asked else [])
    assert all(line.endswith("noninteractive") and asked in line for line in said[1:])


def program(path: Path, body: str) -> None:
    """A shell script that stands for a program."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
