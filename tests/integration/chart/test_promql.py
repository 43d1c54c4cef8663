"""Alert rules and dashboard are PromQL, by a parser that is not ours."""

from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from tests.dashboards.drawing import board, expression
from tests.support.charts import CHART

pytestmark = pytest.mark.requirement("H3")


def rules() -> list[tuple[str, str]]:
    """Name and expression of each alert rule."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Title and query of each curve of the dashboard, Grafana's variables filled in."""
    for panel in board(CHART / "files" / "dashboard.json")["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], expression(target["expr"], "1m")


@pytest.mark.parametrize(("name", "asked"), [*rules(), *queries()])
def test_it_is_promql(name: str, asked: str) -> None:
    """Each parses, with no variable left in it."""
    assert "$" not in asked, name
    assert isinstance(promql_parser.parse(asked), promql_parser.Expr), name  # `ValueError` where it is none


def test_what_is_no_promql_is_noticed() -> None:
    """The parser refuses a query with a bracket too few."""
    _, asked = rules()[0]
    with pytest.raises(ValueError, match="unexpected right parenthesis"):
        promql_parser.parse(asked.replace("(", "", 1))
