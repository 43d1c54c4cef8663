"""`doctor`: every route to a service walked, each with what is in the way and what to do about it."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from embedfleet import card, environment
from embedfleet.environment import Environment
from embedfleet.errors import AmbiguousName, EmbedfleetError, NoCluster
from embedfleet.explained import Tried
from embedfleet.kube import config, lookup, names
from embedfleet.kube.api import CONNECT_SECONDS, ApiServer
from embedfleet.kube.config import Context, Kubeconfig
from embedfleet.kube.credentials import Credentials
from embedfleet.portal import portal
from embedfleet.walk import CLUSTER, Wanted, walk

_MARKS = {"ok": "ok     ", "failed": "FAILED ", "skipped": "-      "}
_MOST_CONTEXTS = 8
_INDENT = " " * 9


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found, route by route; `print` it, or let a notebook show it."""

    name: str | None
    tried: tuple[Tried, ...]
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether `connect` would arrive: at least one route leads there."""
        return any(one.reached is not None for one in self.tried)

    @property
    def verdict(self) -> str:
        """The result in a line."""
        about = repr(self.name) if self.name else "the only service"
        first = next((one for one in self.tried if one.reached is not None), None)
        return f"no route leads to {about}" if first is None else f"{about} is reached by {first.route}, {first.words}"

    def __str__(self) -> str:
        return "\n".join([*(_lines(one) for one in self.tried), self.verdict, *self.hints])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [[one.outcome, one.route, one.words, one.remedy] for one in self.tried]
        return card.box([card.table(("", "route", "what came of it", "what to do"), rows), *self._told()])

    def _told(self) -> list[str]:
        return [card.text(line) for line in (self.verdict, *self.hints)]


def doctor(
    name: str | None = None,
    *,
    namespace: str | None = None,
    context: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    ca: str | os.PathLike[str] | None = None,
) -> Diagnosis:
    """Walk every route to the service `name` and name what is in the way; arguments as of `connect`.

    Nothing is changed, and no error is raised for what it finds.
    """
    wanted = Wanted(name, namespace, context, url, api_key, None, Path(ca) if ca else None)
    return portal().run(lambda _: examine(wanted))


async def examine(wanted: Wanted, around: Environment | None = None) -> Diagnosis:
    """The work of `doctor`, for `async` code."""
    around = around or environment.read()
    tried: list[Tried] = []
    try:
        async with aclosing(walk(wanted, around)) as steps:
            tried += [step async for step in steps]
    except EmbedfleetError as error:
        tried.append(Tried("name" if isinstance(error, AmbiguousName) else "arguments", str(error), "", error))
    lost = any(one.route == CLUSTER and one.error is not None for one in tried)
    hints = await _elsewhere(wanted, around) if lost and wanted.name else []
    return Diagnosis(wanted.name, tuple(tried), tuple(hints))


async def _elsewhere(wanted: Wanted, around: Environment) -> list[str]:
    """Other contexts of the kubeconfig that have the service: this one may be the wrong one."""
    try:
        found = config.load(around.kubeconfigs)
    except NoCluster:
        return []
    current = wanted.context or found.current
    others = [context for name in sorted(found.contexts) if name != current for context in _usable(found, name)]
    told = await asyncio.gather(*(_has(context, wanted) for context in others[:_MOST_CONTEXTS]))
    return [f"wrong context? {hint}" for hint in told if hint]


def _usable(found: Kubeconfig, name: str) -> Sequence[Context]:
    """The context, unless it is broken or asks for a login that nobody has asked for."""
    try:
        context = found.context(name)
    except NoCluster:
        return ()
    return () if context.user.plugin is not None else (context,)


async def _has(context: Context, wanted: Wanted) -> str | None:
    try:
        async with ApiServer(Credentials(context), CONNECT_SECONDS) as api:
            here = wanted.namespace or context.namespace
            records = await lookup.records(api, None) or await lookup.records(api, here) or []
    except EmbedfleetError:
        return None
    having = [one for one in records if wanted.name in (one.service, *one.models)]
    if not having:
        return None
    return f"context {context.name!r} has {names.listed(having)}: choose it by context= or --context"


def _lines(one: Tried) -> str:
    first, *rest = f"{_MARKS[one.outcome]}  {one.route}: {one.words}".splitlines()
    more = [*rest, *one.remedy.splitlines()]
    return "\n".join([first, *(f"{_INDENT}{line}" for line in more)])
