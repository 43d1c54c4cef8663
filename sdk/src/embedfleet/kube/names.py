"""From a name to one service among those that a cluster has: decided here, purely."""

from collections.abc import Sequence

from embedfleet.errors import AmbiguousName
from embedfleet.kube.record import ClusterRecord

Match = tuple[ClusterRecord, str | None]
"""A service, and the model of it that was meant when the name was a model's."""


def choose(name: str | None, records: Sequence[ClusterRecord], where: str) -> Match | None:
    """The service `name`, else the only one with a model of that name; None: there is none.

    `AmbiguousName` lists them when there are several. Without a name the only service is meant.
    """
    if name is None:
        return _only(records, where)
    if called := [record for record in records if record.service == name]:
        return _single(
            called, f"the service {name!r} exists in several namespaces", "name one by namespace=", where
        ), None
    if having := [record for record in records if name in record.models]:
        how = f"connect to one of them with namespace= and model={name!r}"
        return _single(having, f"several services have a model {name!r}", how, where), name
    return None


def listed(records: Sequence[ClusterRecord]) -> str:
    """The services and their models, in a line."""
    return "; ".join(f"{record} (models {', '.join(record.models) or 'unknown'})" for record in records)


def _only(records: Sequence[ClusterRecord], where: str) -> Match | None:
    if not records:
        return None
    return _single(records, f"there are several services in {where}", "name one of them", where), None


def _single(records: Sequence[ClusterRecord], what: str, how: str, where: str) -> ClusterRecord:
    if len(records) > 1:
        raise AmbiguousName(f"{what}: {listed(records)}; {how}", [where], [str(record) for record in records])
    return records[0]
