"""`embedfleet get`: the services of this machine, then those of the cluster where there is one."""

import sys
from typing import Any

from embedfleet.cli import listing
from embedfleet.cli.printing import text_of
from embedfleet.cli.target import Target
from embedfleet.errors import ServiceNotFound


def listed(target: Target, form: str) -> str:
    """The services, or the one of the target's name, as `table`, `json` or `yaml`. Raises `ServiceNotFound`."""
    here = [] if target.is_in_a_cluster else [one for one in listing.running() if _is_meant(one, target)]
    there, note = _there(target)
    if target.name is not None and not (here or there):
        raise ServiceNotFound(f"no service {target.name!r}: {note or 'neither on this machine nor in the cluster'}")
    if note and target.may_be_in_a_cluster:
        print(note, file=sys.stderr)
    if form == "table":
        return _tables(here, there)
    plain = [*listing.plain(here), *there]
    return text_of(plain[0] if target.name is not None and len(plain) == 1 else plain, form)


def _is_meant(one: listing.Running, target: Target) -> bool:
    return target.name in (None, one.record.service)


def _there(target: Target) -> tuple[list[dict[str, Any]], str | None]:
    """The cluster's objects, and why there are none where it cannot be asked."""
    if not target.may_be_in_a_cluster:
        return [], "it does not run on this machine, and there is no kubeconfig"
    from embedfleet.cli.cluster import objects_of

    return objects_of(target)


def _tables(here: list[listing.Running], there: list[dict[str, Any]]) -> str:
    parts = [listing.as_table(here)] if here or not there else []
    if there:
        from embedfleet.cli.cluster import as_table

        parts.append(as_table(there))
    return "\n\n".join(parts)
