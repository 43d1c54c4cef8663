"""The alert rules for servers that ship with the chart ask for what the server really measures."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from embedfleet_server.app.errors import CODES
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("H3")
RULES = Path(__file__).parents[3] / "charts" / "embedfleet" / "files" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    (group,) = [one for one in yaml.safe_load(RULES.read_text())["groups"] if one["name"] == "embedfleet"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_series_of_a_rule_is_measured_with_the_labels_it_is_grouped_by() -> None:
    """After one request the server's own text holds each series named, with `model` where a rule is told by model."""

    async def main() -> None:
        async with serving() as served:
            assert (await served.embed("a text")).status == 200
            text = (await served.observe("/metrics")).body.decode()
        series = {s.name: set(s.labels) for family in text_string_to_metric_families(text) for s in family.samples}
        for rule in rules():
            named = set(re.findall(r"embedfleet_\w+", rule["expr"]))
            assert named, rule["alert"]
            for name in named:
                assert name in series, rule["alert"]
                if re.search(r"by \([^)]*\bmodel\b", rule["expr"]):
                    assert "model" in series[name], rule["alert"]

    run(main())


def test_codes_of_a_rule_are_codes_of_the_table() -> None:
    """No rule waits for a code that no answer carries."""
    named = {
        code for rule in rules() for codes in re.findall(r'code=~"([^"]*)"', rule["expr"]) for code in codes.split("|")
    }
    assert named
    assert named <= set(CODES)


def test_the_thresholds_are_those_of_the_requirement() -> None:
    """p95 over 0.5 s, errors over 5 %, queue over 500, and a stuck batch each have a rule."""
    limits = {rule["alert"]: rule["expr"].rsplit(" ", 1)[1] for rule in rules()}
    wanted = {
        "EmbedfleetSlow": "0.5",
        "EmbedfleetErrors": "0.05",
        "EmbedfleetQueueLong": "500",
        "EmbedfleetBatchStuck": "60",
    }
    assert wanted.items() <= limits.items()


def test_each_rule_says_what_to_do() -> None:
    """Summary, description and severity are there for whoever is woken."""
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert min(len(rule["annotations"][key]) for key in ("summary", "description")) > 20, rule["alert"]
