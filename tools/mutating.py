"""Mutants of a Python source: each is the source with one small fault put in, of a kind that people make.

Strings, annotations, decorators and assertions are left alone: none of them decides anything in the code this is for.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
Node = TypeVar("Node", bound=ast.AST)
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one file; `number` is its place among those of the file."""

    file: str
    number: int
    scope: str
    """The function or class it is in; empty where it is at the module's level."""
    before: str
    after: str
    first: int
    last: int
    """The lines of the statement (of a compound one, of its head), by which the tests that run it are found."""
    where: str
    """The line of code."""
    nth: int = 1
    """Of those that read the same."""

    @property
    def name(self) -> str:
        """How it is called on docs/mutants.md: without a line number, so that it keeps its name."""
        place = f"{self.file} {self.scope}".strip()
        which = f" ({self.nth})" if self.nth > 1 else ""
        return f"{place}: `{self.before}` → `{self.after}`{which} in `{self.where}`"


def mutants_of(source: str, file: str) -> list[Mutant]:
    """All mutants of one source, in its order."""
    lines, found, seen = source.splitlines(), [], Counter[str]()
    for number, site in enumerate(_sites(ast.parse(source))):
        where = lines[getattr(site.node, "lineno", site.first) - 1].split("  #")[0].strip()
        before, after = (ast.unparse(node).strip() for node in (site.node, site.changed))
        seen[key := f"{site.scope} {before} {after} {where}"] += 1
        found.append(Mutant(file, number, site.scope, before, after, site.first, site.last, where, seen[key]))
    return found


def mutated(source: str, number: int) -> ast.Module:
    """The source with the fault of that number in it, ready to be compiled."""
    tree = ast.parse(source)
    site = list(_sites(tree))[number]
    for name, value in vars(site.parent).items():
        if value is site.node:
            setattr(site.parent, name, site.changed)
        elif isinstance(value, list):
            value[:] = [site.changed if child is site.node else child for child in value]
    return ast.fix_missing_locations(tree)


@dataclass(frozen=True, slots=True)
class _Site:
    """A node that can be put in another one's place."""

    parent: ast.AST
    node: ast.AST
    changed: ast.AST
    scope: str
    first: int
    last: int


def _sites(parent: ast.AST, scope: str = "", lines: tuple[int, int] = (0, 0)) -> Iterator[_Site]:
    for node in _children(parent):
        span = _span(node) if isinstance(node, ast.stmt) else lines
        for changed in _changes(node):
            yield _Site(parent, node, changed, scope, *span)
        inner = f"{scope}.{node.name}".strip(".") if isinstance(node, ast.FunctionDef | ast.ClassDef) else scope
        yield from _sites(node, inner, span)


def _span(statement: ast.stmt) -> tuple[int, int]:
    """The lines of a statement; of one with a body, those before it."""
    body = getattr(statement, "body", None)
    return statement.lineno, body[0].lineno - 1 if body else statement.end_lineno or statement.lineno


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What decides something: no annotations, decorators, assertions."""
    left_out = {"annotation", "returns", "decorator_list"}
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for child in children if name not in left_out else ():
            if isinstance(child, ast.AST) and not isinstance(child, ast.Assert):
                yield child


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What can stand in place of a node."""
    if isinstance(node, ast.Constant):
        yield from map(ast.Constant, _values(node.value))
    elif isinstance(node, ast.stmt):
        yield from _statements(node)
    else:
        yield from _expressions(node)
        yield from _operations(node)


def _values(value: object) -> Iterator[bool | float]:
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case float():
            yield 2 * value or 1.0


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.AugAssign(op=op) if type(op) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(op)]())
        case ast.Return(value=ast.expr() as value) if not _is_falsy(value):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
    if _can_go(node):
        yield ast.Pass()


def _operations(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.BinOp(op=binary) if type(binary) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(binary)]())
        case ast.BoolOp(op=boolean):
            yield _with(node, op=ast.Or() if isinstance(boolean, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield copy.deepcopy(operand)


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield _with(node, func=ast.Name(_CALLS[name], ast.Load()))
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])


def _is_falsy(value: ast.expr) -> bool:
    """Nothing already, or what counts as nothing where it is asked."""
    return isinstance(value, ast.Constant) and value.value in (None, False)


def _can_go(node: ast.stmt) -> bool:
    """A statement for its effect: a call, an augmented assignment, one to an attribute or an item, a deletion."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Expr() | ast.AugAssign() | ast.Delete():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() | ast.Tuple(elts=[ast.Attribute(), *_])]):
            return True
    return False


def _compared(node: ast.Compare) -> Iterator[ast.Compare]:
    for at, op in enumerate(node.ops):
        yield _with(node, ops=[*node.ops[:at], _COMPARISONS[type(op)](), *node.ops[at + 1 :]])


def _with(node: Node, **fields: object) -> Node:
    changed = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
