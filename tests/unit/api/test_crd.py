"""The CustomResourceDefinition obeys what an API server asks of a structural schema, and says what Python says."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems
from embedfleet.api.crd import custom_resource_definition, structural_schema
from embedfleet.api.service import EmbeddingServiceSpec

Node = dict[str, Any]
MINIMAL: Node = {
    "apiVersion": "embedfleet.dev/v1alpha1",
    "kind": "EmbeddingService",
    "metadata": {"name": "semantic"},
    "spec": {"models": [{"name": "semantic", "source": {"path": "weights"}}]},
}
PIPELINE: Node = {
    "name": "index",
    "steps": [{"name": "one", "embed": {"model": "semantic"}, "from": ["input"]}],
    "outputs": ["one"],
}
# Words of CEL itself that follow a dot in our rules; all else there is a field.
CEL_METHODS = {"all", "exists", "exists_one", "indexOf", "map", "matches", "size"}


def version() -> Node:
    made: Node = custom_resource_definition()["spec"]["versions"][0]
    return made


def root() -> Node:
    made: Node = version()["schema"]["openAPIV3Schema"]
    return made


def nodes(path: tuple[str | int, ...], node: Node) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """Every schema in `node` with the path at which a value of it stands; one entry of each list and map."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes((*path, name), child)
    if "additionalProperties" in node:
        yield from nodes((*path, "any"), node["additionalProperties"])
    if "items" in node:
        yield from nodes((*path, 0), node["items"])


SPEC = list(nodes(("spec",), structural_schema(EmbeddingServiceSpec)))
INTEGERS = [(path, node) for path, node in SPEC if node["type"] == "integer"]


def test_every_node_is_typed_and_plain() -> None:
    """No node lacks a type or holds what a structural schema refuses."""
    refused = {
        "$ref",
        "$defs",
        "anyOf",
        "oneOf",
        "allOf",
        "const",
        "title",
        "nullable",
        "uniqueItems",
    }
    for path, node in nodes((), root()):
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not refused & set(node), path
        assert not {"properties", "additionalProperties"} <= set(node), path


def test_only_pod_specs_are_open() -> None:
    """Unknown keys are refused or pruned everywhere but in the pod spec, which is Kubernetes' own."""
    kept = [path for path, node in nodes((), root()) if "x-kubernetes-preserve-unknown-fields" in node]
    assert kept == [("spec", "podTemplate", "spec")]


def test_everything_a_rule_may_loop_over_is_bounded() -> None:
    """Lists, strings and numbers have bounds, so that the API server can tell what a rule costs."""
    for path, node in SPEC:
        if node["type"] == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node["type"] == "string":
            assert "enum" in node or "maxLength" in node, path
        if node["type"] == "integer":
            assert {"minimum", "maximum"} <= set(node), path


def test_every_field_is_described() -> None:
    """`kubectl explain` has words for each field of the spec and the status."""
    undescribed = [
        path
        for path, node in nodes((), root())
        if len(path) > 1 and path[-1] not in (0, "any") and not node.get("description")
    ]
    assert undescribed == []


def test_lists_are_keyed_by_a_required_name() -> None:
    """Two appliers can own different entries of a list: texts are a set, objects have a required key."""
    lists = [(path, node) for path, node in nodes((), root()) if node["type"] == "array"]
    assert lists
    for path, node in lists:
        if node["items"]["type"] == "string":
            assert node["x-kubernetes-list-type"] == "set", path
            continue
        assert node["x-kubernetes-list-type"] == "map", path
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path


def test_patterns_are_understood_by_the_api_server() -> None:
    """No pattern uses what Go's regular expressions lack: look-around and references back."""
    for path, node in SPEC:
        assert not re.search(r"\(\?[=!<]|\\\d", node.get("pattern", "")), path


def test_defaults_are_valid_and_those_of_python() -> None:
    """A default in the schema is a valid value, and the one that Python fills in."""
    made = EmbeddingService.model_validate(MINIMAL).model_dump(by_alias=True)
    for path, node in SPEC:
        if "default" not in node or node["type"] == "object" or at(made, path[:-1]) is None:
            continue  # the last: a group that is not there by default
        assert not list(OAS30Validator(node).iter_errors(node["default"])), path
        assert at(made, path) == node["default"], path


def test_groups_with_defaults_inside_are_there_by_default() -> None:
    """Rules may read `self.batching` and its like without asking whether they are set."""
    spec = root()["properties"]["spec"]["properties"]
    groups = {"batching", "gpu", "drain", "rollout", "weights", "network", "monitoring"}
    assert {name for name, node in spec.items() if node["type"] == "object" and "default" in node} == groups
    assert "default" not in spec["models"]["items"]["properties"]["batching"]


def test_a_group_with_rules_keeps_them_by_default() -> None:
    """An API server asks the rules of a group of its default as it stands: all that they read must be in it."""
    ruled = [node for _, node in SPEC if "x-kubernetes-validations" in node and "default" in node]
    assert [node["default"] for node in ruled if "propagationSeconds" in node["default"]]
    for node in ruled:
        inner = {name for name, child in node["properties"].items() if "default" in child}
        assert set(node["default"]) == inner


def test_rules_of_every_type_reach_the_schema() -> None:
    """Each rule of a contract type stands at the node of that type, with its message."""
    ruled = {
        path: node["x-kubernetes-validations"] for path, node in nodes((), root()) if "x-kubernetes-validations" in node
    }
    models = ("spec", "models", 0)
    source = (*models, "source")
    groups = [("batching",), ("batching", "health"), ("drain",), ("network",), ("tracing",), ("weights", "cache")]
    expected = {(), ("spec",), models, (*models, "batching"), source, (*source, "volume"), (*source, "image")}
    expected.add((*source, "huggingFace"))
    pipeline = ("spec", "pipelines", 0)
    step = (*pipeline, "steps", 0)
    expected |= {pipeline, step, (*step, "chunk"), (*step, "quantize")}
    assert set(ruled) == expected | {("spec", *group) for group in groups}
    spec = [(rule["rule"], rule["message"]) for rule in ruled["spec",]]
    assert spec == [(rule.expression, rule.message) for rule in EmbeddingServiceSpec.cel_rules]


def test_rules_read_only_fields_that_are_there() -> None:
    """Every dotted name in a rule is a field of the type the rule stands at, or of an entry of its models."""
    for path, node in nodes((), root()):
        for rule in node.get("x-kubernetes-validations", ()):
            for root_name, dotted in re.findall(r"\b(self|m|n)((?:\.\w+)+)", rule["rule"]):
                start = node if root_name == "self" else node["properties"]["models"]["items"]
                assert reads(start, dotted[1:].split(".")), (path, root_name + dotted)


def reads(node: Node, names: list[str]) -> bool:
    for name in names:
        if name in CEL_METHODS or (name == "name" and node.get("properties") is None):
            return True
        if name not in node.get("properties", {}):
            return False
        node = node["properties"][name]
    return True


def test_scale_and_status_are_subresources() -> None:
    """`kubectl scale` and a status of its own work on fields that the schema has."""
    subresources = version()["subresources"]
    assert subresources["status"] == {}
    known = {f".{'.'.join(map(str, path))}" for path, _ in nodes((), root())}
    assert set(subresources["scale"].values()) <= known


def test_columns_show_fields_that_are_there() -> None:
    """Every column of `kubectl get` reads a field of the schema, or Kubernetes' own creation time."""
    known = {".".join(["", *map(str, path)]).replace(".0", "[*]") for path, _ in nodes((), root())}
    columns = {
        column["jsonPath"].replace("[?(@.type=='Ready')]", "[*]") for column in version()["additionalPrinterColumns"]
    }
    assert columns - known == {".metadata.creationTimestamp"}


@pytest.mark.parametrize(("path", "node"), INTEGERS, ids=[".".join(map(str, path)) for path, _ in INTEGERS])
def test_python_and_the_schema_refuse_the_same_numbers(path: tuple[str | int, ...], node: Node) -> None:
    """A number just out of the schema's bounds is refused by Python too, and named by its path; one just in is not."""
    where = ".".join(map(str, path)).replace(".0", "[0]")
    given = {**MINIMAL, "spec": {**MINIMAL["spec"], "pipelines": [PIPELINE]}} if "pipelines" in path else MINIMAL
    for bound, step in ((node["minimum"], -1), (node["maximum"], 1)):
        assert where not in complaints(path, bound, given)
        assert where in complaints(path, bound + step, given)


def complaints(path: tuple[str | int, ...], value: object, given: Node = MINIMAL) -> set[str]:
    """Where Python finds a mistake once `value` stands at `path` of the manifest `given`."""
    try:
        EmbeddingService.model_validate(with_value(given, path, value))
    except ValidationError as error:
        return {problem.where for problem in problems(error)}
    return set()


def with_value(tree: Any, path: tuple[str | int, ...], value: object) -> Any:
    """A copy of `tree` with `value` at `path`, groups on the way made where they are not there."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        return [with_value(tree[0], rest, value), *tree[1:]]
    return {**tree, head: with_value(tree.get(head, {}), rest, value)}


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at `path`; None where a group on the way, or an entry of a list, is not there."""
    for step in path:
        if not tree:
            return None
        tree = tree[step]
    return tree


def test_a_group_that_is_there_by_default_keeps_its_own_rules() -> None:
    """An API server holds the default of a group against the group's rules before it fills in anything."""
    groups = [(path, node) for path, node in SPEC if "default" in node and "x-kubernetes-validations" in node]
    assert groups
    for path, node in groups:
        rules = [rule["rule"] for rule in node["x-kubernetes-validations"]]
        asked = {name for rule in rules for name in re.findall(r"has\(self\.(\w+)\)", rule)}
        named = {name for rule in rules for name in re.findall(r"self\.(\w+)", rule)}
        assert named - asked <= set(node["default"]), path
