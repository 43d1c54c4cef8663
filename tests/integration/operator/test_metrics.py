"""The operator as a process, scraped."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.operators import IMAGE, Place, until
from tests.support.process import ROOT


@pytest.fixture
def port(place: Place) -> Iterator[int]:
    """The observation port of `python -m embedfleet_operator` that looks after the place's namespace."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    options = [
        "--kubeconfig",
        str(place.cluster.kubeconfig),
        "--server-image",
        IMAGE,
        "--lease-namespace",
        place.namespace,
    ]
    options += ["-n", place.namespace, "--observe-host", "127.0.0.1", "--observe-port", str(number)]
    command = [sys.executable, "-m", "embedfleet_operator", *options]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield number
        finally:
            running.send_signal(signal.SIGTERM)
            _, said = running.communicate(timeout=30)
    assert running.returncode == 0, said


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and labels' values, those in the order of their names; none while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = answer.read().decode()
    except OSError:
        return {}
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (one.name.removeprefix("embedfleet_operator_"), *(one.labels[key] for key in sorted(one.labels))): one.value
        for one in found
    }


@pytest.mark.requirement("O4")
def test_a_process_is_scraped(place: Place, port: int) -> None:
    """What the process tells of itself is what it has done: it leads, has made the children, and knows the state."""
    until(lambda: scraped(port).get(("leader",)) == 1)
    place.apply()
    place.settled()
    found = until(lambda: at_rest(port))
    assert found["reconcile_seconds_count", "Done"] >= 1
    assert found["api_requests_total", "2xx", "deployments", "patch"] == 1
    assert found["api_requests_total", "2xx", "configmaps", "patch"] == 2
    assert found["services",] == 1
    assert found["watch_event_age_seconds",] >= 0
    assert found["process_resident_memory_bytes",] > 0


def at_rest(port: int) -> dict[tuple[str, ...], float] | None:
    """What is scraped once nothing is to be done and the service is known not to be Ready."""
    found = scraped(port)
    quiet = found.get(("queue_depth",)) == 0
    return found if quiet and found.get(("services_by_condition", "Ready", "False")) == 1 else None
