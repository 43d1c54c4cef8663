"""What became of every request of a rollover, as its client saw it, matched against the servers' own journals."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Outcome(Enum):
    """How a request ended for its client."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """With `accepted: false`: it may be sent again."""
    UNPROCESSED = "unprocessed"
    """Sent behind one whose answer said `Connection: close`: HTTP says it was not looked at (RFC 9112, 9.6)."""
    UNSENT = "unsent"
    """The client itself broke off before its end."""
    AMBIGUOUS = "ambiguous"
    """Everything else: no answer, a cut one, nobody listening, an error after it was accepted."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What the servers say: the requests they took, and with which status each ended."""

    accepted: frozenset[str] = frozenset()
    finished: Mapping[str, int] = field(default_factory=dict)


def read(paths: Iterable[Path]) -> Journal:
    """The journals of several servers as one."""
    return parse(line for path in paths for line in path.read_text(encoding="ascii").splitlines())


def parse(lines: Iterable[str]) -> Journal:
    """The journal that these lines are, of however many servers."""
    accepted: set[str] = set()
    finished: dict[str, int] = {}
    for line in lines:
        word, request, *status = line.split()
        if word == "accepted":
            accepted.add(request)
        else:
            finished[request] = int(status[0])
    return Journal(frozenset(accepted), finished)


def troubles(seen: Mapping[str, Outcome], journal: Journal) -> list[str]:
    """A line for each request that is ambiguous, or of which client and server tell different things."""
    found = [line for request, outcome in seen.items() if (line := _trouble(request, outcome, journal)) is not None]
    strangers = sorted(journal.accepted - set(seen))
    return found + [f"{request}: accepted, and no client knows of it" for request in strangers]


def _trouble(request: str, outcome: Outcome, journal: Journal) -> str | None:
    said = f"{'accepted' if request in journal.accepted else 'not accepted'}, {journal.finished.get(request)}"
    if outcome is Outcome.AMBIGUOUS:
        return f"{request}: ambiguous to its client; the server says: {said}"
    right = (request in journal.accepted) is (outcome is Outcome.ANSWERED)
    if outcome is Outcome.ANSWERED:
        right = right and journal.finished.get(request) == 200
    return None if right else f"{request}: {outcome.value} to its client; the server says: {said}"


def summary(seen: Mapping[str, Outcome]) -> str:
    """How many ended how."""
    counts = Counter(outcome.value for outcome in seen.values())
    return ", ".join(f"{counts[outcome.value]:,} {outcome.value}" for outcome in Outcome)
