"""A service as a card in a notebook. All text comes from elsewhere and is escaped."""

from collections.abc import Sequence
from html import escape
from statistics import median

from embedfleet.explained import Journey
from embedfleet.kube.record import ClusterRecord
from embedfleet.wire import ModelCard

_BOX = "border:1px solid #8884;border-radius:6px;padding:8px 12px;display:inline-block;font-family:system-ui,sans-serif"
_GREY = "color:#888"
_WIDE, _HIGH = 160, 24
_SHORTEST = 1e-6  # so that a line of zeros has a height to be divided by
_A_FEW_MILLISECONDS = 0.01


def service_card(
    name: str | None, models: Sequence[ModelCard], route: Journey, url: str, latencies: Sequence[float] = ()
) -> str:
    """The card of a client's service; `latencies` are the seconds of its last requests, oldest first."""
    parts = [f"<b>{escape(name or '?')}</b> {_grey(url)}", *_cluster(route.record), *_route(route)]
    rows = [
        [card.name, _state(card), card.task or "", str(card.dimensions or ""), card.device or ""] for card in models
    ]
    models_table = table(["model", "state", "task", "dimensions", "device"], rows) if rows else ""
    return box([*parts, models_table, sparkline(latencies)])


def box(parts: Sequence[str]) -> str:
    """Parts, HTML already, below each other in a frame."""
    return f'<div style="{_BOX}">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    top = "".join(f'<th style="text-align:left">{escape(head)}</th>' for head in heads)
    lines = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def sparkline(latencies: Sequence[float]) -> str:
    """Latencies in seconds as a small line from 0 to the longest, oldest first, with the median in words."""
    if not latencies:
        return ""
    shown = [latencies[0], *latencies] if len(latencies) == 1 else latencies
    longest = max(*shown, _SHORTEST)
    step = _WIDE / (len(shown) - 1)
    points = " ".join(
        f"{i * step:.1f},{_HIGH - seconds / longest * (_HIGH - 2) - 1:.1f}" for i, seconds in enumerate(shown)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#4a7" stroke-width="1.5"/>'
    svg = f'<svg width="{_WIDE}" height="{_HIGH}" role="img" aria-label="latency">{line}</svg>'
    count = "the last request" if len(latencies) == 1 else f"the last {len(latencies)} requests"
    return f"{svg} {_grey(f'{_time(median(latencies))} median, {_time(longest)} longest of {count}')}"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= _A_FEW_MILLISECONDS else f"{seconds * 1000:.1f} ms"


def _cell(text: str) -> str:
    return f'<td style="text-align:left;white-space:pre-wrap">{escape(text)}</td>'


def _cluster(record: ClusterRecord | None) -> list[str]:
    if record is None or not record.seen:
        return []
    return [
        f"{escape(record.state)}, {record.ready} of {record.wanted} pods ready, namespace {escape(record.namespace)}"
    ]


def _route(route: Journey) -> list[str]:
    taken = [f"by {escape(route.taken.route)}"] if route.taken is not None else []
    refused = "".join(f"<li>{_grey(str(one))}</li>" for one in route.refused)
    listed = f"<details><summary>routes before it</summary><ul>{refused}</ul></details>" if refused else ""
    return [*taken, listed]


def _state(card: ModelCard) -> str:
    return f"{card.state}: {card.cause}" if card.cause else card.state


def _grey(text: str) -> str:
    return f'<span style="{_GREY};white-space:pre-wrap">{escape(text)}</span>'


def text(line: str) -> str:
    """A line of text as HTML."""
    return f'<span style="white-space:pre-wrap">{escape(line)}</span>'
