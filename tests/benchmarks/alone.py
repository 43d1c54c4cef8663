"""One text alone at an idle server: what everything around the forward adds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.benchmarks import ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.peers import infinity
from tests.benchmarks.report import Goal, Section, milliseconds

_TEXTS = 10
_WARM_UP, _TURNS = 3, 25
_LIMIT, _WHOLE = 0.003, 0.010  # seconds: around the forward, and over HTTP with it


@dataclass(slots=True)
class _Times:
    """Seconds of one subject: for each text those of every call; and around the forward, where the server states it."""

    seconds: list[list[float]] = field(default_factory=lambda: [[] for _ in range(_TEXTS)])
    around: list[float] = field(default_factory=list)

    def add(self, text: int, answer: dict[str, Any]) -> None:
        """What one call measured."""
        self.seconds[text].append(answer["seconds"])
        if answer.get("around") is not None:
            self.around.append(answer["around"])

    def middle(self) -> float:
        """Median over all calls."""
        return median(second for own in self.seconds for second in own)

    def over(self, other: "_Times") -> float:
        """Seconds above the other for the same text, the median of the texts."""
        return median(median(own) - median(their) for own, their in zip(self.seconds, other.seconds, strict=True))


def measure(bench: Bench) -> Section:
    """Median time of a text over HTTP, of the same text tokenised and computed with nothing around, and of the peer."""
    bare, served, peer = _turns(bench)
    added, around = served.over(bare), median(served.around)
    section = Section(f"One text alone at idle: {_TEXTS} texts of median length", ("subject", "p50", "p50 added"))
    section.rows.append(("tokenise and forward, in process", milliseconds(bare.middle()), "-"))
    section.rows.append(("embedfleet over HTTP", milliseconds(served.middle()), milliseconds(added)))
    if bench.peer is not None:
        cells = milliseconds(peer.middle()), milliseconds(peer.over(bare))
        section.rows.append((f"infinity {infinity.VERSION} over HTTP", *cells))
    # Two processes do not take the same time for one forward, so what lies around it is told by the server's own clock;
    # the difference to the bare model in another process is shown beside it.
    told = f"{milliseconds(around)}; {milliseconds(added)} over the bare model in another process"
    section.goals.append(Goal("one text alone: p50 of the time around the forward <= 3 ms", told, around <= _LIMIT))
    section.goals += _whole(served, peer if bench.peer is not None else None)
    section.notes.append("Calls take turns, so each process slept before its own, in process and over HTTP alike.")
    bench.say(f"alone: {milliseconds(served.middle())}, added {told}")
    return section


def _whole(served: _Times, peer: _Times | None) -> Iterator[Goal]:
    """What is asked of the time that a caller sees."""
    seconds = served.middle()
    yield Goal("one text alone over HTTP: p50 <= 10 ms", milliseconds(seconds), seconds <= _WHOLE)
    if peer is not None:
        told = f"{milliseconds(seconds)}, {milliseconds(peer.middle())} there"
        yield Goal("one text alone over HTTP: p50 under infinity's", told, seconds < peer.middle())


def _turns(bench: Bench) -> tuple[_Times, _Times, _Times]:
    """One call after the other in turn, each in a process that slept meanwhile: an idle server is what is asked about.

    Called back to back a forward takes a fifth less, because caches and cores are warm.
    """
    bare, served, peer = _Times(), _Times(), _Times()
    for turn in range(_TURNS + _WARM_UP):
        for number, text in enumerate(_texts(bench)):
            found = [(bare, bench.bare.ask("alone", text=text))]
            found.append((served, bench.clients.ask("alone", url=bench.server.url, model=ours.MODEL, text=text)))
            if bench.peer is not None:
                asked = {"url": bench.peer.url, "model": infinity.MODEL, "text": text}
                found.append((peer, bench.clients.ask("alone", **asked)))
            if turn >= _WARM_UP:
                for times, answer in found:
                    times.add(number, answer)
    return bare, served, peer


def _texts(bench: Bench) -> list[str]:
    ordered = sorted(bench.texts, key=len)
    middle = (len(ordered) - _TEXTS) // 2
    return ordered[middle : middle + _TEXTS]
