"""What `embedfleet get` prints of what it found."""

import json

from embedfleet.api.local import LocalRecord
from embedfleet.cli.listing import NO_ANSWER, Running, as_json, as_table


def record(service: str, *models: str) -> LocalRecord:
    url = "http://127.0.0.1:8080"
    return LocalRecord(service=service, pid=12, url=url, observe_url="http://127.0.0.1:8081", models=list(models))


FOUND = [
    Running(record("a", "one", "two"), "Ready", {"one": "Ready", "two": "Failed"}),
    Running(record("a-longer-name", "one"), NO_ANSWER, {}),
]


def test_the_table_has_a_line_for_each_service() -> None:
    """Columns stand under their headings, and a model that is not ready says how it is."""
    assert as_table(FOUND).splitlines() == [
        "SERVICE        STATE      URL                    PID  MODELS",
        "a              Ready      http://127.0.0.1:8080  12   one, two (failed)",
        "a-longer-name  no answer  http://127.0.0.1:8080  12   one",
    ]


def test_no_service_is_said_in_words() -> None:
    """Where nothing runs, the line says so and where it looked."""
    assert as_table([]).startswith("no service runs here (looked in ")


def test_json_holds_the_same() -> None:
    """A list for programs; a model's state is null where nobody could tell it."""
    told = json.loads(as_json(FOUND))
    assert told[0]["models"] == [{"name": "one", "state": "Ready"}, {"name": "two", "state": "Failed"}]
    assert told[1] == {
        "service": "a-longer-name",
        "pid": 12,
        "url": "http://127.0.0.1:8080",
        "observeUrl": "http://127.0.0.1:8081",
        "state": NO_ANSWER,
        "models": [{"name": "one", "state": None}],
        "socket": None,
    }
    assert json.loads(as_json([])) == []
