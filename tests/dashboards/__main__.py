"""`python -m tests.dashboards`: docs/dashboard.png anew, from real metrics by way of a real Prometheus.

Two servers with a real model under load, an operator on a real API server, and the chart's alert rules and dashboard.
Fails when a rule cannot be evaluated or a panel stays empty.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from embedfleet.api.local import LocalRecord
from tests.cluster.cluster import Cluster
from tests.dashboards import drawing, scenes
from tests.dashboards.prometheus import Curve, NoPrometheus, Prometheus
from tests.support.charts import CHART

_EVERY_SECONDS = 5
_INTERVAL = f"{4 * _EVERY_SECONDS}s"  # Grafana's $__rate_interval: four scrapes
_EMPTY = {"Mistakes in files of keys or TLS"}
"""Panels that are right to be empty: the servers here have no such files."""


def main() -> int:
    """The exit status: 1 where something is not as it should be."""
    parser = argparse.ArgumentParser("python -m tests.dashboards", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of load (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/dashboard.png"), help="(%(default)s)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="embedfleet-dashboard-") as name:
            wrong = _picture(Path(name), given.seconds, given.output)
    except NoPrometheus as error:
        wrong = [f"error: {error}"]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _picture(folder: Path, seconds: float, output: Path) -> list[str]:
    """What is wrong, a line each."""
    rules = CHART / "files/alerts.yaml"
    with scenes.servers(folder) as records, scenes.operator() as (cluster, port):
        found = scenes.targets(records, port)
        with Prometheus(found, rules, folder, _EVERY_SECONDS) as prometheus:
            start = time.time()
            asyncio.run(_play(records, cluster, seconds))
            end = time.time()
            board = drawing.board(CHART / "files/dashboard.json")

            def ask(text: str) -> Sequence[Curve]:
                return prometheus.curves(text, start, end, _EVERY_SECONDS)

            empty = drawing.draw(board, ask, _INTERVAL, (start, end), output)
            ill = [
                f"rule {rule['name']}: {rule.get('lastError')}" for rule in prometheus.rules() if rule["health"] != "ok"
            ]
            told = [rule["name"] for rule in prometheus.rules() if rule["alerts"]]
    print(f"alerts pending or firing at the end: {', '.join(told) or 'none'}\n{output}")
    return ill + [f"panel {title!r} is empty" for title in empty if title not in _EMPTY]


async def _play(records: Sequence[LocalRecord], cluster: Cluster, seconds: float) -> None:
    await asyncio.gather(scenes.load(records, seconds), scenes.services(cluster, seconds))


if __name__ == "__main__":
    sys.exit(main())
