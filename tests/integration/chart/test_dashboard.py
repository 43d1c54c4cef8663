"""The dashboard asks for what the server and the operator really measure, and shows all of it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedfleet_operator.metrics import Gauges, Metrics
from embedfleet_server.app.errors import CODES
from embedfleet_server.app.keys import Keys
from embedfleet_server.batching.pressure import Reading
from embedfleet_server.engine.protocols import Encoded, Rows
from tests.support.charts import CHART
from tests.support.fake_model import FakeModel
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("H3")
SCRAPED = {"namespace", "job", "pod", "instance", "le"}
"""Labels that Prometheus adds, and the one of a histogram's buckets."""


def panels() -> list[dict[str, Any]]:
    """Those that ask for something."""
    board = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every query of every panel."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def of_operator() -> str:
    """What an operator tells after a pass on a service, as `/metrics` has it."""
    metrics = Metrics()
    metrics.watch(Gauges(lambda: 0, lambda: True, lambda: 0.0, lambda: 0.0))
    metrics.passed("Done", 0.1)
    metrics.asked("patch", "deployments", "2xx")
    metrics.told({"metadata": {"uid": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    return metrics.page().decode()


class Measured(FakeModel):
    """Knows what its forwards take: 1 MiB for each token."""

    tokens = 0.0

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        self.tokens = float(sum(len(one.token_ids) for one in batch))
        return super().forward(batch)

    def peak_mib(self) -> float | None:
        return self.tokens


@pytest.fixture
def series(tmp_path: Path) -> dict[str, set[str]]:
    """Each series of a live server, one with keys, after one request, and of an operator, with its labels."""
    found: dict[str, set[str]] = {}

    async def main() -> None:
        (tmp_path / "team").write_text("secret")
        async with serving(
            {"semantic": Measured}, keys=Keys(tmp_path), warm_up=0.5, readings=lambda: {"host": Reading(1e9, 9e9)}
        ) as served:
            assert (await served.embed("a text", headers={"X-API-Key": "secret"})).status == 200
            text = (await served.observe("/metrics")).body.decode()
        told = [*text_string_to_metric_families(text), *text_string_to_metric_families(of_operator())]
        for family in told:
            for sample in family.samples:
                if sample.name.startswith("embedfleet_"):
                    found.setdefault(sample.name, set()).update(sample.labels)

    run(main())
    return found


def test_every_series_is_measured_with_the_labels_it_is_asked_by(series: dict[str, set[str]]) -> None:
    """Each series of a panel is in a live server's text, with each label that the query chooses or groups by."""
    for expression in expressions():
        groups = [each for found in re.findall(r"by \(([^)]*)\)", expression) for each in re.split(r", *", found)]
        for name, chosen in re.findall(r"(embedfleet_\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)=~", chosen)) | set(groups)
            assert name in series, expression
            assert asked <= series[name] | SCRAPED, expression


def test_every_figure_is_shown(series: dict[str, set[str]]) -> None:
    """No metric of the server or of the operator is missing; of histograms the buckets, or sum and count, do."""
    shown = {name for expression in expressions() for name in re.findall(r"embedfleet_\w+", expression)}
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    figures = {name for name in series if not name.endswith("_created")}
    assert {name for name in figures if re.sub(r"_(bucket|sum|count)$", "", name) not in stems} == set()


def test_failures_are_counted_as_the_alert_counts_them() -> None:
    """The codes of the dashboard's share of failures are in the table of codes, and are the alert rule's."""
    alerts = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    (codes,) = {found for expression in expressions() for found in re.findall(r'code=~"([^"]*)"', expression)}
    assert set(codes.split("|")) <= set(CODES)
    assert f'code=~"{codes}"' in alerts


def test_red_lines_are_where_alerts_begin() -> None:
    """A panel's limit is the threshold of an alert rule on the same series."""
    alerts = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    thresholds = {float(found) for found in re.findall(r"(?:>|==) ([\d.]+)\n", alerts)}
    drawn = {
        step["value"] for panel in panels() for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]
    }
    assert drawn == {0.5, 0.05, 500, 60, 1, 90}
    assert drawn <= thresholds


def test_panels_lie_beside_each_other() -> None:
    """Each panel is within the grid's 24 columns, has an id of its own, and lies over no other."""
    board = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
