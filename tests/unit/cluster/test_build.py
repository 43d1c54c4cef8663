"""What is built, with which versions in it, and when anew."""

import shutil
from pathlib import Path

from tests.cluster import build

GO_MOD = "module m\n\nrequire (\n\thelm.sh/helm/v3 v3.20.2 // why\n\tk8s.io/kubernetes v1.35.4\n)\n"


def test_the_versions_come_from_the_pins() -> None:
    """Kubernetes and helm call themselves what go.mod pins."""
    made = build.known(GO_MOD)
    assert "k8s.io/component-base/version.gitVersion=v1.35.4" in made["kubebox"].values
    assert "k8s.io/component-base/version.gitMinor=35" in made["kubebox"].values
    assert made["helm"].values == ("helm.sh/helm/v3/internal/version.version=v3.20.2",)


def test_the_command_line() -> None:
    """One package to one file, with the pins as they are and each value handed to the linker."""
    command = build.command(build.Recipe("./x", ("a.b=c", "d.e=f")), Path("/out/x"))
    assert command[:3] == ["go", "build", "-mod=readonly"]
    assert "-ldflags=-s -w -X a.b=c -X d.e=f" in command
    assert command[-3:] == ["-o", "/out/x", "./x"]


def test_a_change_of_sources_or_compiler_is_built_anew(tmp_path: Path) -> None:
    """The name of the folder follows every source, the pins and the version of Go, and nothing else."""
    copy = tmp_path / "kubebox"
    shutil.copytree(build.SOURCE, copy)
    names = {build.digest("go1.26.1", copy), build.digest("go1.26.2", copy)}
    for changed in ("main.go", "pause/main.go", "go.mod", "go.sum"):
        with (copy / changed).open("a") as file:
            file.write("\n")
        names.add(build.digest("go1.26.1", copy))
    assert len(names) == 6
    (copy / "notes.txt").touch()
    assert build.digest("go1.26.1", copy) in names


def test_every_link_is_a_program_of_kubebox() -> None:
    """The names that are linked are those that main.go answers to."""
    source = (build.SOURCE / "main.go").read_text(encoding="utf-8")
    assert all(f'"{name}":' in source for name in build.LINKS)
