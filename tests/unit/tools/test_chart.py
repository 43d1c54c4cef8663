"""The chart's values, their schema and the README's table say the same, and the chart's own figures agree."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import chart
from tools.chart_values import Chart

pytestmark = pytest.mark.requirement("O6")
ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "embedfleet"
OPEN = {"global", "affinity.nodeAffinity", "affinity.podAffinity", "affinity.podAntiAffinity"}
"""What Helm or Kubernetes defines: any key may stand there."""


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of values.yaml by its dotted path; an empty mapping, or one of a map, is a value."""
    for key, value in tree.items():
        where = f"{path}{key}"
        if isinstance(value, dict) and where not in maps():
            yield from leaves(value, f"{where}.")
        else:
            yield where, value


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the schema by its dotted path."""
    if schema.get("type") == "object":
        yield path, schema
    for key, child in schema.get("properties", {}).items():
        yield from objects(child, f"{path}.{key}" if path else key)
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return found


def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def maps() -> set[str]:
    """Where keys are the user's: labels, amounts, and what is open."""
    return {path for path, node in objects(schema()) if "properties" not in node}


def test_an_unknown_key_is_refused_everywhere() -> None:
    """Every object of the schema either refuses keys that it does not name, or is a map whose values have a type."""
    for path, node in objects(schema()):
        if path in OPEN:
            continue
        allowed = node.get("additionalProperties", True)
        assert allowed is False if "properties" in node else isinstance(allowed, dict), path


def test_the_types_take_values_yaml() -> None:
    """It is valid, and holds the types' own defaults (that the schema takes it is shown by `helm lint`)."""
    assert Chart.model_validate(values()) == Chart()


def test_values_schema_and_readme_have_the_same_keys() -> None:
    """Each value stands in all three, with the same default and the same words."""
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    rows = {
        path: (json.loads(default), text)
        for path, default, text in re.findall(r"^\| `(\S+)` \| `(.*?)` \| (.*) \|$", readme, re.MULTILINE)
    }
    assert {path: default for path, (default, _) in rows.items()} == dict(leaves(values()))
    named = {path for path, _ in described(schema())} - {"global"}
    assert named == set(rows)
    assert {path: text for path, text in described(schema()) if path in rows} == {
        path: text for path, (_, text) in rows.items()
    }


def described(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Each value of the schema that is no group, with its description."""
    for key, child in node["properties"].items():
        where = f"{path}{key}"
        if "properties" in child:
            yield from described(child, f"{where}.")
        else:
            yield where, child["description"]


def test_every_value_has_a_comment() -> None:
    """Above each key of values.yaml, group or value, stands what it is."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    keys = [index for index, line in enumerate(lines) if re.match(r" *[A-Za-z]+:", line)]
    assert len(keys) > len(list(leaves(values())))
    for index in keys:
        indent = re.match(r" *", lines[index])
        assert indent is not None
        assert re.match(rf"{indent[0]}# \S", lines[index - 1]), lines[index]


def test_the_readme_keeps_what_people_wrote() -> None:
    """The table between the marks is made anew, the text around it stays."""
    made = chart.readme(None)
    stale = made.replace("| `replicas` |", "| `gone` |")
    assert chart.readme(f"# Mine\n{stale}the end\n") == f"# Mine\n{made}the end\n"


def test_the_chart_is_of_the_operators_version() -> None:
    """appVersion, by which images are found, is the distributions' version; Artifact Hub is told the same images."""
    told = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    for folder in ("sdk", "operator", "images/server"):
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert told["appVersion"] == project["version"], folder
    images = {one["image"] for one in yaml.safe_load(told["annotations"]["artifacthub.io/images"])}
    given = values()
    assert images == {f"{given[key]['repository']}:{told['appVersion']}" for key in ("image", "serverImage")}


def test_artifact_hub_is_shown_a_valid_service() -> None:
    """The example in Chart.yaml is one that the contract takes, and the CRD it names is the one there is."""
    from embedfleet.api import EmbeddingService

    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["annotations"]
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    service = EmbeddingService.model_validate(example)
    (crd,) = yaml.safe_load(annotations["artifacthub.io/crds"])
    assert (crd["kind"], crd["version"]) == (service.kind, service.api_version.rpartition("/")[2])
    assert (CHART / "generated" / "crds" / f"{crd['name']}.yaml").is_file()
