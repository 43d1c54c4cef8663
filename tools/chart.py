"""What is made of `chart_values` for the chart: values.yaml, values.schema.json, the README's table."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tools.chart_values import Chart

Schema = dict[str, Any]

_NOTE = "Generated from tools/chart_values.py by `make generate`; edit the types there."
_BEGIN, _END = f"<!-- {_NOTE} -->", "<!-- End of the generated part. -->"
_WIDTH = 118
_GLOBAL = {
    "description": "Values that Helm hands to every chart that is part of another; this chart reads none.",
    "type": "object",
}
"""The one key that is not ours: a parent chart's Helm adds it, and must not be refused for it."""


def values() -> str:
    """values.yaml: every value with its default and a comment."""
    head = [f"# {_NOTE}", "# What may be set, and to what: values.schema.json, which refuses every other key.", ""]
    return "\n".join([*head, *_lines(Chart(), 0)]).rstrip() + "\n"


def schema() -> str:
    """values.schema.json, in the draft that every version of Helm 3 reads."""
    made = Chart.model_json_schema(by_alias=True)
    whole = _resolved({key: value for key, value in made.items() if key != "$defs"}, made["$defs"])
    whole["properties"]["global"] = _GLOBAL
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": _NOTE}
    return json.dumps(head | whole, indent=2, ensure_ascii=False) + "\n"


def readme(written: str | None) -> str:
    """The chart's README with its table of values as it should be; what people wrote around it stays."""
    page = written if written is not None and _BEGIN in written and _END in written else f"{_BEGIN}\n{_END}\n"
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{_table()}\n{_END}{rest.partition(_END)[2]}"


def leaves(group: BaseModel, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each value that is no group: its dotted path, its default, its meaning."""
    for name, field in type(group).model_fields.items():
        value, key = getattr(group, name), f"{path}{field.alias}"
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value, _text(field)


def _lines(group: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        yield from textwrap.wrap(_text(field), _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, BaseModel):
            yield f"{indent}{field.alias}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{indent}{field.alias}: {_inline(value)}"
        if not depth:
            yield ""


def _inline(value: Any) -> str:
    """A default in one line, as a person would write it: text in quotes only where YAML asks for them."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _table() -> str:
    rows = [f"| `{path}` | `{_json(value)}` | {text} |" for path, value, text in leaves(Chart())]
    return "\n".join(["| value | default | what |", "|---|---|---|", *rows])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    """`node` with what it refers to in its place, and without what only pydantic wants: titles and defaults."""
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return _resolved({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    return {
        key: {name: _resolved(each, definitions) for name, each in value.items()}
        if key == "properties"
        else _resolved(value, definitions)
        for key, value in node.items()
        if key not in ("title", "default")
    } | ({"description": " ".join(node["description"].split())} if "description" in node else {})
