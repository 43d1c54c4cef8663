"""docs/reference.md: every field of the manifest with its type, bounds, default and meaning, and the rules."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_HEAD = """\
<!-- Generated from embedfleet.api by `make generate`; edit the types there. -->
# The manifest: `{kind}`, `{group}/{version}`

Short name `{short}`. Unknown keys are refused; so is every value that is not of the type and within the bounds given
here, all of them named in one go (`embedfleet validate -f FILE`, and the API server in a cluster).
A field marked **required** has no default; one with neither a default nor that mark may be left unset.
"""


def page(definition: Schema) -> str:
    """The page for a CustomResourceDefinition given as plain mappings."""
    spec = definition["spec"]
    version = spec["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    head = _HEAD.format(
        kind=spec["names"]["kind"], group=spec["group"], version=version["name"], short=spec["names"]["shortNames"][0]
    )
    objects = [found for group in ("spec", "status") for found in _objects(group, root["properties"][group])]
    return "\n".join([head, *(_section(path, node) for path, node in objects), _rules(root)])


def _objects(path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    """Every object in the schema with its dotted path, parents first."""
    yield path, node
    for name, child in node["properties"].items():
        inner = child["items"] if child["type"] == "array" else child
        if inner["type"] == "object" and "properties" in inner:
            yield from _objects(f"{path}.{name}{'[]' if child['type'] == 'array' else ''}", inner)


def _section(path: str, node: Schema) -> str:
    rows = [_row(name, child, name in node.get("required", ())) for name, child in node["properties"].items()]
    lines = [f"## `{path}`", node["description"], "", "| field | type | default | what |", "|---|---|---|---|", *rows]
    rules = [f"- {rule['message']}" for rule in node.get("x-kubernetes-validations", ())]
    if rules:
        lines += ["", "What must hold:", "", *rules]
    return "\n".join(lines) + "\n"


def _row(name: str, node: Schema, required: bool) -> str:
    default = "**required**" if required else _default(node)
    return f"| `{name}` | {_type(node)} | {default} | {node['description']} |"


def _default(node: Schema) -> str:
    if "default" not in node or node["type"] == "object":
        return ""
    value = node["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(node: Schema) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{choice}`" for choice in node["enum"])
    if node["type"] == "array":
        key = node.get("x-kubernetes-list-map-keys", [None])[0]
        by = f", by {key}" if key else ""
        return f"list of {node.get('minItems', 0)}..{node['maxItems']} {node['items']['type']}s{by}"
    if "additionalProperties" in node:
        return f"map of at most {node['maxProperties']} {node['additionalProperties']['type']}s"
    return f"{node['type']}{_bounds(node)}"


def _bounds(node: Schema) -> str:
    if "maximum" in node:
        return f" {node.get('minimum', 0)}..{node['maximum']}"
    if "minimum" in node:
        return f" ≥ {node['minimum']}"
    return f", at most {node['maxLength']} characters" if "maxLength" in node else ""


def _rules(root: Schema) -> str:
    rules = [f"- {rule['message']}" for rule in root.get("x-kubernetes-validations", ())]
    return "\n".join(["## The object as a whole", "", "What must hold:", "", *rules]) + "\n"
