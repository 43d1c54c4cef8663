"""What docs/sdk.md says of roles is what the routes ask."""

import re
from pathlib import Path

import pytest
import yaml

from embedfleet.kube.access import FORWARD, SEE, Need, proxying

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sdk.md"


@pytest.mark.requirement("K1")
def test_the_role_of_the_page_grants_every_route() -> None:
    """Each need has its rule, and no rule is there without one."""
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    (role,) = [block for block in blocks if block.get("kind") == "Role"]
    granted = {(rule["apiGroups"][0], rule["resources"][0], verb) for rule in role["rules"] for verb in rule["verbs"]}
    needs = [*SEE, *proxying("semantic", tls=False), *FORWARD]
    assert granted == {(need.group, _whole(need), need.verb) for need in needs}


def _whole(need: Need) -> str:
    return f"{need.resource}/{need.sub}" if need.sub else need.resource
