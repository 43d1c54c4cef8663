"""What the operator tells Prometheus of itself."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from embedfleet_operator import hearing, run
from embedfleet_operator.metrics import PREFIX, Gauges, Metrics
from embedfleet_operator.status import states

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
RULES = ROOT / "charts" / "embedfleet" / "files" / "alerts.yaml"


def made() -> Metrics:
    """Metrics of a leader with three services to look at."""
    metrics = Metrics()
    metrics.watch(Gauges(lambda: 3, lambda: True, lambda: 1.5, lambda: 0.0))
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and labels' values, those in the order of their names."""
    families = text_string_to_metric_families(metrics.page().decode())
    found = [sample for family in families for sample in family.samples]
    return {
        (one.name.removeprefix(f"{PREFIX}_"), *(one.labels[key] for key in sorted(one.labels))): one.value
        for one in found
    }


def service(uid: str, **conditions: str) -> dict[str, object]:
    """An EmbeddingService with these conditions."""
    told = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {"metadata": {"uid": uid}, "status": {"conditions": told}}


def test_passes_and_requests_are_counted() -> None:
    """By outcome, with their durations; by verb, resource and code."""
    metrics = made()
    metrics.passed("Done", 0.3)
    metrics.passed("Done", 0.01)
    metrics.asked("patch", "deployments", "409")
    found = samples(metrics)
    assert found["reconcile_seconds_count", "Done"] == 2
    assert found["reconcile_seconds_bucket", "0.25", "Done"] == 1
    assert found["api_requests_total", "409", "deployments", "patch"] == 1


def test_gauges_are_read_at_each_scrape() -> None:
    """The queue, the Lease and the watch as they are now."""
    found = samples(made())
    assert found["queue_depth",] == 3
    assert found["leader",] == 1
    assert found["watch_event_age_seconds",] == 1.5
    assert found["watch_owed_seconds",] == 0


def test_services_are_counted_by_condition() -> None:
    """As the last resync read them and as the watch has told of them since."""
    metrics = made()
    metrics.read([service("a", Ready="True"), service("b", Ready="True", Degraded="True"), service("c")])
    metrics.told(service("a", Ready="False"))
    metrics.told(service("d", Ready="False"))
    metrics.told(service("b"), gone=True)
    found = samples(metrics)
    assert found["services",] == 3
    assert found["services_by_condition", "Ready", "False"] == 2
    assert ("services_by_condition", "Ready", "True") not in found


def test_each_is_documented() -> None:
    """docs/operations.md has every metric that the operator makes, and no other of its prefix."""
    families = text_string_to_metric_families(made().page().decode())
    names = {family.name for family in families if family.name.startswith(PREFIX)} | {f"{PREFIX}_api_requests"}
    told = re.findall(rf"`({PREFIX}_\w+?)(?:_total)?`", OPERATIONS.read_text(encoding="utf-8"))
    assert set(told) == names


def rules() -> dict[str, dict[str, Any]]:
    """The chart's alert rules for the operator, by name."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    (own,) = [group["rules"] for group in groups if group["name"] == "embedfleet-operator"]
    return {rule["alert"]: rule for rule in own}


@pytest.mark.requirement("H3")
def test_alerts_ask_for_what_is_measured() -> None:
    """Each series of a rule is in the operator's text, with every label that the rule chooses or groups by."""
    metrics = made()
    metrics.passed("Done", 0.1)
    metrics.told(service("a", Ready="True"))
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    for name, rule in rules().items():
        expression = rule["expr"]
        named = set(re.findall(rf"{PREFIX}_\w+", expression))
        grouped = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")}
        asked = grouped - {"namespace", "job", "pod"} | set(re.findall(r"(\w+)=~?\"", expression))
        assert named, name
        assert all(one in series and asked <= series[one] for one in named), name


@pytest.mark.requirement("H3")
def test_alerts_wait_for_words_that_are_said() -> None:
    """Outcomes are names of errors that a pass ends with, or `Bug`; conditions are those of the table."""
    text = inspect.getsource(run)
    said = {one.value for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Constant)} | set(vars(run))
    (outcomes,) = re.findall(r'outcome=~"([^"]*)"', rules()["EmbedfleetOperatorFailing"]["expr"])
    (conditions,) = re.findall(r'condition=~"([^"]*)"', rules()["EmbedfleetServicesDegraded"]["expr"])
    assert set(outcomes.split("|")) <= said
    assert set(conditions.split("|")) <= {states.DEGRADED, states.BLOCKED}


@pytest.mark.requirement("H3")
def test_each_alert_says_what_to_do() -> None:
    """Summary, description and severity; a watch that is deaf is told of before the kubelet ends the pod for it."""
    for name, rule in rules().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert min(len(rule["annotations"][key]) for key in ("summary", "description")) > 20, name
    assert float(rules()["EmbedfleetOperatorDeaf"]["expr"].rsplit(" ", 1)[1]) < hearing.DEAF_SECONDS
