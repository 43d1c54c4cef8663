"""The command line as a process: exit statuses, messages, and what it imports."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from embedfleet.api.local import LocalRecord, write_record
from tests.support.process import ROOT

MANIFEST = "metadata: {name: fleet}\nspec:\n  models: [{name: semantic, source: {path: weights}}]\n"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedfleet", *arguments],
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_is_installed() -> None:
    """`embedfleet` is the same as `python -m embedfleet`."""
    (command,) = entry_points(group="console_scripts", name="embedfleet")
    assert command.value == "embedfleet.cli:main"


@pytest.mark.requirement("K5")
def test_version() -> None:
    """It is the installed distribution's."""
    done = run("version")
    assert (done.returncode, done.stdout) == (0, f"embedfleet {version('embedfleet')}\n")


def test_a_good_manifest_is_said_to_be_good() -> None:
    """The example is valid: one line with its service and models, status 0."""
    done = run("validate", "-f", str(ROOT / "examples" / "embeddingservice.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "is valid: service semantic, models semantic, code, entity" in done.stdout


@pytest.mark.requirement("B15")
@pytest.mark.parametrize("command", ["validate", "serve"])
def test_every_problem_has_a_line(tmp_path: Path, command: str) -> None:
    """A wrong manifest ends with status 2 and each problem on a line of its own, whoever reads it."""
    file = tmp_path / "manifest.yaml"
    file.write_text(MANIFEST + "  replicas: -1\n  gpus: {count: 1}\n", encoding="utf-8")
    done = run(command, "-f", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"error: {file} has 2 problems:",
        "  spec.replicas is -1: must be at least 0",
        "  spec.gpus: is not a known field; did you mean 'gpu'?",
    ]


@pytest.mark.parametrize(
    "arguments", [["serve"], ["serve", "-f", "x", "--port", "70000"], ["nope"], ["embed", "--input-type", "poem"]]
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    """Wrong options are told without a traceback."""
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_nothing_runs(tmp_path: Path) -> None:
    """Where no service runs, `get` says so and is no failure; its JSON is an empty list."""
    done = run("get", XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"no service runs here (looked in {tmp_path / 'embedfleet'})\n")
    assert json.loads(run("get", "-o", "json", XDG_RUNTIME_DIR=str(tmp_path)).stdout) == []


def test_a_server_that_does_not_answer_is_listed_as_such(tmp_path: Path) -> None:
    """A port that takes connections and says nothing, or that nobody listens on, holds `get` up for a moment only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {"silent": f"http://127.0.0.1:{silent.getsockname()[1]}", "refusing": "http://127.0.0.1:1"}
        for name, url in urls.items():
            record = LocalRecord(service=name, pid=os.getpid(), url=url, observe_url=url, models=["a"])
            write_record(tmp_path / "embedfleet", record)
        shown = run("get", XDG_RUNTIME_DIR=str(tmp_path)).stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:]] == [["refusing", "no", "answer"], ["silent", "no", "answer"]]


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["get"], ["validate", "-f", "MANIFEST"]])
def test_light_commands_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    """What embeds nothing loads neither NumPy nor aiohttp, let alone torch."""
    file = tmp_path / "manifest.yaml"
    file.write_text(MANIFEST, encoding="utf-8")
    given = [str(file) if argument == "MANIFEST" else argument for argument in arguments]
    program = (
        "import atexit, sys\n"
        "heavy = ('numpy', 'aiohttp', 'torch', 'tqdm', 'embedfleet_server')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from embedfleet.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")


@pytest.mark.requirement("K5")
def test_the_doctor_ends_with_its_finding_alone(tmp_path: Path) -> None:
    """Status 1 where no route leads to the service, and no word of an error beside the finding."""
    done = run("doctor", "semantic", HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path), KUBECONFIG="")
    assert (done.returncode, done.stderr) == (1, "")
    assert "no route leads to 'semantic'" in done.stdout


def in_bash(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`run` under a shell, which is what the program then finds itself in."""
    command = f'"{sys.executable}" -m embedfleet {" ".join(arguments)}; exit $?'  # with one command alone bash is gone
    return subprocess.run(
        ["bash", "-c", command], env=os.environ | environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.requirement("K5")
def test_the_shell_completes() -> None:
    """`--show-completion` prints what a shell needs, and the program then says what can follow."""
    shown = in_bash("--show-completion")
    assert "_EMBEDFLEET_COMPLETE=complete_bash" in shown.stdout
    asked = {"_EMBEDFLEET_COMPLETE": "complete_bash", "COMP_WORDS": "embedfleet s", "COMP_CWORD": "1"}
    assert run(**asked).stdout.split() == ["serve", "set", "stats", "scale"]
    within = {**asked, "COMP_WORDS": "embedfleet scale --r", "COMP_CWORD": "2"}
    assert run(**within).stdout.split() == ["--replicas"]


def test_completion_is_installed_for_the_next_shell(tmp_path: Path) -> None:
    """`--install-completion` writes into the home of whoever asks, and says where."""
    done = in_bash("--install-completion", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "bash completion installed in" in done.stdout
    assert "embedfleet.sh" in (tmp_path / ".bashrc").read_text()
