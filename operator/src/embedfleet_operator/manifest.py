"""A manifest's text as plain values, read as kubectl reads it: one document, no key twice in a mapping, no dates."""

from collections.abc import Iterator
from typing import Any

import yaml

from embedfleet_operator.errors import ManifestUnreadable


class _Loader(yaml.SafeLoader):
    """YAML without dates: what looks like one (a revision, say) stays the text it is."""


_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(text: str) -> Any:
    """The values of the one document in `text`; None for an empty one. Raises `ManifestUnreadable`."""
    try:
        loader = _Loader(text)
        try:
            return _read(loader)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # The last four are what PyYAML raises on a value that its explicit tag (`!!int x`) does not fit.
        raise ManifestUnreadable([f"cannot be read: {str(error) or type(error).__name__}"]) from error


def _read(loader: _Loader) -> Any:
    node = loader.get_single_node()
    if node is None:
        return None
    twice = [f"{key}: stands twice, on line {first} and on line {second}" for key, first, second in _twice(node)]
    if twice:
        raise ManifestUnreadable(twice)
    return loader.construct_document(node)


def _twice(root: yaml.Node) -> Iterator[tuple[str, int, int]]:
    """Path and both lines of each key that stands twice; what an alias names is looked at once."""
    waiting, seen = [("", root)], set[int]()
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _twice_in(path, node)
        waiting += reversed(_children(path, node))


def _twice_in(path: str, node: yaml.MappingNode) -> Iterator[tuple[str, int, int]]:
    lines: dict[tuple[str, str], int] = {}
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        line, known = key.start_mark.line + 1, (key.tag, key.value)
        if known in lines:
            yield _joined(path, key.value), lines[known], line
        lines[known] = line


def _children(path: str, node: yaml.Node) -> list[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        return [(f"{path}[{index}]", item) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return [(_joined(path, str(key.value)), value) for key, value in node.value]
    return []


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
