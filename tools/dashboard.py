"""The chart's Grafana dashboard, made of a table: a panel is a title, what it asks, and in which unit.

Its series are the server's own (`app/metrics.py`) and the operator's (`metrics.py`); tests ask both for each of them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Plain = dict[str, Any]

_WHERE = 'namespace=~"$namespace", job=~"$service"'
_MODEL = f'{_WHERE}, model=~"$model"'
_OPERATOR = 'job=~"$operator"'
_FAILED = ', code=~"internal|deadline_exceeded|model_failing|model_failed"'
"""As in the alert rule EmbedfleetErrors."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8
"""Grafana's grid has 24 columns; three panels stand beside each other."""
_SCHEMA = 39
"""Of Grafana 10 and later, which reads older ones too."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over time: each a PromQL expression and how its curves are called."""

    title: str
    description: str
    curves: Sequence[tuple[str, str]]
    unit: str = "short"
    limit: float | None = None
    """Drawn as a red line: where an alert rule begins."""


def _rate(series: str, by: str, where: str = _MODEL) -> str:
    return f"sum by ({by}) (rate({series}{{{where}}}[$__rate_interval]))"


def _all_requests(more: str = "") -> str:
    return f"sum(rate(embedfleet_requests_total{{{_WHERE}{more}}}[$__rate_interval]))"


def _gauge(series: str, how: str = "max", by: str = "model", where: str = _MODEL) -> str:
    return f"{how} by ({by}) ({series}{{{where}}})"


def _quantiles(series: str) -> list[tuple[str, str]]:
    buckets = _rate(f"{series}_bucket", "model, le")
    return [(f"histogram_quantile({share}, {buckets})", f"{{{{model}}}} p{share * 100:.0f}") for share in (0.5, 0.95)]


def _mean(series: str) -> str:
    return f"{_rate(f'{series}_sum', 'model')} / {_rate(f'{series}_count', 'model')}"


_BY_MODEL = "{{model}}"
_BY_DEVICE = "{{pod}} {{device}}"
ROWS: dict[str, Sequence[Panel]] = {
    "Requests": (
        Panel(
            "Requests",
            "By the answer's code; ok is a success.",
            [(_rate("embedfleet_requests_total", "code", _WHERE), "{{code}}")],
            "reqps",
        ),
        Panel(
            "Share of failed requests",
            "The server's own failures; refusals of a full queue and of wrong input are none.",
            [(f"{_all_requests(_FAILED)} / {_all_requests()}", "failed")],
            "percentunit",
            0.05,
        ),
        Panel(
            "Time of an answered request",
            "From its arrival to its last byte.",
            _quantiles("embedfleet_request_seconds"),
            "s",
            0.5,
        ),
        Panel("Inputs embedded", "Per second.", [(_rate("embedfleet_inputs_total", "model"), _BY_MODEL)], "cps"),
        Panel("Tokens of these inputs", "Per second.", [(_rate("embedfleet_tokens_total", "model"), _BY_MODEL)], "cps"),
        Panel(
            "Inputs without a vector",
            "Per second; each was answered with its cause.",
            [(_rate("embedfleet_failed_rows_total", "model"), _BY_MODEL)],
            "cps",
        ),
    ),
    "Queues": (
        Panel(
            "Inputs that wait",
            "Of all pods together; the alert is for one pod.",
            [(_gauge("embedfleet_queue_inputs", "sum"), _BY_MODEL)],
            limit=500,
        ),
        Panel(
            "Tokens that wait",
            "Of all pods together.",
            [(_gauge("embedfleet_queue_tokens", "sum"), _BY_MODEL)],
        ),
        Panel(
            "Age of the oldest input, and expected wait",
            "The expected wait is what a refusal names in Retry-After.",
            [
                (_gauge("embedfleet_queue_oldest_seconds"), "{{model}} oldest"),
                (_gauge("embedfleet_expected_wait_seconds"), "{{model}} expected"),
            ],
            "s",
        ),
        Panel("Wait of a batch", "The longest of its inputs.", _quantiles("embedfleet_queue_seconds"), "s"),
        Panel("Tokenising of a request", "Before it is queued.", _quantiles("embedfleet_tokenize_seconds"), "s"),
        Panel(
            "Computed once for several",
            "Inputs that joined others alike, and those found in the cache or not; per second.",
            [
                (_rate("embedfleet_joined_inputs_total", "job", _WHERE), "joined"),
                (_rate("embedfleet_cache_hits_total", "job", _WHERE), "found"),
                (_rate("embedfleet_cache_misses_total", "job", _WHERE), "not found"),
            ],
            "cps",
        ),
    ),
    "Batches": (
        Panel(
            "Inputs of a batch",
            "The mean, and the most that the next one may have (as set or learnt).",
            [
                (_mean("embedfleet_batch_size"), "{{model}} mean"),
                (_gauge("embedfleet_batch_size_limit"), "{{model}} at most"),
            ],
        ),
        Panel("Forward of a batch", "On the device.", _quantiles("embedfleet_compute_seconds"), "s"),
        Panel(
            "Padding",
            "Share of computed tokens that belong to no input.",
            [
                (
                    f"1 - {_rate('embedfleet_tokens_total', 'model')}"
                    f" / {_rate('embedfleet_computed_tokens_total', 'model')}",
                    _BY_MODEL,
                )
            ],
            "percentunit",
        ),
        Panel(
            "Batches under way",
            "In each pod; at most maxConcurrentBatches.",
            [(_gauge("embedfleet_active_batches", "max", "pod", _WHERE), "{{pod}}")],
        ),
        Panel(
            "Age of the oldest batch",
            "One that never ends holds a permit: the device hangs.",
            [(_gauge("embedfleet_batch_oldest_seconds"), _BY_MODEL)],
            "s",
            60,
        ),
        Panel(
            "Speed before traffic",
            "Tokens per second, measured when the model was loaded, by the tokens of a text; of the slowest pod.",
            [(_gauge("embedfleet_warm_up_tokens_per_second", "min", "model, length"), "{{model}} {{length}}")],
            "cps",
        ),
        Panel(
            "What a forward and the warm-up take",
            "A forward however few its tokens, and all forwards that measured the model.",
            [
                (_gauge("embedfleet_warm_up_start_seconds"), "{{model}} forward"),
                (_gauge("embedfleet_warm_up_seconds"), "{{model}} warm-up"),
            ],
            "s",
        ),
        Panel(
            "Most tokens in a batch by memory",
            "In the pod that has least room; below maxBatchTokens it bounds batches.",
            [(_gauge("embedfleet_safe_batch_tokens", "min"), _BY_MODEL)],
        ),
        Panel(
            "Vector cache",
            "Of all pods together.",
            [(_gauge("embedfleet_cache_bytes", "sum", "job", _WHERE), "size")],
            "bytes",
        ),
    ),
    "Devices": (
        Panel(
            "Busy",
            "Share of the time in which a device of a pod computes.",
            [(_rate("embedfleet_device_busy_seconds_total", "pod, device", _WHERE), _BY_DEVICE)],
            "percentunit",
        ),
        Panel(
            "Batches of a device",
            "Under way in each pod.",
            [(_gauge("embedfleet_device_batches", "max", "pod, device", _WHERE), _BY_DEVICE)],
        ),
        Panel(
            "Models that fail on a device",
            "It gets none of their batches, but one from time to time; the pod's other devices serve them.",
            [(_gauge("embedfleet_device_failing_models", "max", "pod, device", _WHERE), _BY_DEVICE)],
        ),
    ),
    "Health": (
        Panel(
            "Models loaded",
            "1: in every pod that answers.",
            [(_gauge("embedfleet_model_ready", "min"), _BY_MODEL)],
        ),
        Panel(
            "Models refused",
            "1: in some pod, because its batches fail; one batch tries from time to time.",
            [(_gauge("embedfleet_model_failing"), _BY_MODEL)],
            limit=1,
        ),
        Panel(
            "Mistakes in files of keys or TLS",
            "Since the pods' start; the values before stay in force.",
            [(_gauge("embedfleet_rejected_files_total", "sum", "kind", _WHERE), "{{kind}}")],
        ),
    ),
    "Operator": (
        Panel(
            "Services by condition",
            "How many there are, and for how many the condition holds; `kubectl get embed -A` says for which.",
            [
                (
                    _gauge("embedfleet_operator_services", "max", "job", _OPERATOR),
                    "all",
                ),
                (
                    _gauge(
                        "embedfleet_operator_services_by_condition", "max", "condition", f'{_OPERATOR}, status=~"True"'
                    ),
                    "{{condition}}",
                ),
            ],
        ),
        Panel(
            "Passes on services",
            "Per second, by how they ended.",
            [(_rate("embedfleet_operator_reconcile_seconds_count", "outcome", _OPERATOR), "{{outcome}}")],
            "cps",
        ),
        Panel(
            "Time of a pass",
            "Of all passes; one that waits for a silent pod takes 2 s.",
            [
                (
                    f"histogram_quantile({share}, "
                    f"{_rate('embedfleet_operator_reconcile_seconds_bucket', 'le', _OPERATOR)})",
                    f"p{share * 100:.0f}",
                )
                for share in (0.5, 0.95)
            ],
            "s",
        ),
        Panel(
            "Requests to the API server",
            "Per second, by the answer's code; the watches are left out.",
            [(_rate("embedfleet_operator_api_requests_total", "code", _OPERATOR), "{{code}}")],
            "reqps",
        ),
        Panel(
            "Services that wait for a pass, and who leads",
            "In each replica; 1 of leading is the one that holds the Lease.",
            [
                (_gauge("embedfleet_operator_queue_depth", "max", "pod", _OPERATOR), "{{pod}} waiting"),
                (_gauge("embedfleet_operator_leader", "max", "pod", _OPERATOR), "{{pod}} leading"),
            ],
        ),
        Panel(
            "What the watch owes",
            "For how long it has not told of what a resync has read; the age of its last event is no fault.",
            [
                (_gauge("embedfleet_operator_watch_owed_seconds", "max", "pod", _OPERATOR), "{{pod}} owes"),
                (_gauge("embedfleet_operator_watch_event_age_seconds", "max", "pod", _OPERATOR), "{{pod}} last event"),
            ],
            "s",
            90,
        ),
    ),
}


def page() -> str:
    """The dashboard in Grafana's JSON."""
    board = {
        "title": "embedfleet",
        "uid": "embedfleet-servers",
        "tags": ["embedfleet"],
        "description": "Servers of EmbeddingServices, and the operator. From tools/dashboard.py by `make generate`.",
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(), 1)],
    }
    return json.dumps(board, indent=1, ensure_ascii=False) + "\n"


def _variables() -> Iterator[Plain]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    series = "embedfleet_model_ready"
    for name, label, query in (
        ("namespace", "Namespace", f"label_values({series}, namespace)"),
        ("service", "Service", f'label_values({series}{{namespace=~"$namespace"}}, job)'),
        ("model", "Model", f"label_values({series}{{{_WHERE}}}, model)"),
        ("operator", "Operator", "label_values(embedfleet_operator_leader, job)"),
    ):
        chosen = {"includeAll": True, "multi": True, "current": {"text": ["All"], "value": ["$__all"]}, "sort": 1}
        asked = {"query": query, "datasource": _SOURCE, "refresh": 2}  # 2: whenever the time range changes
        yield {"name": name, "label": label, "type": "query", **asked, **chosen}


def _panels() -> Iterator[Plain]:
    top = 0
    for title, row in ROWS.items():
        yield {"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, _COLUMNS, 1), "panels": []}
        for index, panel in enumerate(row):
            left, below = index * _WIDTH % _COLUMNS, index * _WIDTH // _COLUMNS * _HEIGHT
            yield {**_panel(panel), "gridPos": _place(left, top + 1 + below, _WIDTH, _HEIGHT)}
        top += 1 + -(-len(row) * _WIDTH // _COLUMNS) * _HEIGHT


def _place(x: int, y: int, w: int, h: int) -> Plain:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> Plain:
    letters = "ABCDEFGH"
    targets = [
        {"refId": letters[index], "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
        for index, (expression, legend) in enumerate(panel.curves)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


def _field(panel: Panel) -> Plain:
    steps: list[Plain] = [{"color": "green", "value": None}]
    steps += [{"color": "red", "value": panel.limit}] if panel.limit is not None else []
    custom = {"fillOpacity": 10, "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"}}
    return {"unit": panel.unit, "min": 0, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}}
