"""What docs/operations.md advises for small nodes is what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedfleet.api import EmbeddingService
from embedfleet_operator import names, render
from tests.unit.operator.regenerate import SITE

pytestmark = pytest.mark.requirement("O4")
OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
MODELS = [{"name": "semantic", "source": {"path": "/models/m"}}]


def resources(**spec: Any) -> Any:
    """Those of the server's container; without a GPU."""
    tree = {"metadata": {"name": "semantic"}, "spec": {"models": MODELS, "gpu": {"count": 0}, **spec}}
    made = render.objects(EmbeddingService.model_validate(tree), SITE)
    (deployment,) = [one for one in made if one["kind"] == "Deployment"]
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return next(one["resources"] for one in containers if one["name"] == names.CONTAINER)


def test_the_advice_lowers_what_the_scheduler_sets_aside_and_nothing_else() -> None:
    """The manifest's part of the page: 500m instead of 1 CPU; memory and limits stay as the page has them."""
    text = OPERATIONS.read_text(encoding="utf-8")
    section = text.partition("## Small nodes\n")[2].partition("\n## ")[0]
    (advice,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    before, after = resources(), resources(**yaml.safe_load(advice)["spec"])
    assert before["requests"] == {"cpu": "1", "memory": "2Gi"}
    assert before["limits"]["cpu"] == "4"
    assert after == before | {"requests": {"cpu": "500m", "memory": "2Gi"}}
    (strategy,) = re.findall(r"`rollout: (\{.*?\})`", section)
    tree = {"metadata": {"name": "a"}, "spec": {"models": MODELS, "rollout": yaml.safe_load(strategy)}}
    assert EmbeddingService.model_validate(tree).spec.rollout.strategy == "DrainFirst"
