"""What a request's headers say of its place in the queue: priority, deadline, tenant."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from embedfleet_server.batching.types import CRITICAL, HIGH, LOW, LOWEST, NORMAL
from embedfleet_server.engine.errors import InvalidRequest

PRIORITY, DEADLINE = "X-Embedfleet-Priority", "X-Embedfleet-Deadline-Milliseconds"
_NAMES = {"LOW": LOW, "NORMAL": NORMAL, "HIGH": HIGH, "CRITICAL": CRITICAL}
_NUMBER = re.compile(r"\s*[-+]?[0-9]{1,15}\s*", re.ASCII)
_TENANT_DIGITS = 16  # hexadecimal digits of a key's digest: enough to tell keys apart, too few to be worth stealing


@dataclass(frozen=True, slots=True)
class Schedule:
    """`within` is the caller's own limit in seconds; None leaves it to the service."""

    priority: int = NORMAL
    within: float | None = None
    tenant: str = ""


def of(headers: Mapping[str, str]) -> Schedule:
    """The schedule that `headers` ask for; `InvalidRequest` names what is wrong with them.

    The tenant is a digest of the key the request came with, so that work is shared fairly between keys.
    """
    return Schedule(_priority(headers.get(PRIORITY)), _within(headers.get(DEADLINE)), _tenant(headers))


def _priority(said: str | None) -> int:
    if said is None:
        return NORMAL
    if (named := _NAMES.get(said.strip().upper())) is not None:
        return named
    found = _whole(said)
    if found is not None and LOWEST <= found <= CRITICAL:
        return found
    raise InvalidRequest(f"{PRIORITY} is {said[:40]!r}: it must be 0 to 255, or one of {', '.join(_NAMES)}")


def _within(said: str | None) -> float | None:
    """Milliseconds from the arrival; 0 and less are in the past, which the engine refuses as such."""
    if said is None:
        return None
    found = _whole(said)
    if found is None:
        raise InvalidRequest(f"{DEADLINE} is {said[:40]!r}: it must be a whole number of milliseconds")
    return found / 1000


def _whole(said: str) -> int | None:
    """The number, of as many digits as a float holds for certain; None where it is none."""
    return int(said) if _NUMBER.fullmatch(said) else None


def _tenant(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    key = headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:_TENANT_DIGITS] if key else ""
