"""A manifest's text becomes an `EmbeddingService`, or every mistake of it is named in one go."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from embedfleet.api import EmbeddingService, ModelSpec, Problem, problems
from embedfleet.errors import ManifestInvalid

_WHOLE = "manifest"
_MOST_NODES = 100_000
"""Keys and values, each alias counted with all it stands for: 32 models with every field set have some 1,000."""


def load(path: Path) -> EmbeddingService:
    """The service of the manifest at `path`, a relative `source.path` made absolute against the manifest's folder.

    Raises `ManifestInvalid` with every problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ManifestInvalid.of(str(path), [Problem(_WHOLE, None, f"cannot be read: {reason}")]) from error
    except UnicodeDecodeError as error:
        problem = Problem(_WHOLE, None, f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}")
        raise ManifestInvalid.of(str(path), [problem]) from error
    return _anchored(parse(text, str(path)), path.absolute().parent)


def parse(text: str, source: str = _WHOLE) -> EmbeddingService:
    """The service of a manifest's text; `source` names it in the message of `ManifestInvalid`."""
    found = _read(text, source)
    try:
        service = EmbeddingService.model_validate(found.data)
    except ValidationError as error:
        raise ManifestInvalid.of(source, [*found.duplicates, *problems(error)]) from error
    if found.duplicates:
        raise ManifestInvalid.of(source, found.duplicates)
    return service


class _Loader(yaml.SafeLoader):
    """YAML without dates: what looks like one (a revision, say) stays the text it is, as it does for kubectl."""


_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class _Found:
    data: Any
    duplicates: list[Problem]


class _NotOne(Exception):
    """The text is no single document of a manifest's size."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _read(text: str, source: str) -> _Found:
    """The document as plain values; what is no document at all is refused by its one problem."""
    try:
        loader = _Loader(text)
        try:
            node = _only_node(loader)
            duplicates = list(_duplicates(node))
            return _Found(loader.construct_document(node), duplicates)
        finally:
            loader.dispose()
    except (_NotOne, yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # The last four are what PyYAML's constructors raise on a value that its explicit tag (`!!int x`) does not fit.
        raise ManifestInvalid.of(source, [_unreadable(error)]) from error


def _only_node(loader: _Loader) -> yaml.Node:
    node = loader.get_node() if loader.check_node() else None
    if node is None or node.value == "":
        raise _NotOne(Problem(_WHOLE, None, "is empty: must be a mapping with metadata and spec"))
    second = loader.get_node() if loader.check_node() else None
    if second is not None:
        line = second.start_mark.line + 1
        raise _NotOne(Problem(_WHOLE, None, f"has a second document, on line {line}: must be one"))
    return node


def _unreadable(error: Exception) -> Problem:
    if isinstance(error, _NotOne):
        return error.problem
    if isinstance(error, RecursionError):
        return Problem(_WHOLE, None, "is nested too deeply")
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else _WHOLE
    said = [getattr(error, "context", None), getattr(error, "problem", None)]
    words = ", ".join(part for part in said if part) or str(error).partition("\n")[0]
    return Problem(where, None, f"is not YAML: {words}")


@dataclass(slots=True)
class _Walk:
    """The nodes still to look at, with their paths, and how many were seen."""

    waiting: list[tuple[str, yaml.Node]]
    seen: int = field(default=0)

    def next(self) -> tuple[str, yaml.Node]:
        self.seen += 1
        if self.seen > _MOST_NODES:  # also the end of an alias that stands within what it names
            raise _NotOne(Problem(_WHOLE, None, f"has more than {_MOST_NODES} keys and values"))
        return self.waiting.pop()


def _duplicates(root: yaml.Node) -> Iterator[Problem]:
    """A problem for each key that stands twice in one mapping, from top to bottom."""
    walk = _Walk([("", root)])
    while walk.waiting:
        path, node = walk.next()
        if isinstance(node, yaml.MappingNode):
            yield from _twice(path, node)
        walk.waiting += reversed(list(_children(path, node)))


def _twice(path: str, node: yaml.MappingNode) -> Iterator[Problem]:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        first = lines.get((key.tag, key.value))
        lines[key.tag, key.value] = line
        if first is not None:
            yield Problem(_joined(path, key.value), None, f"stands twice, on line {first} and on line {line}")


def _children(path: str, node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield _joined(path, str(key.value)), value


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _anchored(service: EmbeddingService, folder: Path) -> EmbeddingService:
    """`service` with each `source.path` absolute: a server does not know where its manifest was."""
    models = [_anchored_model(model, folder) for model in service.spec.models]
    return service.model_copy(update={"spec": service.spec.model_copy(update={"models": models})})


def _anchored_model(model: ModelSpec, folder: Path) -> ModelSpec:
    if model.source.path is None:
        return model
    source = model.source.model_copy(update={"path": str((folder / model.source.path).resolve())})
    return model.model_copy(update={"source": source})
