"""A service as a card in a notebook. All text comes from elsewhere and is escaped."""

from collections.abc import Sequence
from html import escape

from embedfleet.explained import Journey
from embedfleet.kube.record import ClusterRecord
from embedfleet.wire import ModelCard

_BOX = "border:1px solid #8884;border-radius:6px;padding:8px 12px;display:inline-block;font-family:system-ui,sans-serif"
_GREY = "color:#888"


def service_card(name: str | None, models: Sequence[ModelCard], route: Journey, url: str) -> str:
    """The card of a client's service."""
    parts = [f"<b>{escape(name or '?')}</b> {_grey(url)}", *_cluster(route.record), *_route(route)]
    rows = [
        [card.name, _state(card), card.task or "", str(card.dimensions or ""), card.device or ""] for card in models
    ]
    return box([*parts, table(["model", "state", "task", "dimensions", "device"], rows) if rows else ""])


def box(parts: Sequence[str]) -> str:
    """Parts, HTML already, below each other in a frame."""
    return f'<div style="{_BOX}">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    top = "".join(f'<th style="text-align:left">{escape(head)}</th>' for head in heads)
    lines = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


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
