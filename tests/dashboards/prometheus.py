"""A real Prometheus for a while: Debian's package, unpacked in the cache and not installed."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.benchmarks.ports import free_port

CACHE = Path("~/.cache/embedfleet/prometheus").expanduser()
_STARTING = 30.0
_ENDING = 30.0


class NoPrometheus(Exception):
    """Prometheus cannot be had or does not start; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped, with the labels that a ServiceMonitor gives in a cluster."""

    address: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One series of an answer: labels, seconds since 1970, values."""

    labels: dict[str, str]
    at: list[float]
    values: list[float]


def programs() -> Path:
    """The folder with `prometheus` and `promtool`, filled on first use. Raises `NoPrometheus`."""
    folder = CACHE / _version()
    if not folder.exists():
        _unpack(folder)
    return folder / "usr/bin"


def _version() -> str:
    if not shutil.which("apt-get"):
        raise NoPrometheus("apt-get is missing: Prometheus is taken from Debian's package")
    told = subprocess.run(["apt-cache", "policy", "prometheus"], capture_output=True, text=True, check=False).stdout
    found = [line.split()[1] for line in told.splitlines() if line.strip().startswith("Candidate:")]
    if not found or found[0] == "(none)":
        raise NoPrometheus("apt knows no package prometheus: `apt-get update`, then again")
    return found[0].replace(":", "-")


def _unpack(folder: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        got = subprocess.run(
            ["apt-get", "download", "prometheus"], cwd=name, capture_output=True, text=True, check=False
        )
        packages = list(Path(name).glob("*.deb"))
        if got.returncode or not packages:
            raise NoPrometheus(f"apt-get download prometheus: {got.stderr.strip()}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), f"{name}/tree"], check=True)
        Path(name, "tree").rename(folder)


class Prometheus:
    """It scrapes inside the block; `curves` asks it."""

    def __init__(self, targets: Sequence[Target], rules: Path, folder: Path, every_seconds: int) -> None:
        """`rules` is a file of alert rules; data and log are left in `folder`."""
        self._log = folder / "prometheus.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = folder / "prometheus.yml"
        settings.write_text(yaml.safe_dump(_settings(targets, rules, every_seconds)), encoding="utf-8")
        self._command = [
            str(programs() / "prometheus"),
            f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(self._command, stdout=log, stderr=log)
        limit = time.monotonic() + _STARTING
        while not self._is_ready():
            if time.monotonic() > limit or self._running.poll() is not None:
                self._running.kill()
                raise NoPrometheus(self._log.read_text(encoding="utf-8")[-1000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.terminate()
        self._running.wait(_ENDING)

    def curves(self, expression: str, start: float, end: float, step: int) -> list[Curve]:
        """What `expression` gives from `start` to `end`, seconds since 1970."""
        asked = {"query": expression, "start": start, "end": end, "step": step}
        found = self._ask("query_range", asked)["result"]
        return [
            Curve(one["metric"], [float(at) for at, _ in one["values"]], [float(value) for _, value in one["values"]])
            for one in found
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and its alerts."""
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]

    def _ask(self, what: str, asked: dict[str, Any]) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}", timeout=60) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _settings(targets: Sequence[Target], rules: Path, every_seconds: int) -> dict[str, Any]:
    every = f"{every_seconds}s"
    scraped = [{"targets": [one.address], "labels": one.labels} for one in targets]
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "embedfleet", "static_configs": scraped}],
    }
