"""The CustomResourceDefinition of `EmbeddingService`, made from the contract's types.

An API server takes less than JSON Schema offers: every node is typed, nothing is referenced or nullable, and lists and
strings are bounded so that the cost of the CEL rules can be estimated. This module turns the one into the other.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from embedfleet.api import service
from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.status import EmbeddingServiceStatus

Schema = dict[str, Any]

# What an API server's structural schema has no use for: titles are noise, unknown keys are pruned or refused by itself.
_DROPPED = frozenset({"title", "additionalProperties", "$defs", "anyOf", "$ref", "const"})
# A list whose entries must have one of these is keyed by it, so that two appliers can own different entries.
_LIST_KEYS = ("name", "type")
# The order in which a reader of the file wants a field told.
_ORDER = (
    "description",
    "type",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "required",
)


def custom_resource_definition() -> Schema:
    """The whole `apiextensions.k8s.io/v1` object, as plain mappings and lists."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{service.PLURAL}.{service.GROUP}"},
        "spec": {"group": service.GROUP, "names": _names(), "scope": "Namespaced", "versions": [_version()]},
    }


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural OpenAPI v3 schema of one contract type."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    return _structural(schema, schema.get("$defs", {}))


def validations(rules: tuple[Rule, ...]) -> list[Schema]:
    """The rules as `x-kubernetes-validations`."""
    return [{"rule": rule.expression, "message": rule.message} for rule in rules]


class _WithRules(GenerateJsonSchema):
    """pydantic's own generator, with each type's rules beside its properties."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, ContractModel) and model.cel_rules:
            made["x-kubernetes-validations"] = validations(model.cel_rules)
        return made


def _names() -> Schema:
    return {
        "kind": service.KIND,
        "listKind": f"{service.KIND}List",
        "plural": service.PLURAL,
        "singular": service.KIND.lower(),
        "shortNames": [service.SHORT_NAME],
    }


def _version() -> Schema:
    return {
        "name": service.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
            _wide("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason"),
            {"name": "Replicas", "type": "integer", "jsonPath": ".status.readyReplicas"},
            _wide("Wanted", "integer", ".spec.replicas"),
            _wide("GPUs", "integer", ".spec.gpu.count"),
            {"name": "Models", "type": "string", "jsonPath": ".status.modelsReady"},
            {"name": "URL", "type": "string", "jsonPath": ".status.url"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }


def _wide(name: str, kind: str, path: str) -> Schema:
    """A column that only `kubectl get -o wide` shows."""
    return {"name": name, "type": kind, "jsonPath": path, "priority": 1}


def _root() -> Schema:
    root = service.EmbeddingService
    return {
        "description": root.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(service.EmbeddingServiceSpec),
            "status": structural_schema(EmbeddingServiceStatus),
        },
        "x-kubernetes-validations": validations(root.cel_rules),
    }


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    resolved = _resolved(node, definitions)
    made = {key: value for key, value in resolved.items() if key not in _DROPPED}
    if made.get("default", ...) is None:
        del made["default"]
    if "const" in resolved:
        made["enum"] = [resolved["const"]]
    if "properties" in resolved:
        made["properties"] = _properties(resolved, definitions)
    if "items" in resolved:
        made |= _list(resolved, definitions)
    return _ordered(made | _open(resolved, definitions))


def _open(node: Schema, definitions: Mapping[str, Any]) -> Schema:
    """What an object says of keys that its type does not name: kept as they are, or all of one kind."""
    others = node.get("additionalProperties", False)
    if others is True:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return {"additionalProperties": _structural(others, definitions)} if others else {}


def _ordered(node: Schema) -> Schema:
    rank = {key: place for place, key in enumerate(_ORDER)}
    return dict(sorted(node.items(), key=lambda item: rank.get(item[0], len(rank))))


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """`node` with its reference followed and `null` taken out; what the node says itself stands above the target's."""
    own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions) | own
    if "anyOf" in node:
        (target,) = (choice for choice in node["anyOf"] if choice != {"type": "null"})
        return _resolved(target, definitions) | own
    return own


def _properties(node: Schema, definitions: Mapping[str, Any]) -> Schema:
    required = node.get("required", ())
    made = {name: _structural(given, definitions) for name, given in node["properties"].items()}
    for name, given in node["properties"].items():
        if made[name]["type"] == "object" and name not in required and "default" not in given:
            # A group that is there by default: the API server then fills in the defaults of what stands in it.
            made[name] = _ordered(made[name] | {"default": _default(made[name])})
    return made


def _default(group: Schema) -> Schema:
    """What stands for a group that is not given; whole where it has rules, since the API server asks them of it."""
    if "x-kubernetes-validations" not in group:
        return {}
    properties = group.get("properties", {}).items()
    return {name: _default(child) or child["default"] for name, child in properties if "default" in child}


def _list(node: Schema, definitions: Mapping[str, Any]) -> Schema:
    items = _structural(cast("Mapping[str, Any]", node["items"]), definitions)
    key = next((name for name in _LIST_KEYS if name in items.get("required", ())), None)
    if key is not None:
        return {"items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"items": items, "x-kubernetes-list-type": "set" if items["type"] == "string" else "atomic"}
